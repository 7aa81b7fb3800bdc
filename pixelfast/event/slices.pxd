# Bytes that stand in a buffer of somebody else: valid as long as that buffer.

from cpython.unicode cimport PyUnicode_DecodeUTF8

cdef struct Slice:
    const char* at          # NULL: absent, if that differs from empty
    Py_ssize_t length


cdef inline Slice stripped(Slice whole) noexcept nogil:
    # Without the white space around it, as `bytes.strip` does it.
    while whole.length and _is_space(whole.at[0]):
        whole.at += 1
        whole.length -= 1
    while whole.length and _is_space(whole.at[whole.length - 1]):
        whole.length -= 1
    return whole


cdef inline str string_of(Slice whole):
    # What is not UTF-8 becomes U+FFFD.
    return PyUnicode_DecodeUTF8(whole.at, whole.length, "replace")


cdef inline bint _is_space(char c) noexcept nogil:
    return c == c' ' or c'\t' <= c <= c'\r'
