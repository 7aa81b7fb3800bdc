"""The tables of a settings file, as far as they could be read."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

__all__ = ["INVALID", "Table"]

INVALID: Any = object()  # a value with an error that has been reported


class Table(NamedTuple):
    """A table of the file, as far as it could be read."""

    path: str
    cls: type[msgspec.Struct]
    values: dict[str, Any]

    def get(self, name: str) -> Any:
        """Return the value in the file, otherwise the default; None if it has an error."""
        if name in self.values:
            return None if self.values[name] is INVALID else self.values[name]
        for field in msgspec.structs.fields(self.cls):
            if field.name == name and field.default is not msgspec.NODEFAULT:
                return field.default
        return None

    def gives(self, *names: str) -> bool:
        """Return whether the file has valid values for all these settings."""
        return all(self.values.get(name, INVALID) is not INVALID for name in names)
