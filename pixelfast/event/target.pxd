# The request target: which route it names, and its query.

from libc.string cimport memchr, memcmp
from posix.strings cimport strncasecmp

from pixelfast.event.slices cimport Slice

cdef enum Route:
    NOT_FOUND = 0
    TRACK = 1
    PAGE = 2
    ROBOTS = 3


cdef inline bint is_visible_ascii(Slice target) noexcept nogil:
    # Whether HTTP allows these bytes in a target. Without a branch, so that the compiler checks
    # many bytes at a time.
    cdef const unsigned char* at = <const unsigned char*>target.at
    cdef unsigned char bad = 0
    cdef Py_ssize_t i
    for i in range(target.length):
        bad |= (at[i] <= 0x20) | (at[i] >= 0x7F)
    return bad == 0


cdef inline Route split_target(Slice target, Slice* query) noexcept nogil:
    # The query is what follows the first `?`, up to a `#`.
    cdef:
        const char* start = target.at
        const char* end = start + target.length
        const char* path = start
        const char* stop
        const char* mark
        Py_ssize_t length
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
    length = stop - path
    if length == 15 and memcmp(path, b"/pixel/v1/track", 15) == 0:
        return Route.TRACK
    if length == 14 and memcmp(path, b"/pixel/v1/page", 14) == 0:
        return Route.PAGE
    if length == 11 and memcmp(path, b"/robots.txt", 11) == 0:
        return Route.ROBOTS
    return Route.NOT_FOUND


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
