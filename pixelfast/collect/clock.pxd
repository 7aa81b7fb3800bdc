from libc.stdint cimport int64_t

cdef class Clock:
    cdef bint _is_fixed
    cdef int64_t _wall_ms
    cdef double _monotonic_s

    cdef int64_t wall_ms(self) noexcept
    cdef int64_t monotonic_ns(self) noexcept
    cdef double monotonic_s(self) noexcept
