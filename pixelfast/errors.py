"""The exceptions that pixelfast raises on purpose.

::

    PixelfastError
    ├── ConfigError        a setting: key, value, what is wrong
    │   └── ConfigErrors   all errors of one settings file
    ├── RequestError       a rejected request: status, reason
    ├── SpoolError         the event log on disk
    │   ├── SpoolCorrupt   bytes on disk differ from what was written
    │   └── SpoolLocked    another process owns it
    └── DestinationError   the state or files of a destination cannot be used

A message says what is wrong, the value and the limit:
``the request target is 40,112 bytes long; the limit is 32,768``.
"""

from __future__ import annotations

import errno

from pixelfast.printable import printable

__all__ = [
    "ConfigError",
    "ConfigErrors",
    "DestinationError",
    "PixelfastError",
    "RequestError",
    "SpoolCorrupt",
    "SpoolError",
    "SpoolLocked",
    "missing_module",
    "operator_error",
]


# An OSError with one of these is a bug: the program used a descriptor that it does not own.
_BUGS = frozenset({errno.EBADF, errno.EFAULT, errno.ENOTSOCK})
_SQLITE_ERROR = 1  # the primary result code of invalid SQL, which is a bug as well


class PixelfastError(Exception):
    """The base class of all exceptions that pixelfast raises on purpose."""


class ConfigError(PixelfastError):
    """An error in one setting.

    >>> print(ConfigError("server.workers", "-1", "expected an integer from 0 to 1024"))
    server.workers = -1: expected an integer from 0 to 1024
    >>> print(ConfigError("server.wokers", None, "unknown setting", nearest="workers"))
    server.wokers: unknown setting; did you mean "workers"?
    """

    def __init__(
        self, key: str, value: str | None, problem: str, *, nearest: str | None = None
    ) -> None:
        super().__init__(key, value, problem, nearest)
        self.key = key
        self.value = value
        self.problem = problem
        self.nearest = nearest

    def __str__(self) -> str:
        subject = self.key if self.value is None else f"{self.key} = {self.value}"
        hint = f'; did you mean "{self.nearest}"?' if self.nearest else ""
        return printable(f"{subject}: {self.problem}{hint}")


class ConfigErrors(ConfigError):
    """All errors of one settings file, in the order of the file."""

    def __init__(self, path: str, problems: list[ConfigError]) -> None:
        super().__init__(path, None, f"{len(problems)} errors")
        self.path = path
        self.problems = problems

    def __str__(self) -> str:
        count = len(self.problems)
        if [self.path] == [problem.key for problem in self.problems]:
            return str(self.problems[0])  # about the file itself
        head = printable(f"{self.path}: {count} error{'s' if count != 1 else ''}")
        return "\n".join([head, *(f"  {problem}" for problem in self.problems)])


class RequestError(PixelfastError):
    """A rejected request.

    ``reason`` is one of the reasons of the ``X-Pixelfast-Error`` header and of metrics. ``detail``
    explains it to a person and never contains a write key or a query.
    """

    def __init__(self, status: int, reason: str, detail: str = "") -> None:
        super().__init__(status, reason, detail)
        self.status = status
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return self.detail or self.reason


class SpoolError(PixelfastError):
    """An operation on the event log failed."""


class SpoolCorrupt(SpoolError):
    """Bytes of the spool differ from what was written."""

    def __init__(self, segment: str, position: int, why: str) -> None:
        super().__init__(f"{segment} at byte {position:,}: {why}")
        self.segment = segment
        self.position = position


class SpoolLocked(SpoolError):
    """Another process owns this part of the data directory."""


class DestinationError(PixelfastError):
    """The state or the files of a destination cannot be used."""


def missing_module(error: ModuleNotFoundError) -> ImportError:
    """Return what to raise for a module that cannot be imported, with the remedy.

    >>> print(missing_module(ModuleNotFoundError(name="zlib_ng")))
    zlib_ng is not installed: run `make build` in the checkout, or install the package
    """
    is_own = str(error.name).startswith("pixelfast.")
    return ImportError(
        f"{error.name} is not {'compiled' if is_own else 'installed'}: "
        "run `make build` in the checkout, or install the package"
    )


def operator_error(error: BaseException) -> str:
    """Return one line about an error that an operator can fix, or "" for a bug.

    An operator can fix an error of the machine, the disk or a setting; it needs no traceback. All
    errors that pixelfast raises on purpose are of this kind.

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
        return "cannot start a thread: out of memory or processes (`ulimit -u`, TasksMax=)"
    # Compare module names: importing ssl and sqlite3 would slow down `pixelfast --help`.
    module = type(error).__module__
    if module == "sqlite3":
        code = getattr(error, "sqlite_errorcode", None) or _SQLITE_ERROR
        return "" if code & 0xFF == _SQLITE_ERROR else f"SQLite: {error}"
    if not isinstance(error, OSError) or not error.errno:
        return ""
    if module != "ssl" and error.errno in _BUGS:  # the errno of ssl is another number
        return ""
    reason = error.strerror or str(error)
    return reason if error.filename is None else f"{_path(error.filename)}: {reason}"


def _path(name: object) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
