"""How far the log of a slot is replicated, in `shards/<slot>.replicated` as JSON.

The position may lag behind: frames after it are produced again after a crash, and readers recognize
them as copies. The partitions may not lag behind: they are on disk before the first frame of a
segment is produced, because copies of the frame must be produced to the same partition, even if
partitions have been added to the topic meanwhile.
"""

from __future__ import annotations

import os
from pathlib import Path
from zlib import crc32

import msgspec
import structlog

from pixelfast.spool import DataDir, Position
from pixelfast.spool.datadir import sync_directory

__all__ = ["ReplicationCursor", "choose_partition", "lock_path", "read_cursor", "write_cursor"]

_AHEAD = 8  # segments that get their partition together, in one write
_log = structlog.get_logger("cluster")


class ReplicationCursor(msgspec.Struct, frozen=True):
    """The state of a slot's replication.

    Attributes:
        position: everything before it is stored by the brokers.
        partitions: pairs of a segment's number and the partition of the segments from it on.
        last_segment: the last segment with a partition. It may not exist yet.
    """

    position: Position = Position()
    partitions: tuple[tuple[int, int], ...] = ()
    last_segment: int = 0

    def partition_of(self, segment: int) -> int | None:
        """Return the partition of a segment, or None if none was chosen yet.

        >>> cursor = ReplicationCursor(partitions=((1, 3), (8, 5)), last_segment=9)
        >>> [cursor.partition_of(segment) for segment in (0, 1, 7, 8, 9, 10)]
        [None, 3, 3, 5, 5, None]
        """
        if segment > self.last_segment:
            return None
        known = [partition for first, partition in self.partitions if first <= segment]
        return known[-1] if known else None

    def moved_to(self, position: Position) -> ReplicationCursor:
        """Return the cursor at a position, without partitions that only segments before it had."""
        later = [n for n, (first, _) in enumerate(self.partitions) if first <= position.segment]
        needed = self.partitions[later[-1] :] if later else self.partitions
        return ReplicationCursor(position, needed, self.last_segment)

    def with_partition(self, segment: int, partition: int) -> ReplicationCursor:
        """Return the cursor with the partition of a segment that has none, and of some after it.

        >>> cursor = ReplicationCursor().with_partition(5, 3)
        >>> cursor.partitions, cursor.with_partition(20, 3).partitions
        (((5, 3),), ((5, 3),))
        >>> cursor.with_partition(20, 4).partitions
        ((5, 3), (20, 4))
        """
        known = self.partitions
        if not known or known[-1][1] != partition:
            known = (*known, (segment, partition))
        return ReplicationCursor(self.position, known, segment + _AHEAD)


def choose_partition(node: bytes, slot: int, partitions: int) -> int:
    """Return the partition of a slot of this node, in a topic with this number of partitions.

    >>> [choose_partition(bytes(16), slot, 4) for slot in range(5)]
    [1, 2, 3, 0, 1]
    """
    return (crc32(node) + slot) % partitions


def read_cursor(data: DataDir, slot: int) -> ReplicationCursor:
    """Return a slot's cursor; the beginning of the log if there is none or it is damaged."""
    path = _path(data, slot)
    try:
        return msgspec.json.decode(path.read_bytes(), type=ReplicationCursor)
    except FileNotFoundError:
        pass
    except msgspec.DecodeError as error:
        _log.error("replication_cursor_damaged", slot=slot, path=str(path), error=str(error))
    return ReplicationCursor()


def write_cursor(data: DataDir, slot: int, cursor: ReplicationCursor) -> None:
    """Write a slot's cursor completely or not at all, so that it survives a power failure."""
    path = _path(data, slot)
    temporary = path.with_suffix(".replicated-new")
    with temporary.open("wb") as file:
        file.write(msgspec.json.encode(cursor) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(path.parent)


def lock_path(data: DataDir, slot: int) -> Path:
    """Return the lock of the process that replicates a slot."""
    return data.path / "shards" / f"{slot}.replicating"


def _path(data: DataDir, slot: int) -> Path:
    return data.path / "shards" / f"{slot}.replicated"
