"""Reasons of failures that repeat, and are logged once in a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable

__all__ = ["LoggedReasons"]


class LoggedReasons:
    """Remember when each reason was last logged.

    >>> now_s = 0.0
    >>> logged = LoggedReasons(60.0, lambda: now_s)
    >>> [logged.is_due("disk full"), logged.is_due("disk full"), logged.is_due("no permission")]
    [True, False, True]
    >>> now_s = 60.0
    >>> logged.is_due("disk full")
    True
    """

    def __init__(self, again_s: float, now_s: Callable[[], float] = time.monotonic) -> None:
        self._again_s = again_s
        self._now_s = now_s
        self._told_s: dict[Hashable, float] = {}  # not older than `again_s`

    def is_due(self, reason: Hashable) -> bool:
        """Whether a reason must be logged now, because it was not for `again_s`."""
        now_s = self._now_s()
        if now_s - self._told_s.get(reason, float("-inf")) < self._again_s:
            return False
        recent = {each: at for each, at in self._told_s.items() if now_s - at < self._again_s}
        self._told_s = {**recent, reason: now_s}
        return True
