from libc.stdint cimport uint64_t

cdef enum:
    MAX_QUERY_BYTES = 32768
    MAX_PARAMETERS = 256

cdef struct Slice:
    const char* at
    Py_ssize_t length

cdef class Query:
    cdef int count
    cdef Py_ssize_t length      # in bytes
    cdef uint64_t hash          # of the keys and their order
    cdef Slice keys[256]        # as sent
    cdef Slice values[256]

    cdef int split(self, const char* start, Py_ssize_t length) except -1
