"""Which events a destination accepts. Only a filter by name or type parses events."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

import msgspec
import orjson

__all__ = ["Selection"]


class Selection(msgspec.Struct, frozen=True):
    """Which events a destination accepts; kept with each plan, so that its bytes stay the same.

    Attributes:
        excluded: the sources whose events it does not receive.
        events: the names of its events, with `*` for any string; a page has no name. Empty for all.
        types: `track` or `page`; empty for all.
    """

    excluded: tuple[str, ...] = msgspec.field(default=(), name="without")
    events: tuple[str, ...] = ()
    types: tuple[str, ...] = ()

    @property
    def parses(self) -> bool:
        """Whether events must be parsed."""
        return bool(self.events or self.types)

    def takes_source(self, source: str) -> bool:
        return source not in self.excluded

    def picker(self) -> Callable[[bytes], bool]:
        """Return a function that tells whether an event is accepted, from its JSON.

        >>> Selection(events=("Order *",)).picker()(b'{"type":"track","event":"Order Paid"}')
        True
        """
        names = _pattern(self.events) if self.events else None
        types = frozenset(self.types)

        def is_taken(event: bytes) -> bool:
            fields = orjson.loads(event)
            if types and fields.get("type") not in types:
                return False
            if names is None:
                return True
            name = fields.get("event")
            return isinstance(name, str) and names.fullmatch(name) is not None

        return is_taken


@lru_cache
def _pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    alternatives = (".*".join(map(re.escape, name.split("*"))) for name in names)
    return re.compile("|".join(f"(?:{each})" for each in alternatives), re.DOTALL)
