from collections.abc import Callable
from typing import Any

from pixelfast.spool.format import SegmentId

class Batch:
    """Events of one group commit, gathered by the writer and sealed into frames.

    >>> batch = Batch()
    >>> batch.add(0, b'{"n":1}', 1700000000000)
    >>> len(batch), batch.event_bytes
    (1, 8)
    >>> from pixelfast.spool.format import SegmentId
    >>> from pixelfast.spool.frames import parse_frame
    >>> segment = SegmentId(bytes(16), 0, 1)
    >>> length = batch.seal([b"web"], segment, 64)
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
        """Bytes of the events, each with its line feed."""

    def add(self, source: int, event: bytes, received_ms: int = 0) -> None:
        """Add one event's JSON; `source` is its place in the names that `seal` gets."""

    def sealed_bytes(self, names: list[bytes]) -> int:
        """The most bytes that `seal` can make of this batch."""

    def seal(
        self,
        names: list[bytes],
        segment: SegmentId,
        offset: int,
        first_number: int = 0,
        compress: Callable[[memoryview], bytes] | None = None,
    ) -> int:
        """Make frames, one for each source, to stand at `offset` of `segment`; their length.

        Events are numbered from `first_number` on, in the order in which they stand there.
        Bodies of 512 bytes or more are stored as `compress` makes them, where that is smaller.
        """

    def sealed(self) -> bytes:
        """A copy of the frames; empty before `seal`."""

    def clear(self) -> None:
        """Make it as new; what `seal` made is gone."""
