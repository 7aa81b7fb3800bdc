# The parameters of a query, located but not decoded.

from libc.stdint cimport uint64_t
from libc.string cimport memchr, memcpy

from pixelfast.event.limits cimport MAX_PARAMETERS
from pixelfast.event.slices cimport Slice

cdef struct Query:
    int count
    Py_ssize_t length               # in bytes
    uint64_t hash                   # of the keys in order
    Slice keys[MAX_PARAMETERS]      # as sent
    Slice values[MAX_PARAMETERS]


cdef inline bint split_query(Query* query, Slice whole, uint64_t seed) noexcept nogil:
    # Find the keys and values, which point into `whole`. Return False if there are more than
    # MAX_PARAMETERS. The seed is secret, so that clients cannot construct keys with the same hash.
    cdef:
        const char* start = whole.at
        const char* end = start + whole.length
        const char* stop
        const char* equals
        uint64_t hash = seed
        int count = 0
    query.count = 0
    while start < end:
        stop = <const char*>memchr(start, c'&', end - start)
        if stop == NULL:
            stop = end
        if stop > start:
            if count == MAX_PARAMETERS:
                return False
            equals = <const char*>memchr(start, c'=', stop - start)
            if equals == NULL:
                equals = stop
            hash = _hash_key(hash, start, equals - start)
            query.keys[count].at = start
            query.keys[count].length = equals - start
            query.values[count].at = equals + 1 if equals < stop else stop
            query.values[count].length = stop - query.values[count].at
            count += 1
        start = stop + 1
    query.count = count
    query.length = whole.length
    query.hash = hash
    return True


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
