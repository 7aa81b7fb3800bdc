"""The errors in a bulk response, without an object for each item that has none."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcmp

from pixelfast.deliver.bodies.json_strings cimport closing_quote

__all__ = ["items_with_errors"]

cdef bytes BEFORE = b'{"errors":true,"items":['
cdef bytes BEHIND = b']}'
cdef bytes STATUS = b'{"create":{"status":'
cdef bytes ERROR = b',"error":'
cdef bytes END = b'}}'


cdef struct Cursor:
    const char* place
    const char* end


def items_with_errors(bytes body not None, Py_ssize_t items):
    cdef Cursor cursor
    cdef const char* error
    cdef Py_ssize_t index
    cdef int status
    cdef list found = []
    cursor.place = PyBytes_AS_STRING(body)
    cursor.end = cursor.place + PyBytes_GET_SIZE(body)
    if not skip(&cursor, BEFORE):
        return None
    for index in range(items):
        if index and not skip(&cursor, b','):
            return None
        if not skip(&cursor, STATUS):
            return None
        status = three_digits(&cursor)
        if status < 0:
            return None
        if skip(&cursor, ERROR):
            error = cursor.place
            if not skip_object(&cursor):
                return None
            found.append((index, status, PyBytes_FromStringAndSize(error, cursor.place - error)))
        elif status >= 300:
            return None
        if not skip(&cursor, END):
            return None
    if not skip(&cursor, BEHIND) or cursor.place != cursor.end:
        return None
    return found


cdef inline bint skip(Cursor* cursor, bytes expected) noexcept:
    """Skip the expected bytes; return False if there are others."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(expected)
    if cursor.end - cursor.place < size:
        return False
    if memcmp(cursor.place, PyBytes_AS_STRING(expected), size) != 0:
        return False
    cursor.place += size
    return True


cdef inline int three_digits(Cursor* cursor) noexcept nogil:
    """Skip a number of three digits and return it, or -1 if there is none."""
    cdef int number = 0, n
    cdef char digit
    if cursor.end - cursor.place < 3:
        return -1
    for n in range(3):
        digit = cursor.place[n]
        if not c'0' <= digit <= c'9':
            return -1
        number = 10 * number + digit - c'0'
    cursor.place += 3
    return number if number >= 100 else -1


cdef bint skip_object(Cursor* cursor) noexcept nogil:
    """Skip an object with any content; return False if it has no end."""
    cdef int depth = 0
    cdef char byte
    while cursor.place < cursor.end:
        byte = cursor.place[0]
        cursor.place += 1
        if byte == c'"':
            cursor.place = closing_quote(cursor.place, cursor.end)
            if cursor.place == NULL:
                return False
            cursor.place += 1
        elif byte == c'{':
            depth += 1
        elif byte == c'}':
            depth -= 1
            if depth <= 0:
                return depth == 0
        elif depth == 0:
            return False
    return False
