from collections.abc import Iterable

__all__ = ["line_sizes", "pick_lines"]

def pick_lines(body: bytes, places: Iterable[int]) -> list[bytes]:
    """Return lines of NDJSON without their line feeds, by their places, counted from 0.

    >>> pick_lines(b'{"n":0}\\n{"n":1}\\n{"n":2}\\n', [0, 2])
    [b'{"n":0}', b'{"n":2}']

    Splitting a batch copies all of its events; this copies those that are wanted.

    Raises:
        ValueError: the places are not in ascending order, or the body has no such line.
    """

def line_sizes(body: bytes, places: Iterable[int]) -> list[int]:
    """Return the bytes of lines, as `pick_lines` finds them; raises as it does."""
