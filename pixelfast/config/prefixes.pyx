"""Finds where one of many byte strings may begin, in one pass over the data."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint64_t
from libc.string cimport memset

__all__ = ["Prefixes"]

cdef enum:
    MOST_BYTES = 8          # of a prefix
    GROUPS = 64             # of prefixes, by the bits of a word


cdef class Prefixes:
    # For each position in a prefix and each byte: the groups that have a prefix with this byte there.
    cdef uint64_t _groups[MOST_BYTES][256]
    cdef Py_ssize_t _length

    def __init__(self, prefixes):
        cdef bytes prefix
        cdef Py_ssize_t place
        cdef int number
        self._length = 0
        memset(self._groups, 0, sizeof(self._groups))
        for number, prefix in enumerate(sorted(set(prefixes))):
            if not 1 <= len(prefix) <= MOST_BYTES or self._length not in (0, len(prefix)):
                raise ValueError(f"expected prefixes of one length up to {MOST_BYTES}: {prefix!r}")
            self._length = len(prefix)
            for place in range(self._length):
                self._groups[place][<unsigned char>prefix[place]] |= <uint64_t>1 << number % GROUPS

    def find(self, bytes data not None, Py_ssize_t start=0):
        cdef const unsigned char* place = <const unsigned char*>PyBytes_AS_STRING(data)
        cdef Py_ssize_t last = PyBytes_GET_SIZE(data) - self._length
        cdef Py_ssize_t at, more
        cdef uint64_t groups
        if self._length == 0 or start < 0:
            return -1
        for at in range(start, last + 1):
            groups = self._groups[0][place[at]]
            more = 1
            while groups and more < self._length:
                groups &= self._groups[more][place[at + more]]
                more += 1
            if groups:
                return at
        return -1
