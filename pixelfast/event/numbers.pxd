cdef object number_of(str text)
cdef Py_ssize_t write_number(char* out, const char* text, Py_ssize_t length) noexcept nogil
