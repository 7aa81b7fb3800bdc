from pixelfast.collect.request cimport Request

cdef Py_ssize_t scan_plain_get(
    const char* data, Py_ssize_t length, Request request
) noexcept
