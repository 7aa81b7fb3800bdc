"""The shared memory in which collectors count events against rate limits."""

from __future__ import annotations

import os
from collections.abc import Iterable

__all__ = ["RateTable"]

_CACHE_LINE_BYTES = 64  # each source has its own, because shared ones would be slower


class RateTable:
    """Holds a word of shared memory for each source that has or had a rate limit.

    It lasts as long as the supervisor, so that limits hold across restarts of collectors. A source
    keeps its place when the settings change. `pixelfast.collect.budgets` defines the word.

    Attributes:
        fd: descriptor of the memory, which collectors inherit.
        places: offset of the word of each source, in bytes.

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
        """Create a table, or use one that the replaced program handed over."""
        self.fd = os.memfd_create("pixelfast-rates", os.MFD_CLOEXEC) if fd is None else fd
        self.places: dict[str, int] = dict(places or {})
        self.add(names)

    def add(self, names: Iterable[str]) -> None:
        """Add places for new sources. Processes have to map the memory again."""
        for name in names:
            self.places.setdefault(name, len(self.places) * _CACHE_LINE_BYTES)
        os.ftruncate(self.fd, max(1, len(self.places)) * _CACHE_LINE_BYTES)

    def close(self) -> None:
        """Close the descriptor; processes that have mapped the memory keep it."""
        os.close(self.fd)
