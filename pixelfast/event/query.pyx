"""The parameters of a query, found and not decoded."""

from libc.stdint cimport uint64_t
from libc.string cimport memchr, memcpy

import os

from pixelfast.errors import RequestError

__all__ = ["Query"]

# Nobody outside can tell which keys share a hash.
cdef uint64_t _SEED = int.from_bytes(os.urandom(8), "little")


cdef inline uint64_t _mix(uint64_t hash, uint64_t word) noexcept nogil:
    hash = (hash ^ word) * <uint64_t>0x9E3779B97F4A7C15
    return hash ^ (hash >> 29)


cdef inline uint64_t _hash_key(uint64_t hash, const char* key, Py_ssize_t length) noexcept nogil:
    cdef uint64_t word = 0
    cdef Py_ssize_t i
    if length >= 8:
        for i in range(0, length - 7, 8):
            memcpy(&word, key + i, 8)
            hash = _mix(hash, word)
        memcpy(&word, key + length - 8, 8)
    else:
        for i in range(length):
            word = word << 8 | <unsigned char>key[i]
    return _mix(_mix(hash, word), <uint64_t>length)


cdef class Query:

    cdef int split(self, const char* start, Py_ssize_t length) except -1:
        # Into keys and values that point into the query; how many there are.
        cdef:
            const char* end = start + length
            const char* stop
            const char* equals
            uint64_t hash = _SEED
            int count = 0
        self.count = 0
        if length > MAX_QUERY_BYTES:
            raise RequestError(
                414, "target-too-long", f"query is {length:,} bytes, limit {MAX_QUERY_BYTES:,}"
            )
        while start < end:
            stop = <const char*>memchr(start, c'&', end - start)
            if stop == NULL:
                stop = end
            if stop > start:
                if count == MAX_PARAMETERS:
                    raise RequestError(
                        400, "too-many-parameters", f"more than {MAX_PARAMETERS} parameters"
                    )
                equals = <const char*>memchr(start, c'=', stop - start)
                if equals == NULL:
                    equals = stop
                hash = _hash_key(hash, start, equals - start)
                self.keys[count].at = start
                self.keys[count].length = equals - start
                self.values[count].at = equals + 1 if equals < stop else stop
                self.values[count].length = stop - self.values[count].at
                count += 1
            start = stop + 1
        self.count = count
        self.length = length
        self.hash = hash
        return count
