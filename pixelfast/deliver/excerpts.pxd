"""Many byte strings in one buffer; the .pyi has the documentation."""


cdef class Excerpts:
    cdef readonly bytes buffer
    cdef Py_ssize_t* bounds     # the start and the end of each excerpt
    cdef Py_ssize_t count, capacity

    @staticmethod
    cdef Excerpts inside(bytes buffer)
    cdef int add(self, Py_ssize_t start, Py_ssize_t end) except -1
    cdef bytes copy(self, Py_ssize_t index)
    cdef int check(self, Py_ssize_t start, Py_ssize_t stop) except -1

    cdef inline Py_ssize_t size(self, Py_ssize_t index) noexcept:
        return self.bounds[2 * index + 1] - self.bounds[2 * index]
