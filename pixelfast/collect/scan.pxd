# A fast path for nearly all requests: scan one complete plain GET.
#
# The scan accepts a request only if the parser would read exactly the same from it (RFC 9112
# sections 2 to 5, and stricter): `GET /... HTTP/1.1`, CRLF after each line, header names that are
# tokens, values of visible characters, and headers as in the table in `headers`. The reader gets
# any other request from its first byte. The parser takes 2 to 3 µs longer per request, because it
# calls back for each header.

from libc.string cimport memchr, memcmp
from posix.strings cimport strncasecmp

from pixelfast.collect.headers cimport IS_TOKEN, Header
from pixelfast.collect.host cimport is_host
from pixelfast.collect.limits cimport (
    MAX_HEAD_BYTES,
    MAX_HEADER_BYTES,
    MAX_HEADERS,
)
from pixelfast.collect.reader cimport Request, header_in, place_of
from pixelfast.event.limits cimport MAX_TARGET_BYTES
from pixelfast.event.slices cimport Slice


cdef inline bint is_clean(const char* string, Py_ssize_t length) noexcept nogil:
    # Return whether there are no control characters, including tabs. There is no branch in the
    # loop, so that the compiler can vectorize it.
    cdef const unsigned char* at = <const unsigned char*>string
    cdef unsigned char bad = 0
    cdef Py_ssize_t i
    for i in range(length):
        bad |= (at[i] < 0x20) | (at[i] == 0x7F)
    return bad == 0


cdef inline bint is_target(const char* string, Py_ssize_t length) noexcept nogil:
    # Return whether there are no spaces, control characters or fragment. Bytes from 0x80 on are
    # allowed, as in nginx: mail clients, old browsers and templates do not encode them.
    cdef const unsigned char* at = <const unsigned char*>string
    cdef unsigned char bad = 0
    cdef Py_ssize_t i
    for i in range(length):
        bad |= (at[i] <= 0x20) | (at[i] == 0x7F) | (at[i] == c'#')
    return bad == 0


cdef inline bint take_header(
    Request request, const char* name, Py_ssize_t length, const char* value, Py_ssize_t value_length
) noexcept:
    # Keep a header if it is used. Return False if the reader must read the request.
    cdef Header header = header_in(request, name, length)
    cdef Slice* place
    if header == Header.OTHER_HEADER:
        return True
    place = place_of(request, header)
    if place != NULL:
        if place.at != NULL:
            return False
        place.at = value
        place.length = value_length
        return True
    if header == Header.HOST:
        if request.has_host or not is_host(Slice(value, value_length)):
            return False
        request.has_host = True
    elif header == Header.CONNECTION:
        # A list may contain `close` or `upgrade`, so only the most common value is accepted.
        if request.says_keep_alive or value_length != 10:
            return False
        request.says_keep_alive = strncasecmp(value, b"keep-alive", 10) == 0
        return request.says_keep_alive
    return header <= Header.HOST


cdef inline Py_ssize_t scan_plain_get(
    const char* data, Py_ssize_t length, Request request
) noexcept:
    # Return the length of the plain GET at `data`, or 0 if the reader must read the request.
    # `request` must be reset before.
    cdef:
        const char* end = data + length
        const char* line
        const char* stop
        const char* value
        Py_ssize_t name_bytes, value_bytes
    if length < 18 or memcmp(data, b"GET /", 5) != 0:
        return 0
    stop = <const char*>memchr(data, c'\r', length)
    if stop == NULL or end - stop < 2 or stop[1] != c'\n' or stop - data < 14:
        return 0
    if memcmp(stop - 9, b" HTTP/1.1", 9) != 0:
        return 0
    request.target = Slice(data + 4, stop - 9 - (data + 4))
    if request.target.length > MAX_TARGET_BYTES:
        return 0
    if not is_target(request.target.at, request.target.length):
        return 0
    line = stop + 2
    while True:
        stop = <const char*>memchr(line, c'\r', end - line)
        if stop == NULL or end - stop < 2 or stop[1] != c'\n':
            return 0
        if stop == line:
            break
        value = line
        while IS_TOKEN[<unsigned char>value[0]]:
            value += 1
        name_bytes = value - line
        if name_bytes == 0 or value[0] != c':':
            return 0
        value += 1
        while value[0] == c' ' or value[0] == c'\t':
            value += 1
        value_bytes = stop - value
        # Values that are empty or end with white space are left to the reader.
        if value_bytes <= 0 or value[value_bytes - 1] == c' ' or value[value_bytes - 1] == c'\t':
            return 0
        if not is_clean(value, value_bytes):
            return 0
        request.header_count += 1
        request.header_bytes += name_bytes + value_bytes + 4
        if not take_header(request, line, name_bytes, value, value_bytes):
            return 0
        line = stop + 2
    if not request.has_host:
        return 0
    if request.header_count > MAX_HEADERS or request.header_bytes > MAX_HEADER_BYTES:
        return 0
    length = stop + 2 - data
    return length if length <= MAX_HEAD_BYTES else 0
