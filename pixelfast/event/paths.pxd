# Compare the path of a target regardless of how it is written: percent-encoded unreserved
# characters are decoded (RFC 3986 section 6.2.2.2), and repeated slashes count as one.

from libc.string cimport memchr
from posix.strings cimport strncasecmp

from pixelfast.event.slices cimport Slice
from pixelfast.event.strings cimport HEX

cdef struct Path:
    # The unread rest of a path.
    const char* at
    const char* end
    bint is_behind_slash


cdef inline bint is_path(Slice target, Slice path) noexcept nogil:
    # Return whether the path of `target` is `path`. One slash or `.gif` at the end is ignored.
    cdef Path rest = path_of(target)
    cdef const char* ending = b".gif"
    cdef int c
    if not skip_start(&rest, path):
        return False
    c = next_character(&rest)
    if c == c'/':
        return next_character(&rest) < 0
    while c >= 0 and c == ending[0]:
        ending += 1
        c = next_character(&rest)
    return c < 0 and (ending[0] == c'.' or ending[0] == 0)


cdef inline bint is_below(Slice target, Slice folder) noexcept nogil:
    # Return whether the path of `target` begins with `folder`, which ends with a slash.
    cdef Path rest = path_of(target)
    return skip_start(&rest, folder)


cdef inline Path path_of(Slice target) noexcept nogil:
    # Return the path: the target up to a `?` or `#`, without scheme and authority.
    cdef:
        const char* at = target.at
        const char* end = at + target.length
        const char* stop
    stop = <const char*>memchr(at, c'#', end - at)
    if stop != NULL:
        end = stop
    if at < end and at[0] != c'/':
        at = after_authority(at, end)
    stop = <const char*>memchr(at, c'?', end - at)
    if stop != NULL:
        end = stop
    return Path(at, end, False)


cdef inline const char* after_authority(const char* start, const char* end) noexcept nogil:
    # Return the start of the path in absolute form, http://host/path?query (RFC 9112 section
    # 3.2.2), or `start` if the target has another form.
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


cdef inline bint skip_start(Path* rest, Slice start) noexcept nogil:
    # Skip `start`, or return False if the path does not begin with it.
    cdef Py_ssize_t i
    for i in range(start.length):
        if next_character(rest) != <unsigned char>start.at[i]:
            return False
    return True


cdef inline int next_character(Path* rest) noexcept nogil:
    # Return the next character, or -1 at the end.
    cdef int c, high, low
    while rest.at < rest.end:
        c = <unsigned char>rest.at[0]
        rest.at += 1
        if c == c'/':
            if rest.is_behind_slash:
                continue
            rest.is_behind_slash = True
            return c
        rest.is_behind_slash = False
        if c == c'%' and rest.end - rest.at >= 2:
            high = <int>HEX[<unsigned char>rest.at[0]] - 1
            low = <int>HEX[<unsigned char>rest.at[1]] - 1
            if high >= 0 and low >= 0 and is_unreserved(high << 4 | low):
                rest.at += 2
                return high << 4 | low
        return c
    return -1


cdef inline bint is_unreserved(int c) noexcept nogil:
    # RFC 3986 section 2.3
    return (
        c'a' <= (c | 0x20) <= c'z'
        or c'0' <= c <= c'9'
        or c == c'-'
        or c == c'.'
        or c == c'_'
        or c == c'~'
    )
