from collections.abc import Callable
from typing import Any

from pixelfast.spool.format import SegmentId

__all__ = ["CommitBatch"]

class CommitBatch:
    """The events of one group commit, collected by the writer and sealed into frames.

    >>> batch = CommitBatch()
    >>> batch.add(0, b'{"n":1}', 1700000000000)
    >>> len(batch), batch.event_bytes
    (1, 8)
    >>> from pixelfast.spool.format import SegmentId
    >>> segment = SegmentId(bytes(16), 0, 1)
    >>> length = batch.seal([b"web"], segment, 64)
    >>> from pixelfast.spool.frames import parse_frame
    >>> frame = parse_frame(memoryview(batch.sealed()), 0, 64, segment)
    >>> frame.source, frame.events, bytes(frame.body)
    ('web', 1, b'{"n":1}\\n')
    """

    waiters: list[Any]
    first_ticket: int
    since_s: float
    has_failed: bool

    def __len__(self) -> int: ...
    @property
    def event_bytes(self) -> int:
        """The size of the events, each with its line feed, in bytes."""

    def add(self, source: int, event: bytes, received_ms: int = 0) -> None:
        """Add one event's JSON; `source` is its index in the names passed to `seal`."""

    def sealed_bytes(self, names: list[bytes]) -> int:
        """Return the maximum size of the frames that `seal` makes of this batch."""

    def seal(
        self,
        names: list[bytes],
        segment: SegmentId,
        offset: int,
        first_number: int = 0,
        compress: Callable[[memoryview], bytes] | None = None,
        *,
        segment_bytes: int = ...,
    ) -> int:
        """Make frames, one for each source, for `offset` of `segment`; return their length.

        Events are numbered from `first_number` on, in their order in the frames. Bodies of
        `MIN_COMPRESSED_BYTES` or more are compressed by `compress` if that makes them smaller. A
        batch may be sealed again for another place. 48 zero bytes follow the frames, or fewer at
        the end of a segment of `segment_bytes`.
        """

    def sealed(self) -> bytes:
        """Return a copy of the frames; empty before `seal`."""

    def written(self) -> bytes:
        """Return a copy of the bytes that a commit writes: the frames and the zeros after them."""

    def clear(self) -> None:
        """Remove all events and frames."""
