from collections.abc import Iterable

from pixelfast.deliver.excerpts import Excerpts

__all__ = ["pick_lines"]

def pick_lines(body: bytes, places: Iterable[int]) -> Excerpts:
    """Return lines of NDJSON without their line feeds, by their positions, counted from 0.

    >>> list(pick_lines(b'{"n":0}\\n{"n":1}\\n{"n":2}\\n', [0, 2]))
    [b'{"n":0}', b'{"n":2}']

    No line is copied.

    Raises:
        ValueError: the positions are not in ascending order, or the body has no such line.
    """
