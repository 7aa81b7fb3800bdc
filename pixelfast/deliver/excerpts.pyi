from collections.abc import Iterable, Iterator

__all__ = ["Excerpts"]

class Excerpts:
    """Many byte strings that are parts of one buffer, in the order of their positions.

    >>> lines = Excerpts.of([b"one", b"two", b"three"])
    >>> lines[1], len(lines), lines.buffer
    (b'two', 3, b'one\\ntwo\\nthree')
    """

    buffer: bytes

    @staticmethod
    def of(parts: Iterable[bytes]) -> Excerpts:
        """Copy byte strings into one buffer, separated by line feeds.

        Adjacent parts that are the same object are copied once.
        """

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[bytes]: ...
    def __getitem__(self, index: int, /) -> bytes: ...
    def start_of(self, index: int) -> int:
        """Return where an excerpt begins in the buffer."""

    def end_of(self, index: int) -> int:
        """Return where an excerpt ends in the buffer."""

    def index_at(self, position: int) -> int:
        """Return the index of the first excerpt that ends after a position in the buffer.

        Return the number of excerpts if all of them end before.
        """

    def span(self, start: int, stop: int) -> bytes:
        """Return the part of the buffer from the excerpt `start` to the one before `stop`."""

    def sizes(self) -> list[int]:
        """Return the length of each excerpt."""

    def picked(self, places: Iterable[int]) -> Excerpts:
        """Return some of the excerpts, by their indexes in ascending order, without a copy."""

    def fitting(self, start: int, max_bytes: int, each_bytes: int) -> int:
        """Return the index after the excerpts from `start` on that fit into `max_bytes`.

        Each counts as its length and `each_bytes`. The first one always fits.
        """

    def joined(self, start: int, stop: int, separator: bytes = b"") -> bytes:
        """Return the excerpts from `start` to the one before `stop`, joined to one byte string."""

    def folded(
        self, start: int, max_bytes: int, each_bytes: int, others: Excerpts
    ) -> tuple[int, bytes, bytes]:
        """Return the excerpts from `start` on, without the content that they share.

        >>> lines = Excerpts.of([b"field 1 failed", b"field 27 failed"])
        >>> lines.folded(0, 99, 0, lines)[2]
        b'field 1 failed27'

        The first value is the index after those excerpts that fit into `max_bytes`. Each counts as
        its own bytes, `each_bytes` and the length of the same excerpt of `others`. The first one
        always fits.

        The second value has three little-endian unsigned 32-bit integers for each excerpt: how many
        bytes it shares with the beginning of the excerpt `start`, how many with its end, and how
        many are its own. The third value has the own bytes of all excerpts.
        """
