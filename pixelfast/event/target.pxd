# The route and the query of a request target.

from libc.string cimport memchr, memcmp

from pixelfast.event.paths cimport after_authority, is_path
from pixelfast.event.slices cimport Slice

cdef enum Route:
    NOT_FOUND = 0
    TRACK = 1
    PAGE = 2
    ROBOTS = 3


cdef inline bint is_well_formed(Slice target) noexcept nogil:
    # Return whether a target has neither spaces nor control characters. Bytes from 0x80 on are
    # allowed, as in nginx: mail clients and old browsers do not encode them. There is no branch in
    # the loop, so that the compiler can vectorize it.
    cdef const unsigned char* at = <const unsigned char*>target.at
    cdef unsigned char bad = 0
    cdef Py_ssize_t i
    for i in range(target.length):
        bad |= (at[i] <= 0x20) | (at[i] == 0x7F)
    return bad == 0


cdef inline Route split_target(Slice target, Slice* query) noexcept nogil:
    # Return the route, and the query: everything between the first `?` and a `#`.
    cdef:
        const char* start = target.at
        const char* end = start + target.length
        const char* path = start
        const char* stop
        const char* mark
        Route route
    mark = <const char*>memchr(start, c'#', end - start)
    if mark != NULL:
        end = mark  # a fragment is for the browser and not a part of the query
    if start < end and start[0] != c'/':
        path = after_authority(start, end)
    stop = <const char*>memchr(path, c'?', end - path)
    if stop == NULL:
        stop = end
        query.at = end
    else:
        query.at = stop + 1
    query.length = end - query.at
    route = _route_of(path, stop - path)
    if route == Route.NOT_FOUND:  # perhaps it is written in another way
        if is_path(target, Slice(b"/pixel/v1/track", 15)):
            return Route.TRACK
        if is_path(target, Slice(b"/pixel/v1/page", 14)):
            return Route.PAGE
        if is_path(target, Slice(b"/robots.txt", 11)):
            return Route.ROBOTS
    return route


cdef inline Route _route_of(const char* path, Py_ssize_t length) noexcept nogil:
    if length == 15 and memcmp(path, b"/pixel/v1/track", 15) == 0:
        return Route.TRACK
    if length == 14 and memcmp(path, b"/pixel/v1/page", 14) == 0:
        return Route.PAGE
    if length == 11 and memcmp(path, b"/robots.txt", 11) == 0:
        return Route.ROBOTS
    return Route.NOT_FOUND
