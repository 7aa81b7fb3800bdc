from collections.abc import Iterable

__all__ = ["line_sizes", "pick_lines"]

def pick_lines(body: bytes, places: Iterable[int]) -> list[bytes]:
    """Return lines of NDJSON without their line feeds, by their positions, counted from 0.

    >>> pick_lines(b'{"n":0}\\n{"n":1}\\n{"n":2}\\n', [0, 2])
    [b'{"n":0}', b'{"n":2}']

    Only these lines are copied, while splitting the body would copy all of them.

    Raises:
        ValueError: the positions are not in ascending order, or the body has no such line.
    """

def line_sizes(body: bytes, places: Iterable[int]) -> list[int]:
    """Return the sizes of the lines that `pick_lines` would return, in bytes.

    Raises:
        ValueError: as `pick_lines`.
    """
