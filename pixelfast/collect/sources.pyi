from collections.abc import Iterable

from pixelfast import config
from pixelfast.collect.budgets import RateBudgets
from pixelfast.errors import RequestError
from pixelfast.event import Rules

__all__ = ["ActiveSource", "RateLimited", "Sources"]

class RateLimited(RequestError):
    """429: the source is over its rate limit. `retry_after_s` is in whole seconds."""

    retry_after_s: int

    def __init__(self, retry_after_s: int) -> None: ...

class ActiveSource:
    """One source: its rules, its rate limit, and its counts.

    Args:
        name: its name in the settings.
        number: its place among the names of the spool writer.
        settings: its settings; None: the source of requests without a known write key.
        budgets: has room for its rate limit; needed only with one.

    Attributes:
        accepted: events accepted.
        refused: rejected requests by reason.
        warned: warnings by reason.
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
        """Follow other settings; the counts go on."""

    @property
    def name(self) -> str: ...
    @property
    def number(self) -> int: ...
    @property
    def rules(self) -> Rules: ...
    @property
    def is_enabled(self) -> bool: ...
    @property
    def refused(self) -> dict[str, int]: ...
    @property
    def warned(self) -> dict[str, int]: ...

class ActiveKey:
    """One write key of a source, and when it expires; for compiled code."""

class Sources:
    """Find the source of a write key.

    Args:
        settings: the sources, in the order of their numbers.
        budgets: the rate limits that other collectors share; None: this process is the only one.

    Attributes:
        all: the sources, those that are no longer in the settings with them.
        nobody: counts requests without a known write key.
    """

    def __init__(
        self, settings: Iterable[config.Source], budgets: RateBudgets | None = None
    ) -> None: ...
    def follow(self, settings: Iterable[config.Source], budgets: RateBudgets | None = None) -> None:
        """Follow other settings, between two requests.

        Sources keep their numbers and counts; new ones get the next numbers. Those that have gone
        keep nothing but their place: their keys are unknown from now on.
        """

    @property
    def all(self) -> list[ActiveSource]: ...
    @property
    def nobody(self) -> ActiveSource: ...
    def check(self, write_key: str, now_ms: int) -> ActiveSource:
        """Return the source that accepts pixels with a write key now, whatever its rate.

        Args:
            write_key: the key, decoded.
            now_ms: milliseconds since 1970.

        Raises:
            RequestError: 401, the key is unknown or has expired; 404, the source is disabled.
        """
