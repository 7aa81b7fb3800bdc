"""When requests to a destination are allowed after a failure."""

from __future__ import annotations

from pixelfast.backoff import Backoff

__all__ = ["Breaker"]

_OPENS_AT = 5  # failures in a row


class Breaker:
    """A circuit breaker: allow all requests while they succeed, otherwise one at a time.

    States: `healthy`, requests succeed; `backing_off`, five in a row have failed; `waiting`, the
    destination lacks disk space; `held`, the settings on one side are wrong; `disabled`, the
    destination has asked for no more requests. Times are monotonic, in seconds.

    Attributes:
        reason: of the last failure; "" after a success.
        opened_s: when it last left the state `healthy`.
    """

    def __init__(self, backoff: Backoff) -> None:
        self.state = "healthy"
        self.reason = ""
        self.opened_s = 0.0
        self._backoff = backoff
        self._not_before_s = 0.0
        self._failed_s = float("-inf")

    @property
    def failures(self) -> int:
        """Failures in a row."""
        return self._backoff.failures

    @property
    def is_healthy(self) -> bool:
        return self.state == "healthy"

    def allows(self, now_s: float, under_way: int) -> bool:
        """Whether another request may begin while `under_way` requests are under way."""
        if self.state == "disabled" or now_s < self._not_before_s:
            return False
        return self.is_healthy or under_way == 0

    def wait_s(self, now_s: float) -> float:
        """How long until another request may begin, in seconds, unless an outcome changes it."""
        if self.state == "disabled":
            return float("inf")
        return max(0.0, self._not_before_s - now_s)

    def succeeded(self) -> None:
        self.state, self.reason = "healthy", ""
        self._not_before_s = 0.0
        self._backoff.reset()

    def failed(self, reason: str, began_s: float, now_s: float, after_s: float) -> float:
        """Count a failed request and return how long its batch waits, in seconds.

        Requests that were under way at the same time and fail together count as one failure.
        """
        self.reason = reason
        if after_s:
            self._not_before_s = max(self._not_before_s, now_s + after_s)
        if began_s <= self._failed_s:
            return max(after_s, self.wait_s(now_s))
        self._failed_s = now_s
        if self.state == "waiting":
            self.state = "healthy"  # no longer for disk space
        wait_s = self._backoff.next_s(after_s)
        if self.state == "healthy" and self._backoff.failures >= _OPENS_AT:
            self.state, self.opened_s = "backing_off", now_s
        if self.state != "healthy":
            self._not_before_s = max(self._not_before_s, now_s + wait_s)
        return wait_s

    def await_space(self, reason: str, now_s: float, pause_s: float) -> None:
        """Wait for disk space; the next request is allowed after `pause_s`."""
        self.reason = reason
        if self.is_healthy:
            self.opened_s = now_s
        self.state = "waiting"
        self._not_before_s = now_s + pause_s

    def hold(
        self, reason: str, now_s: float, held_s: float = 0.0, *, is_final: bool = False
    ) -> None:
        """Hold the destination until an operator changes a setting on one side.

        The next request is allowed after `held_s`, or never if `is_final`.
        """
        self.reason = reason
        if self.is_healthy:
            self.opened_s = now_s
        self.state = "disabled" if is_final else "held"
        self._not_before_s = now_s + held_s
