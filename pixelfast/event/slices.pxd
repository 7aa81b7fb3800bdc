# A range of bytes in a buffer that another object owns, valid as long as that buffer.

from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.string cimport memchr

cdef struct Slice:
    const char* at          # NULL: absent, as opposed to empty
    Py_ssize_t length


cdef inline Slice stripped(Slice whole) noexcept nogil:
    # Remove white space at both ends, as `bytes.strip` does.
    while whole.length and _is_space(whole.at[0]):
        whole.at += 1
        whole.length -= 1
    while whole.length and _is_space(whole.at[whole.length - 1]):
        whole.length -= 1
    return whole


cdef inline Slice before(char stop, Slice whole) noexcept nogil:
    # Return the part before the first `stop`, or all if there is none.
    cdef const char* found = <const char*>memchr(whole.at, stop, whole.length)
    return whole if found == NULL else Slice(whole.at, found - whole.at)


cdef inline str string_of(Slice whole):
    # Decode UTF-8; invalid bytes become U+FFFD.
    return PyUnicode_DecodeUTF8(whole.at, whole.length, "replace")


cdef inline bint _is_space(char c) noexcept nogil:
    return c == c' ' or c'\t' <= c <= c'\r'
