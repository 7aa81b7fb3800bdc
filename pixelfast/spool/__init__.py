"""The durable event log: segments on the disk, written in group commits, read from any position.

It knows neither the content nor the destination of an event: it stores and returns bytes.

`format`     the format on disk; its docstring is the specification
`frames`     the layout of frames, written and parsed
`batch`      the events of one commit, sealed into frames
`compression`  optional compression of bodies
`datadir`    the data directory, its lock and its layout
`trouble`    describes problems with a path, and their remedies
`modes`      file permissions: only the user of pixelfast may read the data
`segments`   the segment files of one slot, for their writer
`committer`  the thread that writes and syncs without the GIL
`bounds`     the disk space that a slot may use
`space`      measures the disk space that is used and free
`supply`     supplies a writer with segments, one of them in advance
`states`     the states of a writer, and its reasons to reject events
`writer`     group commit, acknowledgements, and failures of the disk
`acks`       what a writer needs of an object that acknowledges its commits
`reader`     reads the frames of a slot from a position on
`end`        finds the end of the log
`highwater`  the numbers of a slot that was removed
`recovery`   skips damage
`retention`  removes segments that every destination has read
"""

from __future__ import annotations

from pixelfast.errors import missing_module

try:
    from pixelfast.spool.committer import Committer
    from pixelfast.spool.states import REJECTIONS
    from pixelfast.spool.writer import SpoolWriter
except ModuleNotFoundError as error:
    raise missing_module(error) from error
from pixelfast.spool.bounds import segment_bytes_in_force
from pixelfast.spool.compression import compressor
from pixelfast.spool.datadir import DataDir
from pixelfast.spool.end import LogEnd, newest_frames, number_at
from pixelfast.spool.format import Frame, Position
from pixelfast.spool.reader import SlotReader
from pixelfast.spool.retention import (
    remove_drained_slot,
    remove_read_segments,
)
from pixelfast.spool.segments import SlotFiles
from pixelfast.spool.trouble import describe_trouble

__all__ = [
    "REJECTIONS",
    "Committer",
    "DataDir",
    "Frame",
    "LogEnd",
    "Position",
    "SlotFiles",
    "SlotReader",
    "SpoolWriter",
    "compressor",
    "describe_trouble",
    "newest_frames",
    "number_at",
    "remove_drained_slot",
    "remove_read_segments",
    "segment_bytes_in_force",
]
