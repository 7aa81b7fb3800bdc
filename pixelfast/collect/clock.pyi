__all__ = ["Clock"]

class Clock:
    """Read wall time in milliseconds since 1970, and monotonic time in seconds.

    >>> clock = Clock.fixed(wall_ms=1000)
    >>> clock.advance(2.5)
    >>> clock.now_ms()
    3500
    """

    @classmethod
    def fixed(cls, wall_ms: int = ..., monotonic_s: float = 1000.0) -> Clock:
        """Return a clock that only `advance` moves."""

    def advance(self, seconds: float) -> None:
        """Move a fixed clock forward.

        Raises:
            RuntimeError: the clock is not fixed.
        """

    def now_ms(self) -> int:
        """Return the wall time in milliseconds since 1970."""
