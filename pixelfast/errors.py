"""Every exception that pixelfast raises on purpose.

::

    PixelfastError
    ├── ConfigError        the settings: key, value, what is allowed
    │   └── ConfigErrors   all mistakes of one settings file at once
    ├── RequestError       one request is refused: status, reason
    ├── SpoolError         the event log on disk
    │   ├── SpoolFull      no room within the bounds set for it
    │   ├── SpoolCorrupt   bytes on disk that are not what was written
    │   └── SpoolLocked    another process owns it
    └── DestinationError   a destination's own state can't be used

A message says what is wrong, the value and the limit:
``request target is 40,112 bytes, limit 32,768``.
"""

from __future__ import annotations

from pixelfast.printable import printable

__all__ = [
    "NOT_COMPILED",
    "ConfigError",
    "ConfigErrors",
    "DestinationError",
    "PixelfastError",
    "RequestError",
    "SpoolCorrupt",
    "SpoolError",
    "SpoolFull",
    "SpoolLocked",
]


NOT_COMPILED = "{} is not compiled: run `make build` in the checkout, or install the package"


class PixelfastError(Exception):
    """The root of all exceptions raised on purpose."""


class ConfigError(PixelfastError):
    """One mistake in the settings.

    >>> print(ConfigError("server.workers", "-1", "a whole number, at least 0"))
    server.workers = -1: expected a whole number, at least 0
    >>> print(ConfigError("server.wokers", None, "no such setting", nearest="workers"))
    server.wokers: no such setting; did you mean "workers"?
    """

    def __init__(
        self, key: str, value: str | None, allowed: str, *, nearest: str | None = None
    ) -> None:
        super().__init__(key, value, allowed, nearest)
        self.key = key
        self.value = value
        self.allowed = allowed
        self.nearest = nearest

    def __str__(self) -> str:
        what = f"{self.key}: {self.allowed}"
        if self.value is not None:
            what = f"{self.key} = {self.value}: expected {self.allowed}"
        return printable(f'{what}; did you mean "{self.nearest}"?' if self.nearest else what)


class ConfigErrors(ConfigError):
    """All mistakes of one settings file, in the order of the file."""

    def __init__(self, path: str, problems: list[ConfigError]) -> None:
        super().__init__(path, None, f"{len(problems)} mistakes")
        self.path = path
        self.problems = problems

    def __str__(self) -> str:
        count = len(self.problems)
        head = printable(f"{self.path}: {count} mistake{'s' if count != 1 else ''}")
        return "\n".join([head, *(f"  {problem}" for problem in self.problems)])


class RequestError(PixelfastError):
    """One request is refused.

    ``reason`` is a short, bounded word for counters and the ``X-Pixelfast-Error`` header;
    ``detail`` is for the person who debugs it and never holds a write key or a query.
    """

    def __init__(self, status: int, reason: str, detail: str = "") -> None:
        super().__init__(status, reason, detail)
        self.status = status
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return self.detail or self.reason


class SpoolError(PixelfastError):
    """The event log on disk can't do what was asked."""


class SpoolFull(SpoolError):
    """There is no room for another event within the bounds set for it."""


class SpoolCorrupt(SpoolError):
    """Bytes of the spool that are not what was written there."""

    def __init__(self, segment: str, position: int, why: str) -> None:
        super().__init__(f"{segment} at byte {position:,}: {why}")
        self.segment = segment
        self.position = position


class SpoolLocked(SpoolError):
    """Another process owns this part of the data directory."""


class DestinationError(PixelfastError):
    """A destination's own state or place can't be used."""
