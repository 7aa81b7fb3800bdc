class Clock:
    """Wall time in milliseconds since 1970, and a monotonic clock in seconds.

    >>> clock = Clock.fixed(wall_ms=1000)
    >>> clock.advance(2.5)
    >>> clock.now_ms()
    3500
    """

    @classmethod
    def fixed(cls, wall_ms: int = ..., monotonic_s: float = ...) -> Clock:
        """A clock that stands still until `advance`."""

    def advance(self, seconds: float) -> None: ...
    def now_ms(self) -> int: ...
