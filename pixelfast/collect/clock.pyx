"""Read the time of a collector: wall time for events, monotonic time for limits and durations."""

from libc.stdint cimport int64_t
from posix.time cimport CLOCK_MONOTONIC, CLOCK_REALTIME, clock_gettime, timespec

cdef extern from "<time.h>":
    enum: CLOCK_MONOTONIC_COARSE

__all__ = ["Clock"]


cdef class Clock:

    @classmethod
    def fixed(cls, wall_ms=1_700_000_000_000, monotonic_s=1000.0):
        cdef Clock clock = cls()
        clock._is_fixed = True
        clock._wall_ms = wall_ms
        clock._monotonic_s = monotonic_s
        return clock

    def advance(self, double seconds):
        if not self._is_fixed:
            raise RuntimeError("only a fixed clock can be advanced")
        self._wall_ms += <int64_t>(seconds * 1000)
        self._monotonic_s += seconds

    def now_ms(self):
        return self.wall_ms()

    cdef int64_t wall_ms(self) noexcept:
        cdef timespec now
        if self._is_fixed:
            return self._wall_ms
        clock_gettime(CLOCK_REALTIME, &now)
        return <int64_t>now.tv_sec * 1000 + now.tv_nsec // 1000000

    cdef int64_t monotonic_ns(self) noexcept:
        cdef timespec now
        if self._is_fixed:
            return <int64_t>(self._monotonic_s * 1e9)
        clock_gettime(CLOCK_MONOTONIC, &now)
        return <int64_t>now.tv_sec * 1000000000 + now.tv_nsec

    cdef double monotonic_s(self) noexcept:
        # The coarse clock is accurate to a few milliseconds and needs no system call.
        cdef timespec now
        if self._is_fixed:
            return self._monotonic_s
        clock_gettime(CLOCK_MONOTONIC_COARSE, &now)
        return now.tv_sec + now.tv_nsec * 1e-9
