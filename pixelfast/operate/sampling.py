"""Logs repeated errors, such as those of a full disk, once a minute."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable

import structlog

__all__ = ["Sampler"]

_INTERVAL_S = 60.0
_MAX_KINDS = 1000
# Fields that distinguish errors of the same event; all others are current figures.
_NAMES = ("destination", "name", "process", "slot", "source")
_CHANGING = re.compile(r"/\S+|\d+")  # paths and numbers in an error


class Sampler:
    """A processor of structlog that drops an error that was logged within the last minute.

    An error is a line with `error` or with a traceback (`exc_info`). The next line of the same kind
    has the number of dropped lines as `suppressed`.

    >>> sampler = Sampler(lambda: 0.0)
    >>> sampler(None, "error", {"event": "commit_failed", "error": "disk full"})
    {'event': 'commit_failed', 'error': 'disk full'}
    >>> sampler(None, "error", {"event": "commit_failed", "error": "disk full"})
    Traceback (most recent call last):
    structlog.exceptions.DropEvent
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kinds: dict[tuple[object, ...], list[float]] = {}  # when logged, how many omitted

    def __call__(
        self, _logger: object, _method: str, event: structlog.types.EventDict
    ) -> structlog.types.EventDict:
        suppressed = self.suppressed(event)
        if suppressed < 0:
            raise structlog.DropEvent
        return {**event, "suppressed": suppressed} if suppressed else event

    def suppressed(self, event: structlog.types.EventDict) -> int:
        """Return how many lines of this kind were dropped before; -1 if this is dropped as well."""
        error = event.get("error")
        what = _CHANGING.sub("", error) if isinstance(error, str) else _origin(event)
        if not what:
            return 0
        names = (str(event.get(name)) for name in _NAMES)
        kind = (event.get("event"), what, *names)
        now_s = self._clock()
        known = self._kinds.get(kind)
        if known is not None and now_s - known[0] < _INTERVAL_S:
            known[1] += 1
            return -1
        if len(self._kinds) >= _MAX_KINDS:
            self._kinds.clear()
        self._kinds[kind] = [now_s, 0]
        return 0 if known is None else int(known[1])


def _origin(event: structlog.types.EventDict) -> str:
    """Return the type and origin of a line's exception, or "" if there is none."""
    given = event.get("exc_info")
    if isinstance(given, tuple):
        given = given[1]
    error = given if isinstance(given, BaseException) or not given else sys.exc_info()[1]
    if error is None:
        return ""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return f"{type(error).__name__}, line {place.tb_lineno if place else 0}"
