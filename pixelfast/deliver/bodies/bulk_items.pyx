"""The errors in a bulk response, grouped by their meaning, without an object for each of them."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memchr, memcmp

from pixelfast.deliver.excerpts cimport Excerpts

__all__ = ["scan_errors"]

cdef bytes BEFORE = b'{"errors":true,"items":['
cdef bytes BEHIND = b']}'
cdef bytes STATUS = b'{"create":{"status":'
cdef bytes ERROR = b',"error":'
cdef bytes END = b'}}'

cdef enum:
    MAX_GROUPS = 16
    MAX_DEPTH = 8           # of objects in an error
    MAX_TYPE_BYTES = 100


cdef struct Cursor:
    const char* place
    const char* end


cdef struct Error:
    int status
    const char* type        # NULL without one
    Py_ssize_t type_bytes
    bint has_beginning      # its reason has one of the wanted beginnings
    bint has_reason
    bint is_plain


def scan_errors(
    bytes body not None, Py_ssize_t items, tuple beginnings not None, Py_ssize_t max_bytes
):
    cdef Cursor cursor
    cdef Error error
    cdef Error groups[MAX_GROUPS]
    cdef list places = [], excerpts = []    # by group
    cdef list others = []
    cdef const char* start = PyBytes_AS_STRING(body)
    cdef const char* begin
    cdef Py_ssize_t index, size
    cdef int group = 0
    cursor.place = start
    cursor.end = start + PyBytes_GET_SIZE(body)
    if not skip(&cursor, BEFORE):
        return None
    for index in range(items):
        if index and not skip(&cursor, b','):
            return None
        if not skip(&cursor, STATUS):
            return None
        error.status = three_digits(&cursor)
        if error.status < 0:
            return None
        if skip(&cursor, ERROR):
            begin = cursor.place
            if not skip_error(&cursor, beginnings, &error):
                return None
            size = cursor.place - begin
            if error.is_plain and size <= max_bytes:
                group = group_of(&error, groups, len(places), group)
            if not error.is_plain or size > max_bytes or group < 0:
                group = 0
                others.append((index, error.status, PyBytes_FromStringAndSize(begin, size)))
            else:
                if group == len(places):
                    groups[group] = error
                    places.append([])
                    excerpts.append(Excerpts.inside(body))
                (<list>places[group]).append(index)
                (<Excerpts>excerpts[group]).add(begin - start, cursor.place - start)
        elif error.status >= 300:
            return None
        if not skip(&cursor, END):
            return None
    if not skip(&cursor, BEHIND) or cursor.place != cursor.end:
        return None
    return [
        (
            groups[group].status,
            PyBytes_FromStringAndSize(groups[group].type, groups[group].type_bytes),
            bool(groups[group].has_beginning),
            places[group],
            excerpts[group],
        )
        for group in range(len(places))
    ], others


cdef int group_of(const Error* error, const Error* groups, int count, int last) noexcept:
    """Return the group that an error belongs to, a new one if possible, or -1."""
    cdef int group
    if last < count and is_alike(error, &groups[last]):
        return last
    for group in range(count):
        if is_alike(error, &groups[group]):
            return group
    return count if count < MAX_GROUPS else -1


cdef inline bint is_alike(const Error* one, const Error* two) noexcept:
    return (
        one.status == two.status
        and one.has_beginning == two.has_beginning
        and one.type_bytes == two.type_bytes
        and memcmp(one.type, two.type, one.type_bytes) == 0
    )


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


cdef bint skip_error(Cursor* cursor, tuple beginnings, Error* error) noexcept:
    """Skip an object of strings and objects, and read it as an error; return False for others."""
    cdef int depth = 1
    cdef bint may_close = True      # only directly after the brace that opens an object
    cdef const char* name
    cdef const char* value
    cdef Py_ssize_t name_bytes
    error.type = NULL
    error.type_bytes = 0
    error.has_beginning = error.has_reason = False
    error.is_plain = True
    if not skip(cursor, b'{'):
        return False
    while True:
        if not (may_close and is_next(cursor, c'}')):
            name = cursor.place + 1
            if not skip_string(cursor, error):
                return False
            name_bytes = cursor.place - 1 - name
            if not skip(cursor, b':'):
                return False
            if skip(cursor, b'{'):
                if depth == 1 and is_read(name, name_bytes):
                    error.is_plain = False
                depth += 1
                if depth > MAX_DEPTH:
                    return False
                may_close = True
                continue
            value = cursor.place + 1
            if not skip_string(cursor, error):
                return False
            if depth == 1:
                note(error, beginnings, name, name_bytes, value, cursor.place - 1 - value)
        while skip(cursor, b'}'):
            depth -= 1
            if depth == 0:
                error.is_plain = error.is_plain and error.type != NULL
                return True
        if not skip(cursor, b','):
            return False
        may_close = False


cdef inline bint is_next(const Cursor* cursor, char byte) noexcept nogil:
    return cursor.place < cursor.end and cursor.place[0] == byte


cdef inline bint is_named(
    const char* name, Py_ssize_t name_bytes, const char* expected, Py_ssize_t expected_bytes
) noexcept nogil:
    return name_bytes == expected_bytes and memcmp(name, expected, expected_bytes) == 0


cdef inline bint is_read(const char* name, Py_ssize_t name_bytes) noexcept nogil:
    return is_named(name, name_bytes, b"type", 4) or is_named(name, name_bytes, b"reason", 6)


cdef void note(
    Error* error,
    tuple beginnings,
    const char* name,
    Py_ssize_t name_bytes,
    const char* value,
    Py_ssize_t value_bytes,
) noexcept:
    """Note the type or the reason of an error."""
    cdef bytes beginning
    if is_named(name, name_bytes, b"type", 4):
        if (
            error.type != NULL
            or value_bytes > MAX_TYPE_BYTES
            or memchr(value, c'\\', value_bytes) != NULL
        ):
            error.is_plain = False
        error.type = value
        error.type_bytes = value_bytes
    elif is_named(name, name_bytes, b"reason", 6):
        if error.has_reason:
            error.is_plain = False
        error.has_reason = True
        for beginning in beginnings:
            if value_bytes >= PyBytes_GET_SIZE(beginning) and memcmp(
                value, PyBytes_AS_STRING(beginning), PyBytes_GET_SIZE(beginning)
            ) == 0:
                error.has_beginning = True


cdef bint skip_string(Cursor* cursor, Error* error) noexcept nogil:
    """Skip a string; return False if it is not valid JSON, apart from its encoding."""
    cdef const char* place = cursor.place
    cdef const char* end = cursor.end
    cdef unsigned char byte
    if place == end or place[0] != c'"':
        return False
    place += 1
    while place < end:
        byte = <unsigned char>place[0]
        place += 1
        if byte > c'[' and byte != c'\\':   # most bytes
            continue
        if byte == c'"':
            cursor.place = place
            return True
        if byte < 0x20:
            return False
        if byte == c'\\':
            if place == end:
                return False
            byte = <unsigned char>place[0]
            place += 1
            if byte == c'u':
                error.is_plain = False      # an escape could hide a secret from masking
                if not are_hex_digits(place, end):
                    return False
                place += 4
            elif byte != c'"' and byte != c'\\' and byte != c'/' and byte not in b'bfnrt':
                return False
        elif byte == c'@' and follows(place, end, b"timestamp", 9):
            error.is_plain = False
        elif byte == c'[' and follows(place, end, b"Source: ", 8):
            error.is_plain = False
    return False


cdef inline bint follows(
    const char* place, const char* end, const char* expected, Py_ssize_t size
) noexcept nogil:
    return end - place >= size and memcmp(place, expected, size) == 0


cdef bint are_hex_digits(const char* place, const char* end) noexcept nogil:
    cdef int n
    if end - place < 4:
        return False
    for n in range(4):
        if not (
            c'0' <= place[n] <= c'9' or c'a' <= place[n] <= c'f' or c'A' <= place[n] <= c'F'
        ):
            return False
    return True
