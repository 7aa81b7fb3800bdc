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

import errno

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
    "operator_error",
]


NOT_COMPILED = "{} is not compiled: run `make build` in the checkout, or install the package"


# An OSError with one of these is a mistake of the program: it used what is not its own.
_OF_THE_PROGRAM = frozenset({errno.EBADF, errno.EFAULT, errno.ENOTSOCK})
_SQLITE_ERROR = 1  # the primary result code of bad SQL, which is a mistake of the program as well


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


def operator_error(error: BaseException) -> str:
    """Return one line about an error that the operator can mend; "" for a mistake of the program.

    The first kind needs no traceback: the machine, the disk or a setting is to blame. Errors that
    pixelfast raises on purpose are of this kind, too.

    >>> operator_error(OSError(28, "No space left on device", "/data/a.seg"))
    '/data/a.seg: No space left on device'
    >>> operator_error(ValueError("oops"))
    ''
    """
    if isinstance(error, PixelfastError):
        return " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return "out of memory"
    if isinstance(error, RuntimeError) and str(error) == "can't start new thread":
        return "cannot start a thread: a limit of memory or of processes (`ulimit -u`, TasksMax=)"
    # By their modules: importing ssl and sqlite3 takes longer than `pixelfast --help`.
    module = type(error).__module__
    if module == "sqlite3":
        code = getattr(error, "sqlite_errorcode", None) or _SQLITE_ERROR
        return "" if code & 0xFF == _SQLITE_ERROR else f"SQLite: {error}"
    if not isinstance(error, OSError) or not error.errno:
        return ""
    if module != "ssl" and error.errno in _OF_THE_PROGRAM:  # errno of ssl is another number
        return ""
    reason = error.strerror or str(error)
    return reason if error.filename is None else f"{_path(error.filename)}: {reason}"


def _path(name: object) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
