# The request target: which route it names, and its query.

from libc.string cimport memchr, memcmp
from posix.strings cimport strncasecmp

from pixelfast.event.slices cimport Slice
from pixelfast.event.strings cimport HEX

cdef enum:
    PLAIN_PATH_BYTES = 32       # longer than every route, with a slash or `.gif` at its end

cdef enum Route:
    NOT_FOUND = 0
    TRACK = 1
    PAGE = 2
    ROBOTS = 3


cdef inline bint is_well_formed(Slice target) noexcept nogil:
    # Whether these bytes may stand in a target: no spaces and control characters. Bytes from 0x80 on
    # may, as in nginx: mail clients and old browsers don't encode them. Without a branch, so that the
    # compiler checks many bytes at a time.
    cdef const unsigned char* at = <const unsigned char*>target.at
    cdef unsigned char bad = 0
    cdef Py_ssize_t i
    for i in range(target.length):
        bad |= (at[i] <= 0x20) | (at[i] == 0x7F)
    return bad == 0


cdef inline Route split_target(Slice target, Slice* query) noexcept nogil:
    # The query is what follows the first `?`, up to a `#`.
    cdef:
        const char* start = target.at
        const char* end = start + target.length
        const char* path = start
        const char* stop
        const char* mark
        Route route
        Py_ssize_t length
        char plain[PLAIN_PATH_BYTES]
    mark = <const char*>memchr(start, c'#', end - start)
    if mark != NULL:
        end = mark  # a fragment is for the browser; a client that sends one does not mean the query
    if start < end and start[0] != c'/':
        path = _after_authority(start, end)
    stop = <const char*>memchr(path, c'?', end - path)
    if stop == NULL:
        stop = end
        query.at = end
    else:
        query.at = stop + 1
    query.length = end - query.at
    route = _route_of(path, stop - path)
    if route == Route.NOT_FOUND:
        length = _write_plain_path(plain, path, stop)
        if length > 0:
            route = _route_of(plain, length)
    return route


cdef inline Route _route_of(const char* path, Py_ssize_t length) noexcept nogil:
    if length == 15 and memcmp(path, b"/pixel/v1/track", 15) == 0:
        return Route.TRACK
    if length == 14 and memcmp(path, b"/pixel/v1/page", 14) == 0:
        return Route.PAGE
    if length == 11 and memcmp(path, b"/robots.txt", 11) == 0:
        return Route.ROBOTS
    return Route.NOT_FOUND


cdef inline Py_ssize_t _write_plain_path(
    char* out, const char* path, const char* end
) noexcept nogil:
    # The path as it is compared, at most PLAIN_PATH_BYTES: unreserved characters decoded (RFC 3986
    # section 6.2.2.2), repeated slashes as one, without one slash or `.gif` at its end. 0: too long
    # to be a route.
    cdef Py_ssize_t length = 0
    cdef unsigned char c, high, low
    while path < end:
        c = <unsigned char>path[0]
        path += 1
        if c == c'%' and end - path >= 2:
            high, low = HEX[<unsigned char>path[0]], HEX[<unsigned char>path[1]]
            if high and low and _is_unreserved(<unsigned char>((high - 1) << 4 | (low - 1))):
                c = <unsigned char>((high - 1) << 4 | (low - 1))
                path += 2
        elif c == c'/' and length and out[length - 1] == c'/':
            continue
        if length == PLAIN_PATH_BYTES:
            return 0
        out[length] = <char>c
        length += 1
    if length >= 4 and memcmp(out + length - 4, b".gif", 4) == 0:
        return length - 4
    if length and out[length - 1] == c'/':
        return length - 1
    return length


cdef inline bint _is_unreserved(unsigned char c) noexcept nogil:
    # RFC 3986 section 2.3
    return (
        c'a' <= (c | 0x20) <= c'z'
        or c'0' <= c <= c'9'
        or c == c'-'
        or c == c'.'
        or c == c'_'
        or c == c'~'
    )


cdef inline const char* _after_authority(const char* start, const char* end) noexcept nogil:
    # RFC 9112 section 3.2.2, absolute form: http://host/path?query
    cdef const char* slash
    cdef const char* mark
    cdef Py_ssize_t scheme = 0
    if end - start > 7 and strncasecmp(start, b"http://", 7) == 0:
        scheme = 7
    elif end - start > 8 and strncasecmp(start, b"https://", 8) == 0:
        scheme = 8
    if scheme == 0 or start[scheme] == c'/':
        return start
    mark = <const char*>memchr(start, c'?', end - start)
    if mark != NULL:
        end = mark
    slash = <const char*>memchr(start + scheme, c'/', end - start - scheme)
    return start if slash == NULL else slash
