from cpython.ref cimport PyObject
from libc.stdint cimport int64_t

cdef struct Pending:
    int64_t ticket              # 0: the answer is ready; else the event's that it waits for
    PyObject* answer            # bytes

cdef Py_ssize_t write_out(bytes data, object transport, int fd) except -1
cdef void discard_input(int fd) noexcept

cdef class AnswerQueue:
    cdef Pending* _all
    cdef int _room
    cdef int _first             # of _all, the oldest
    cdef readonly int count
    cdef Py_ssize_t size_bytes  # of the answers and their places
    cdef int _searched          # where the last ticket stood

    cdef int push(self, bytes answer, int64_t ticket) except -1
    cdef int _make_room(self) except -1
    cdef int find(self, int64_t ticket) noexcept
    cdef void make_ready(self, int place) noexcept
    cdef bytes get(self, int place)
    cdef int replace(self, int place, bytes answer) except -1
    cdef int ready(self) noexcept
    cdef bytes take(self, int count)
    cdef void clear(self) noexcept
