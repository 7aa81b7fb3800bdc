from libc.stdint cimport int64_t

cdef class Waiter:
    cdef bint _is_dirty         # has answers that became ready and are not written

    cdef int _on_acknowledged(self, int64_t ticket, bint is_stored) except -1
    cdef int _flush(self) except -1
    cdef int _abort(self) except -1

cdef int acknowledge(list waiters, int64_t first_ticket, bint is_stored, object log) except -1
