"""The request target: which route it names, and its query."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memchr, memcmp
from posix.strings cimport strncasecmp

from pixelfast.event.query cimport Slice

__all__ = ["route_of"]

# For Python; compiled code has the enum.
_NAMES = {Route.TRACK: "track", Route.PAGE: "page", Route.ROBOTS: "robots"}


cdef Route split_target(Slice target, Slice* query) noexcept:
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
        end = mark  # a fragment is for the browser; a client that sends it means no part of a query
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


cdef const char* _after_authority(const char* start, const char* end) noexcept:
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


def route_of(bytes target not None):
    cdef Slice query
    cdef Slice whole = Slice(PyBytes_AS_STRING(target), PyBytes_GET_SIZE(target))
    cdef Route route = split_target(whole, &query)
    return _NAMES.get(<int>route), query.at[: query.length]
