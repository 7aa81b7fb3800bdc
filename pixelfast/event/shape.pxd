from libc.stdint cimport uint64_t

from pixelfast.event.query cimport Query

cdef class Shape:
    cdef readonly list paths    # [KeyPath]
    cdef readonly int write_key # which parameter it is; -1 where there is none
    cdef readonly bint is_too_deep
    cdef readonly bint is_kept  # it comes again and again
    cdef Py_ssize_t _key_bytes
    cdef readonly dict templates # {number of its rules and more: Template, or None}
    cdef uint64_t _hash
    cdef list _keys             # [bytes]

    cdef bint _fits(self, Query query) noexcept

cdef Shape shape_of(Query query)
cdef bint makes_room(Py_ssize_t size) noexcept
