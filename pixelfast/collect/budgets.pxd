from libc.stdint cimport int64_t

cdef class RateBudgets:
    cdef object _memory                 # mmap, shared with the other collectors
    cdef unsigned char[::1] _bytes      # the same
    cdef dict _places                   # name of a source: where its word begins, in bytes

cdef class RateBudget:
    cdef unsigned char[::1] _bytes      # keeps the word mapped
    cdef int64_t* _word                 # in shared memory
    cdef int64_t _interval_ns           # what one event uses
    cdef int64_t _tolerance_ns          # how far the word may be ahead of the clock

    cpdef double take_at(self, double now_s) noexcept
    cdef void give_back(self) noexcept
