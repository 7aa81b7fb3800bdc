"""The durable event log: segments on the disk, written in group commits, read from any position.

It knows neither what an event is nor where it goes: it takes a source's bytes and gives them back.

`format`     the format on the disk; its text is the specification
`frames`     the layout of frames, written and parsed; the events of one commit
`compression`  bodies that are compressed, optional
`datadir`    the data directory, its lock and its layout
`trouble`    what is wrong with a path, and what to do about it
`modes`      who may read what is kept: nobody but its user
`segments`   one slot's files as their writer sees them
`committer`  the thread that writes and syncs without the GIL
`bounds`     how much events may take
`supply`     the segments of a writer, one made ahead
`writer`     group commit, acknowledgements, and what happens when the disk fails
`reader`     the frames of a slot from a position on
`end`        where the log ends
`highwater`  the numbers of a slot that was removed
`recovery`   getting past damage
`retention`  removing what every destination has read
"""

from __future__ import annotations

from pixelfast.errors import NOT_COMPILED

try:
    from pixelfast.spool.committer import Committer
    from pixelfast.spool.writer import REJECTIONS, SpoolWriter
except ModuleNotFoundError as error:
    raise ImportError(NOT_COMPILED.format(error.name)) from error
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
]
