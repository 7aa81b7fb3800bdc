from collections.abc import Iterable, Mapping

__all__ = ["RateBudget", "RateBudgets"]

class RateBudgets:
    """Hold the rate limits of all sources, in memory that the collectors of one server share.

    >>> budget = RateBudgets.private(["web"]).budget("web", rate=2.0)
    >>> [budget.take_at(now_s=7.0) for _ in range(3)]
    [0.0, 0.0, 0.5]
    """

    @classmethod
    def open(cls, fd: int, places: Mapping[str, int]) -> RateBudgets:
        """Map the memory of a descriptor, which may be closed afterwards.

        Args:
            fd: a file in memory (memfd_create) that initially contained zeros.
            places: the offset of each source's word in bytes, a multiple of 8.

        Raises:
            OSError: the memory cannot be mapped.
            ValueError: an offset is not a multiple of 8 or lies outside the memory.
        """

    @classmethod
    def private(cls, names: Iterable[str]) -> RateBudgets:
        """Return budgets that are not shared with other processes."""

    def budget(self, name: str, rate: float) -> RateBudget:
        """Return the budget of one source.

        Args:
            name: the name of a source that has an offset.
            rate: events per second, more than 0. It may differ between calls; earlier events still
                count.

        Raises:
            KeyError: the source has no offset.
            ValueError: `rate` is not more than 0.
        """

class RateBudget:
    """Limit one source to `rate` events per second, with bursts of up to one second's worth."""

    def __init__(self, budgets: RateBudgets, name: str, rate: float) -> None: ...
    def take_at(self, now_s: float) -> float:
        """Take the budget of one event and return 0.

        If the limit is reached, take nothing and return the seconds until an event is allowed.

        Args:
            now_s: the time of CLOCK_MONOTONIC in seconds.
        """
