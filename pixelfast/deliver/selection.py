"""Which events a destination takes. Only a filter by name or type parses events."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

import msgspec
import orjson

__all__ = ["Selection"]


class Selection(msgspec.Struct, frozen=True):
    """What a destination takes; kept with each plan, so that its bytes stay the same.

    `without`: sources that do not go to it. `events`: names, `*` for any text; a page has no name.
    `types`: `track`, `page`. Empty means all.
    """

    without: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    types: tuple[str, ...] = ()

    @property
    def parses(self) -> bool:
        """Whether events must be looked into."""
        return bool(self.events or self.types)

    def takes_source(self, source: str) -> bool:
        return source not in self.without

    def picker(self) -> Callable[[bytes], bool]:
        """Tells of one event's JSON whether it is taken.

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
