"""The log on standard error: one event per line, as text or as JSON.

An error that the machine or a setting causes is one line, at most once a minute. A bug is logged
with its traceback.

No write key, query or secret is passed to a logger. If an error or a response contains a secret of
the settings nevertheless, it is masked here. Control characters are escaped in both formats.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
from types import TracebackType
from typing import Any

import structlog

from pixelfast.config import Log, Redactor
from pixelfast.errors import operator_error
from pixelfast.operate.sampling import Sampler
from pixelfast.printable import printable, printable_json, printable_lines

__all__ = ["change_logging", "set_up_logging"]

_COMMON = ("time", "level", "event", "process")


def set_up_logging(settings: Log, process: str = "", redactor: Redactor | None = None) -> None:
    """Set up structlog, and make the standard library's logging use the same format.

    `process` is added to every line: "collector-0", "delivery". Uncaught exceptions are logged.
    """
    change_logging(settings, redactor or Redactor())
    as_json = settings.format == "json" or (settings.format == "auto" and not sys.stderr.isatty())

    def name_process(
        _logger: object, _method: str, event: structlog.types.EventDict
    ) -> structlog.types.EventDict:
        return {**event, "process": process} if process else event

    shared: list[structlog.types.Processor] = [
        name_process,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    last: list[structlog.types.Processor] = [
        structlog.processors.ExceptionRenderer(_traceback),
        _Safe(_rules, is_for_people=not as_json),
    ]
    if as_json:
        last.append(_put_common_first)
        last.append(structlog.processors.JSONRenderer(ensure_ascii=False))
        last.append(lambda _logger, _method, line: printable_json(str(line)))
    else:
        last.append(
            structlog.dev.ConsoleRenderer(
                colors=_has_colors(),
                exception_formatter=structlog.dev.plain_traceback,  # it is a string here
                timestamp_key="time",
                sort_keys=False,  # the most important fields are first
            )
        )
    structlog.configure(
        processors=[_rules.drop_below_level, _shorten, Sampler(), *shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_shorten, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.basicConfig(handlers=[handler], force=True)
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda caught: _log_uncaught(
        caught.exc_type, caught.exc_value or caught.exc_type(), caught.exc_traceback
    )


def _has_colors() -> bool:
    """Whether standard error shows colors: https://no-color.org, and a terminal that can."""
    is_wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return is_wanted and sys.stderr.isatty()


def _put_common_first(
    _logger: object, _method: str, event: structlog.types.EventDict
) -> structlog.types.EventDict:
    """Put the fields that every line has before its own."""
    return {**{name: event[name] for name in _COMMON if name in event}, **event}


def _shorten(
    _logger: object, _method: str, event: structlog.types.EventDict
) -> structlog.types.EventDict:
    """Replace the traceback of an error that an operator can fix by one line."""
    given = event.get("exc_info")
    if isinstance(given, tuple):
        given = given[1]
    error = given if isinstance(given, BaseException) or not given else sys.exc_info()[1]
    line = operator_error(error) if error else ""
    if not line:
        return event
    return {"error": line, **{name: value for name, value in event.items() if name != "exc_info"}}


def change_logging(settings: Log, redactor: Redactor) -> None:
    """Change the level and the masked secrets of all loggers; the format stays the same."""
    _rules.level = getattr(logging, settings.level.upper())
    _rules.redactor = redactor
    logging.getLogger().setLevel(max(_rules.level, logging.WARNING))


class _Rules:
    """The parts that a reload can change; loggers keep their processors after the first use."""

    def __init__(self) -> None:
        self.level = logging.INFO
        self.redactor = Redactor()

    def drop_below_level(
        self, _logger: object, method: str, event: structlog.types.EventDict
    ) -> structlog.types.EventDict:
        level = logging.ERROR if method == "exception" else getattr(logging, method.upper())
        if level < self.level:
            raise structlog.DropEvent
        return event


_rules = _Rules()


class _Safe:
    """Masks secrets in all fields and, on a terminal, escapes control characters."""

    def __init__(self, rules: _Rules, *, is_for_people: bool) -> None:
        self._rules = rules
        self._is_for_people = is_for_people

    def __call__(
        self, _logger: object, _method: str, event: structlog.types.EventDict
    ) -> structlog.types.EventDict:
        return {self._text(key): self._value(key, value) for key, value in event.items()}

    def _value(self, key: str, value: Any) -> Any:
        if isinstance(value, str):
            text = self._rules.redactor.text(value)
            if not self._is_for_people:
                return text
            if key == "exception":
                return printable_lines(text)
            safe = printable(text)
            return safe if safe == text or key == "event" else _Quoted(safe)
        if isinstance(value, dict):
            return {self._text(str(name)): self._value("", each) for name, each in value.items()}
        if isinstance(value, list | tuple):
            return [self._value("", each) for each in value]
        if value is None or isinstance(value, bool | int | float):
            return value
        return self._value(key, repr(value))

    def _text(self, text: str) -> str:
        masked = self._rules.redactor.text(text)
        return printable(masked) if self._is_for_people else masked


class _Quoted:
    """A quoted value, whose escapes are not escaped again."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return f'"{self._text}"'


def _traceback(exc_info: Any) -> str:
    """Return a traceback without the values of variables."""
    text = io.StringIO()
    structlog.dev.plain_traceback(text, exc_info)
    return text.getvalue().rstrip("\n")


def _log_uncaught(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
        return
    log = structlog.get_logger("process")
    log.error("process_failed", exc_info=(kind, error, traceback))
