cdef str decode_text(const char* raw, Py_ssize_t length, char* scratch)
cdef Py_ssize_t write_text(
    char* out, const char* raw, Py_ssize_t length, bint is_query
) noexcept nogil
cdef Py_ssize_t decode_ascii(char* out, const char* raw, Py_ssize_t length) noexcept nogil
