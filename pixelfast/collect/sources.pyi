from collections.abc import Iterable

from pixelfast import config
from pixelfast.collect.budgets import RateBudgets
from pixelfast.errors import RequestError
from pixelfast.event import Rules

__all__ = ["ActiveSource", "RateLimited", "Sources"]

class RateLimited(RequestError):
    """Reject a request with 429: the source is over its rate limit.

    Attributes:
        retry_after_s: whole seconds until the source may send another event.
    """

    retry_after_s: int

    def __init__(self, retry_after_s: int) -> None: ...

class ActiveSource:
    """Hold the rules, the rate limit and the counters of one source.

    Args:
        name: the name in the settings.
        number: the index among the names of the spool writer.
        settings: the settings; None for the source that counts requests without a known write key.
        budgets: the memory of its rate limit; required if the source has one.

    Attributes:
        accepted: number of accepted events.
        rejected: number of rejected requests by reason.
        warned: number of warnings by reason.
    """

    accepted: int

    def __init__(
        self,
        name: str,
        number: int,
        settings: config.Source | None = None,
        budgets: RateBudgets | None = None,
    ) -> None: ...
    def follow(self, settings: config.Source, budgets: RateBudgets) -> None:
        """Apply new settings and keep the counters."""

    @property
    def name(self) -> str: ...
    @property
    def number(self) -> int: ...
    @property
    def rules(self) -> Rules: ...
    @property
    def is_enabled(self) -> bool: ...
    @property
    def rejected(self) -> dict[str, int]: ...
    @property
    def warned(self) -> dict[str, int]: ...

class ActiveKey:
    """Hold one write key of a source and its expiry; used only by compiled code."""

class Sources:
    """Find the source of a write key.

    Args:
        settings: the settings of all sources, in the order of their numbers.
        budgets: the rate limits shared with other collectors; None if there are no others.

    Attributes:
        all: the sources, including those removed from the settings.
        unknown: counts requests without a known write key.
    """

    def __init__(
        self, settings: Iterable[config.Source], budgets: RateBudgets | None = None
    ) -> None: ...
    def follow(self, settings: Iterable[config.Source], budgets: RateBudgets | None = None) -> None:
        """Apply new settings, between two requests.

        Sources keep their numbers and counters; new sources get the next numbers. The keys of
        removed sources become unknown.
        """

    @property
    def all(self) -> list[ActiveSource]: ...
    @property
    def unknown(self) -> ActiveSource: ...
    def check(self, write_key: str, now_ms: int) -> ActiveSource:
        """Return the source of a write key if it accepts pixels now, regardless of its rate.

        Args:
            write_key: the decoded key.
            now_ms: the time in milliseconds since 1970.

        Raises:
            RequestError: 401 if the key is unknown or has expired; 404 if the source is disabled.
        """
