"""A clock that tests advance."""

from __future__ import annotations

from collections.abc import Callable

from pixelfast.deliver.timing import DeliveryClock
from tests.waiting import until

__all__ = ["HandClock"]


class HandClock:
    """A clock that a test advances; each reading advances it by `a_look_s`.

    `on_look` is called at each reading. `clock` is the clock to pass to delivery. The wall clock is
    ahead of the others by `ahead_s`.
    """

    def __init__(self, now_s: float = 1_000_000.0, a_look_s: float = 0.0) -> None:
        self.now_s = now_s
        self.on_look: Callable[[], object] = lambda: None
        self.ahead_s = 0.0
        self._looks = 0
        self._a_look_s = a_look_s
        self.clock = DeliveryClock(self._look, lambda: self._look() + self.ahead_s, self._look)

    def advance(self, seconds: float) -> None:
        self.now_s += seconds

    async def looks(self, count: int) -> None:
        """Wait until the clock has been read this many times."""
        stop = self._looks + count
        await until(lambda: self._looks >= stop)

    def _look(self) -> float:
        self._looks += 1
        self.now_s += self._a_look_s
        self.on_look()
        return self.now_s
