"""Delivery: what is in the spool reaches every destination, at least once, each at its own pace.

`batches`       cuts batches from the spool's NDJSON, without parsing events
`store`         a destination's cursors in SQLite
`outcomes`      what may become of a send
`retry`         the wait before the next try
`destinations`  one module for each kind of destination
`threads`       a thread of one's own, for calls that wait for a disk
`engine`        a runner for each destination; gives back the spool's room
"""

from __future__ import annotations

from pixelfast.deliver.engine import Engine

__all__ = ["Engine"]
