"""Delivery: what is in the spool reaches every destination, at least once, each at its own pace.

`selection`     which events a destination takes
`batches`       batches of events, and how to cut the same bytes again
`lines`         some events of a batch, without a copy of the others
`cutter`        cuts batches from the spool's NDJSON
`intake`        when to look at the spool, and when a batch is due
`plans`         what is on the disk of a batch, and how to make exactly its bytes again
`tasks`         a batch from the moment it is planned until it is settled
`queue`         tasks that wait to be sent, and which one is next
`sender`        what every kind of destination does; `destinations` has a module for each kind,
                `http` the client that most of them use, `bodies` events in other shapes
`masking`       takes the secrets of the settings out of outcomes
`outcomes`      what may become of a send
`settlement`    what follows from it: accepted, sent again, divided, or a dead letter
`settler`       does it; `doubts`, `rejections` and `probe` tell bad events from a bad destination
`health`        what responses say about the destination: `breaker`, `concurrency`, `retry`
`batch_size`    how large a batch may be, by the responses
`memory`        how much of a destination's events is kept in memory
`state_writer`  collects changes of a destination's state and writes them in one transaction
`store`         a destination's cursors, plans and totals in SQLite; `database` opens the file
`threads`       the thread of a destination that waits for its disk
`progress`      a destination's metrics: by its runner, or by its state on the disk
`dead`          events that a destination rejected; `dead_keeper` keeps their bounds
`runner`        one destination: cut, plan, send, settle
`reclaimer`     removes segments that have been read, and expires the oldest if space is short
`engine`        all destinations
`timing`        the clock and the intervals of all of these
"""

from __future__ import annotations

from pixelfast.deliver.engine import Engine, register_destinations

__all__ = ["Engine", "register_destinations"]
