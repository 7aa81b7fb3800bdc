"""Rate limits shared by all collectors: one 64-bit word per source, in memory that all of them map.

The word is the theoretical arrival time of the generic cell rate algorithm (GCRA), in nanoseconds
of CLOCK_MONOTONIC, which is the same clock in every process. An accepted event advances the word by
the interval between two events, starting at the present or later. If the word is ahead of the clock
by more than one second's worth of intervals, the limit is reached. This is equivalent to a token
bucket that holds one second's worth of events, and at least one. A single compare-and-swap changes
the whole state, so a killed process leaves neither a lock nor a half-changed word. """

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.math cimport llround
from libc.stdint cimport int64_t

import mmap

__all__ = ["RateBudget", "RateBudgets"]

cdef extern from *:
    """
    static inline int64_t pf_load(int64_t* word) {
        return __atomic_load_n(word, __ATOMIC_RELAXED);
    }
    static inline int pf_swap(int64_t* word, int64_t* seen, int64_t next) {
        return __atomic_compare_exchange_n(word, seen, next, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    }
    static inline void pf_subtract(int64_t* word, int64_t amount) {
        __atomic_fetch_sub(word, amount, __ATOMIC_RELAXED);
    }
    """
    int64_t load "pf_load"(int64_t* word) noexcept nogil
    bint swap "pf_swap"(int64_t* word, int64_t* seen, int64_t next) noexcept nogil
    void subtract "pf_subtract"(int64_t* word, int64_t amount) noexcept nogil

cdef enum:
    WORD_BYTES = 8

cdef double SECOND_NS = 1e9
cdef double MAX_INTERVAL_NS = 2.0**61   # 73 years; the sum of two fits 64 bits


cdef class RateBudgets:

    @classmethod
    def open(cls, int fd, places not None):
        cdef RateBudgets budgets = cls()
        budgets._map(mmap.mmap(fd, 0), places)
        return budgets

    @classmethod
    def private(cls, names):
        cdef RateBudgets budgets = cls()
        places = {name: number * WORD_BYTES for number, name in enumerate(names)}
        budgets._map(mmap.mmap(-1, max(1, len(places)) * WORD_BYTES), places)
        return budgets

    def _map(self, memory, places):
        cdef Py_buffer view
        wrong = [
            name
            for name, place in places.items()
            if place % WORD_BYTES or not 0 <= place <= len(memory) - WORD_BYTES
        ]
        if wrong:
            offset = places[wrong[0]]
            raise ValueError(
                f"source {wrong[0]}: offset {offset} is not that of a word in {len(memory)} bytes"
            )
        self._memory = memory
        # A typed memoryview would add 20,000 lines of C to every module that knows this class.
        PyObject_GetBuffer(memory, &view, PyBUF_WRITABLE)
        self._bytes = <char*>view.buf   # mapped as long as the mmap exists, which is never closed
        PyBuffer_Release(&view)
        self._places = dict(places)

    def budget(self, str name not None, double rate):
        return RateBudget(self, name, rate)


cdef class RateBudget:

    def __init__(self, RateBudgets budgets not None, str name not None, double rate):
        if not rate > 0.0:
            raise ValueError(f"rate is {rate}; expected more than 0")
        self._memory = budgets._memory
        self._word = <int64_t*>(budgets._bytes + <Py_ssize_t>budgets._places[name])
        self._interval_ns = max(1, llround(min(SECOND_NS / rate, MAX_INTERVAL_NS)))
        self._tolerance_ns = max(0, <int64_t>SECOND_NS - self._interval_ns)

    cpdef double take_at(self, double now_s) noexcept:
        cdef int64_t now_ns = llround(now_s * SECOND_NS)
        cdef int64_t seen = load(self._word)
        cdef int64_t max_ns = self._tolerance_ns + self._interval_ns   # that this rate can reach
        cdef int64_t ahead_ns
        while True:
            ahead_ns = seen - now_ns
            if ahead_ns > max_ns + <int64_t>SECOND_NS:
                # The rate was lower until now, so the word is too far ahead. The extra second
                # allows for other processes that read their clocks a little later.
                if swap(self._word, &seen, now_ns + max_ns):
                    seen = now_ns + max_ns
            elif ahead_ns > self._tolerance_ns:
                return (ahead_ns - self._tolerance_ns) / SECOND_NS
            elif swap(self._word, &seen, now_ns + max(ahead_ns, 0) + self._interval_ns):
                return 0.0

    cdef void give_back(self) noexcept:
        # Return the budget of an event that is not stored.
        subtract(self._word, self._interval_ns)
