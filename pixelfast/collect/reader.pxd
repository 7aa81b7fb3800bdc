from pixelfast.collect.chunks cimport Chunks
from pixelfast.collect.request cimport Method, Request

cdef enum Reading:
    IN_HEAD     # before a request, or within its head
    IN_BODY
    DONE        # `request` is whole
    FAILED      # `error` says why; no request can be found after it

cdef class Reader:
    cdef Request request
    cdef Reading reading
    cdef Method method                  # of a request that is done or has failed
    cdef object error
    cdef bint owes_continue             # the client waits for 100 before it sends the body
    cdef bint keeps_alive
    cdef bint is_upgrade                # what follows may be another protocol
    cdef object _parser, _feed          # None until a head is whole
    cdef object _log
    cdef Py_ssize_t _searched_bytes     # of the head so far, for its end
    cdef Py_ssize_t _blank_bytes        # line ends before the request
    cdef Chunks _chunks                 # of the body

    cdef Py_ssize_t read(self, bytes data, Py_ssize_t start) except -1
    cdef bint has_part(self) noexcept
    cdef bint has_head(self, bytes data, Py_ssize_t start) noexcept
    cdef Py_ssize_t held_bytes(self) noexcept
    cdef int next(self) except -1
    cdef int fail(self, object error, bytes start) except -1
    cdef int close(self) except -1
    cdef Py_ssize_t _read_blank(self, const char* at, Py_ssize_t length) except -1
    cdef int _read_head(self, bytes head) except -1
    cdef Py_ssize_t _read_body(self, bytes data, Py_ssize_t start) except -1
    cdef Py_ssize_t _read_chunks(self, const char* at, Py_ssize_t length) except -1
    cdef int _parse(self, bytes data) except -1
    cdef bint _is_1_1(self) except -1
