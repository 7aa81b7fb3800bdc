"""Rate limits that all collectors share: one 64-bit word a source, in memory that all of them map.

The word is the theoretical arrival time of GCRA, in nanoseconds of CLOCK_MONOTONIC, which is the
same clock in every process. An event that is accepted moves the word on by the interval between
two events, from the present at the earliest. If the word is ahead of the clock by more than a
second's worth of intervals, the limit is reached. That is a token bucket that holds one second's
worth of events, and at least one, and its whole state changes by one compare-and-swap: a process
that is killed leaves the word as it was before or after, and no lock.
"""

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
cdef double MAX_INTERVAL_NS = 2.0**61   # 73 years; a sum of two still fits


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
        wrong = [
            name
            for name, place in places.items()
            if place % WORD_BYTES or not 0 <= place <= len(memory) - WORD_BYTES
        ]
        if wrong:
            raise ValueError(f"no room for the rate of {wrong[0]} in {len(memory)} bytes")
        self._memory = memory
        self._bytes = memory
        self._places = dict(places)

    def budget(self, str name not None, double rate):
        return RateBudget(self, name, rate)


cdef class RateBudget:

    def __init__(self, RateBudgets budgets not None, str name not None, double rate):
        if not rate > 0.0:
            raise ValueError(f"rate {rate}, expected more than 0")
        self._bytes = budgets._bytes
        self._word = <int64_t*>&self._bytes[<Py_ssize_t>budgets._places[name]]
        self._interval_ns = max(1, llround(min(SECOND_NS / rate, MAX_INTERVAL_NS)))
        self._tolerance_ns = max(0, <int64_t>SECOND_NS - self._interval_ns)

    cpdef double take_at(self, double now_s) noexcept:
        cdef int64_t now_ns = llround(now_s * SECOND_NS)
        cdef int64_t seen = load(self._word)
        cdef int64_t most_ns = self._tolerance_ns + self._interval_ns   # that this rate leads to
        cdef int64_t ahead_ns
        while True:
            ahead_ns = seen - now_ns
            if ahead_ns > most_ns + <int64_t>SECOND_NS:
                # The rate was lower until a moment ago. Another process that has read its clock a
                # little later is not meant: hence the second.
                if swap(self._word, &seen, now_ns + most_ns):
                    seen = now_ns + most_ns
            elif ahead_ns > self._tolerance_ns:
                return (ahead_ns - self._tolerance_ns) / SECOND_NS
            elif swap(self._word, &seen, now_ns + max(ahead_ns, 0) + self._interval_ns):
                return 0.0

    cdef void give_back(self) noexcept:
        # The event that the budget was taken for is not stored.
        subtract(self._word, self._interval_ns)
