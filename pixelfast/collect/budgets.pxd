from libc.stdint cimport int64_t

cdef class RateBudgets:
    cdef object _memory                 # an mmap that all collectors share
    cdef char* _bytes                   # the same memory
    cdef dict _places                   # {name of a source: offset of its word in bytes}

cdef class RateBudget:
    cdef object _memory                 # keeps the memory mapped
    cdef int64_t* _word                 # in the shared memory
    cdef int64_t _interval_ns           # what one event consumes
    cdef int64_t _tolerance_ns          # how far the word may run ahead of the clock

    cpdef double take_at(self, double now_s) noexcept
    cdef void give_back(self) noexcept
