from libc.stdint cimport int64_t, uint32_t

cdef class Batch:
    cdef char* _data            # the events of the batch in order of arrival, behind HEAD_ROOM bytes
    cdef Py_ssize_t _size
    cdef Py_ssize_t _capacity
    cdef uint32_t* _ends        # where event i ends in _data
    cdef uint32_t* _sources     # whose event i is
    cdef int64_t* _received     # when, ms
    cdef Py_ssize_t _count
    cdef Py_ssize_t _room
    cdef bint _mixed            # events of more than one source
    cdef char* _frames          # frames of a mixed batch
    cdef Py_ssize_t _frames_capacity
    cdef const char* image      # what is to be written: sealed frames
    cdef Py_ssize_t image_bytes
    cdef public list waiters
    cdef public int64_t first_ticket
    cdef public double since_s  # when its first event came, by the loop's clock
    cdef public bint has_failed # a commit of it failed; the next one is the last

    cdef char* reserve(self, Py_ssize_t size) except NULL
    cdef int take(self, uint32_t source, Py_ssize_t length, int64_t received_ms) except -1
    cdef int _grow(self, Py_ssize_t bytes_needed) except -1
    cdef Py_ssize_t _write_frame(
        self, char* at, object segment, int64_t offset, bytes name, uint32_t count, Py_ssize_t body,
        Py_ssize_t stored, int64_t received_ms, int64_t first_number
    ) except -1
