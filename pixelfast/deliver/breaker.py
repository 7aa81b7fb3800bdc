"""When a destination may be sent to again, after it has failed."""

from __future__ import annotations

from pixelfast.deliver.retry import Backoff

__all__ = ["Breaker"]

_OPENS_AT = 5  # failures in a row


class Breaker:
    """Lets everything through while things go well; else one try at a time, on a clock.

    States: `closed`, all is well; `open`, it has failed five times in a row; `waiting`, it has no
    room; `held`, the settings are wrong on one side; `disabled`, it has asked for nothing more.
    Times are monotonic seconds.
    """

    def __init__(self, backoff: Backoff) -> None:
        self.state = "closed"
        self.reason = ""  # of the last failure; "" once it went well
        self.opened_s = 0.0  # when it was closed last
        self._backoff = backoff
        self._not_before_s = 0.0
        self._failed_s = float("-inf")

    @property
    def failures(self) -> int:
        """In a row."""
        return self._backoff.failures

    @property
    def is_closed(self) -> bool:
        return self.state == "closed"

    def allows(self, now_s: float, under_way: int) -> bool:
        """Whether another request may begin."""
        if self.state == "disabled" or now_s < self._not_before_s:
            return False
        return self.is_closed or under_way == 0

    def wait_s(self, now_s: float) -> float:
        """How long until it may, if nothing happens meanwhile."""
        if self.state == "disabled":
            return float("inf")
        return max(0.0, self._not_before_s - now_s)

    def succeeded(self) -> None:
        self.state, self.reason = "closed", ""
        self._not_before_s = 0.0
        self._backoff.reset()

    def failed(self, reason: str, began_s: float, now_s: float, after_s: float) -> float:
        """A try that may go better later; returns how long its batch waits.

        Requests that were under way together fail together, which counts once.
        """
        self.reason = reason
        if after_s:
            self._not_before_s = max(self._not_before_s, now_s + after_s)
        if began_s <= self._failed_s:
            return max(after_s, self.wait_s(now_s))
        self._failed_s = now_s
        if self.state == "waiting":
            self.state = "closed"  # it has room, and another trouble
        wait_s = self._backoff.next_s(after_s)
        if self.state == "closed" and self._backoff.failures >= _OPENS_AT:
            self.state, self.opened_s = "open", now_s
        if self.state != "closed":
            self._not_before_s = max(self._not_before_s, now_s + wait_s)
        return wait_s

    def await_space(self, reason: str, now_s: float, pause_s: float) -> None:
        """A try that goes well once there is room; the next one is allowed `pause_s` later."""
        self.reason = reason
        if self.is_closed:
            self.opened_s = now_s
        self.state = "waiting"
        self._not_before_s = now_s + pause_s

    def hold(
        self, reason: str, now_s: float, held_s: float = 0.0, *, is_final: bool = False
    ) -> None:
        """A try that no other can better before somebody changes something.

        The next one is allowed `held_s` later.
        """
        self.reason = reason
        if self.is_closed:
            self.opened_s = now_s
        self.state = "disabled" if is_final else "held"
        self._not_before_s = now_s + held_s
