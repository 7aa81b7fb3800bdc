"""Delivery: what is in the spool reaches every destination, at least once, each at its own pace.

`selection`     which events a destination takes
`batches`       batches of events, and how to cut the same bytes again
`cutter`        cuts them from the spool's NDJSON
`plans`         what is going to be sent, and how to make exactly its bytes again
`store`         a destination's cursors, plans and totals in SQLite
`dead`          events that a destination refused
`intake`        when to look at the spool, and when a batch is due
`state_writer`  writes a destination's state behind its back: many changes in one transaction
`destinations`  one module for each kind of destination
`outcomes`      what may become of a send
`settlement`    what follows from it: sent, sent again, halved, or a dead letter
`health`        what it says about the destination: `breaker`, `concurrency`, `retry`
`runner`        one destination: cut, plan, send, settle
`reclaimer`     removes segments that everybody has read, and expires the oldest if space is short
`engine`        all destinations
"""

from __future__ import annotations

from pixelfast.deliver.engine import Engine, register_destinations

__all__ = ["Engine", "register_destinations"]
