"""The state of a destination, from its responses: whether to send, and how much at once."""

from __future__ import annotations

from enum import Enum

import structlog

from pixelfast.backoff import Backoff
from pixelfast.deliver.breaker import Breaker
from pixelfast.deliver.concurrency import Concurrency
from pixelfast.deliver.outcomes import Accepted, Held, Outcome, Partial, Rejected, Retry, Waiting
from pixelfast.deliver.timing import DeliveryClock, Timings

__all__ = ["Health", "Hold"]


class Hold(Enum):
    """Why a destination is held; the comments tell what ends the hold."""

    SETTINGS = "settings"  # any response that judges events
    REJECTIONS = "rejections"  # an accepted event
    DEAD_LETTERS = "dead letters"  # space for another dead letter


class Health:
    """Keep the breaker and the concurrency of one destination, and log its changes of state.

    Attributes:
        failures: failed attempts that are not added to the totals yet.
    """

    def __init__(
        self,
        name: str,
        backoff: Backoff,
        concurrency: int,
        timings: Timings,
        clock: DeliveryClock,
    ) -> None:
        self._timings = timings
        self._clock = clock
        self.breaker = Breaker(backoff)
        self.concurrency = Concurrency(concurrency)
        self.failures = 0
        self.hold_kind: Hold | None = None
        self._held_s = self._timings.held_s  # the last pause of a hold for settings
        self._told_s: dict[str, float] = {}  # when each reason of a failure was last logged
        self._hold_told_s: dict[str, float] = {}  # when each reason of a hold was last logged
        self._is_told = False  # whether a failure or hold was logged since the last success
        self._told_wait = ""  # the last logged reason while it waits for disk space
        self._wait_told_s: dict[str, float] = {}
        self._log = structlog.get_logger("deliver").bind(destination=name)

    def note(self, outcome: Outcome, events: int, began_s: float, under_way: int) -> float:
        """Record an outcome; return when its batch may be retried, or 0 if at once."""
        now_s = self._clock.monotonic_s()
        if isinstance(outcome, Accepted):
            self.concurrency.succeeded(began_s, now_s, under_way)
            self._succeeded()
        elif isinstance(outcome, Retry):
            return now_s + self._failed(outcome, began_s, now_s)
        elif isinstance(outcome, Partial):
            retries = outcome.failed.only(Retry)
            if len(retries) == events and isinstance(first := retries.first, Retry):
                return now_s + self._failed(first, began_s, now_s)
            if len(outcome.failed) < events and self.hold_kind is not Hold.DEAD_LETTERS:
                self._succeeded()
            else:
                self._responded()
            if retries:
                self.failures += 1
                self.concurrency.failed(began_s, now_s)
                pauses_s = [
                    group.why.after_s for group in retries.groups if isinstance(group.why, Retry)
                ]
                return now_s + max(self._timings.partial_pause_s, *pauses_s)
            self.concurrency.succeeded(began_s, now_s, under_way)
        elif isinstance(outcome, Rejected):
            self.concurrency.succeeded(began_s, now_s, under_way)
            self._responded()
        elif isinstance(outcome, Waiting):
            return self._wait(outcome, now_s)
        return 0.0

    def hold(self, kind: Hold, reason: str, outcome: Outcome) -> None:
        """Hold the destination for a cause that is not in the events: log it and retry slowly.

        A destination that rejects everything gets a probe with the newest events at once.
        """
        is_final = isinstance(outcome, Held) and outcome.is_final
        now_s = self._clock.monotonic_s()
        held_s = self._timings.held_s
        if self.hold_kind is not kind:
            held_s = 0.0 if kind is Hold.REJECTIONS else self._timings.held_s
        elif self.breaker.wait_s(now_s):
            held_s = self.breaker.wait_s(now_s)  # this request was under way when the hold began
        elif kind is Hold.SETTINGS:
            held_s = self._held_s = min(2 * self._held_s, self._timings.max_held_s)
        self.hold_kind = kind
        told_s = self._hold_told_s.get(reason, float("-inf"))
        if reason != self.breaker.reason and now_s - told_s >= self._timings.log_again_s:
            self._hold_told_s = {reason: now_s, **self._recent(self._hold_told_s, now_s)}
            self._is_told = True
            self._log.error(
                "destination_disabled" if is_final else "destination_held",
                reason=reason,
                response=getattr(outcome, "response", b"")[:200].decode("utf-8", "replace"),
                retry_in_s=None if is_final else round(held_s, 1),
            )
        self.breaker.hold(reason, now_s, held_s, is_final=is_final)
        self.failures += 1

    def found_space(self) -> None:
        """End a hold for full dead letters, because a dead letter was stored."""
        if self.hold_kind is Hold.DEAD_LETTERS:
            self._succeeded()

    def _responded(self) -> None:
        """Note that the destination responds and only rejects these events."""
        if self.hold_kind in {None, Hold.SETTINGS}:
            self._succeeded()

    def _failed(self, outcome: Retry, began_s: float, now_s: float) -> float:
        """Record a failure; each reason is logged at most once a minute."""
        is_news = (
            now_s - self._told_s.get(outcome.reason, float("-inf")) >= self._timings.log_again_s
        )
        if is_news:
            self._is_told = True
            self._told_s = {outcome.reason: now_s, **self._recent(self._told_s, now_s)}
        self.failures += 1
        self.concurrency.failed(began_s, now_s)
        wait_s = self.breaker.failed(outcome.reason, began_s, now_s, outcome.after_s)
        if is_news:
            self._log.warning(
                "delivery_failed",
                reason=outcome.reason,
                retry_in_s=round(wait_s, 1),
                failures=self.breaker.failures,
            )
        return wait_s

    def _wait(self, outcome: Waiting, now_s: float) -> float:
        """Wait for disk space; a reason is logged once while it lasts, at most once a minute."""
        told_s = self._wait_told_s.get(outcome.reason, float("-inf"))
        is_old = now_s - told_s >= self._timings.log_again_s
        if outcome.reason != self._told_wait and is_old:
            self._wait_told_s = {outcome.reason: now_s, **self._recent(self._wait_told_s, now_s)}
            self._told_wait = outcome.reason
            self._log.warning("destination_waiting", reason=outcome.reason)
        self.breaker.await_space(outcome.reason, now_s, self._timings.space_s)
        return now_s + self._timings.space_s

    def _succeeded(self) -> None:
        if self._told_wait:
            self._told_wait = ""
            self._log.info("destination_space_freed")
        if not self.breaker.is_healthy and self._is_told:
            self._told_s.clear()
            self._is_told = False
            self._log.info("destination_recovered", failures=self.breaker.failures)
        self.breaker.succeeded()
        self.hold_kind = None
        self._held_s = self._timings.held_s

    def _recent(self, told_s: dict[str, float], now_s: float) -> dict[str, float]:
        again_s = self._timings.log_again_s
        return {reason: at for reason, at in told_s.items() if now_s - at < again_s}
