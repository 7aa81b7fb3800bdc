"""Finding events that need no change to be documents: plain names and little nesting."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memchr, memcmp

from pixelfast.deliver.bodies.json_strings cimport closing_quote

__all__ = ["MAX_ID_BYTES", "plain_message_id"]

cdef enum:
    MAX_DEPTH = 19         # objects and arrays together; documents may have 20 levels of names

cpdef enum:
    MAX_ID_BYTES = 512     # of a document


def plain_message_id(bytes line not None):
    cdef const char* place = PyBytes_AS_STRING(line)
    cdef const char* end = place + PyBytes_GET_SIZE(line)
    cdef const char* start
    cdef const char* quote
    cdef const char* value = NULL  # the messageId, from its opening quote
    cdef Py_ssize_t value_bytes = 0
    cdef int depth = 0
    cdef char byte
    while place < end:
        byte = place[0]
        if byte == c'"':
            start = place + 1
            quote = closing_quote(start, end)
            if quote == NULL:
                return None
            place = quote + 1
            if place < end and place[0] == c':':
                if not is_plain(start, quote - start, depth):
                    return None
                if depth == 1 and quote - start == 9 and memcmp(start, b"messageId", 9) == 0:
                    value = place + 1
            elif start - 1 == value:
                value_bytes = place - value
            continue
        if byte == c'{' or byte == c'[':
            depth += 1
            if depth > MAX_DEPTH:
                return None
        elif byte == c'}' or byte == c']':
            depth -= 1
        place += 1
    if not 2 < value_bytes <= MAX_ID_BYTES + 2 or memchr(value, c'\\', value_bytes) != NULL:
        return None
    return PyBytes_FromStringAndSize(value, value_bytes)


cdef bint is_plain(const char* name, Py_ssize_t size, int depth) noexcept nogil:
    """Return whether a name is certainly not blank, not reserved and without dots."""
    cdef unsigned char first
    if size == 0:
        return False
    first = <unsigned char> name[0]
    if first == c' ' or first == c'\\' or (first == c'_' and depth == 1):
        return False
    if first == 0xC2 or 0xE1 <= first <= 0xE3:  # the lead bytes of all non-ASCII white space
        return False
    return memchr(name, c'.', size) == NULL
