from collections.abc import Iterable, Mapping

__all__ = ["RateBudget", "RateBudgets"]

class RateBudgets:
    """The budgets of rate limits, in memory that the collectors of one server share.

    >>> budget = RateBudgets.private(["web"]).budget("web", rate=2.0)
    >>> [budget.take_at(now_s=7.0) for _ in range(3)]
    [0.0, 0.0, 0.5]
    """

    @classmethod
    def open(cls, fd: int, places: Mapping[str, int]) -> RateBudgets:
        """Map the memory behind a descriptor, which may be closed afterwards.

        Args:
            fd: a file in memory (memfd_create), filled with zeros when it was new.
            places: where the word of each source begins, in bytes, a multiple of 8.

        Raises:
            OSError: the memory cannot be mapped.
            ValueError: a place is outside of the memory.
        """

    @classmethod
    def private(cls, names: Iterable[str]) -> RateBudgets:
        """Return budgets of these sources for one process alone."""

    def budget(self, name: str, rate: float) -> RateBudget:
        """Return the budget of one source.

        Args:
            name: a source that has a place.
            rate: events a second, more than 0. It may differ from one call to the next: what was
                used before still counts.

        Raises:
            KeyError: the source has no place.
        """

class RateBudget:
    """One source's budget: at most `rate` events a second, and a second's worth at once."""

    def __init__(self, budgets: RateBudgets, name: str, rate: float) -> None: ...
    def take_at(self, now_s: float) -> float:
        """Use the budget for one event; return 0, or in how many seconds there will be enough.

        Args:
            now_s: seconds by CLOCK_MONOTONIC.
        """
