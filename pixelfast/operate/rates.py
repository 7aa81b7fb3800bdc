"""The shared memory in which all collectors count against the rate limits of sources."""

from __future__ import annotations

import os
from collections.abc import Iterable

__all__ = ["RateTable"]

_CACHE_LINE_BYTES = 64  # words of two sources in one of them would slow each other down


class RateTable:
    """Has a word of shared memory for each source that has, or had, a rate limit.

    It lasts as long as the supervisor, so that a limit holds across restarts of collectors. A
    source keeps its place when the settings change. `pixelfast.collect.budgets` says what a word
    means.

    Attributes:
        fd: the memory; collectors inherit the descriptor.
        places: where the word of each source begins, in bytes.

    >>> table = RateTable(["web"])
    >>> table.add(["shop", "web"])
    >>> table.places
    {'web': 0, 'shop': 64}
    >>> table.close()
    """

    def __init__(
        self,
        names: Iterable[str] = (),
        *,
        fd: int | None = None,
        places: dict[str, int] | None = None,
    ) -> None:
        """Make a table, or go on with the one that an earlier program has handed over."""
        self.fd = os.memfd_create("pixelfast-rates", os.MFD_CLOEXEC) if fd is None else fd
        self.places: dict[str, int] = dict(places or {})
        self.add(names)

    def add(self, names: Iterable[str]) -> None:
        """Give a place to the sources that have none. Processes map the memory anew for them."""
        for name in names:
            self.places.setdefault(name, len(self.places) * _CACHE_LINE_BYTES)
        os.ftruncate(self.fd, max(1, len(self.places)) * _CACHE_LINE_BYTES)

    def close(self) -> None:
        """Give up the descriptor; those who have mapped the memory keep it."""
        os.close(self.fd)
