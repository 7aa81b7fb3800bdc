# The valid values of a Host header, for the scan and the reader.

from libc.string cimport memchr, memcpy

from pixelfast.event.slices cimport Slice

cdef extern from "<arpa/inet.h>" nogil:
    enum: AF_INET6, INET6_ADDRSTRLEN
    int inet_pton(int family, const char* text, void* address)

cdef extern from *:
    """
    static const unsigned char IS_HOST_NAME[256] = {
        ['-'] = 1, ['_'] = 1, ['0' ... '9'] = 1, ['A' ... 'Z'] = 1, ['a' ... 'z'] = 1,
    };
    """
    const unsigned char[256] IS_HOST_NAME


cdef inline bint is_host(Slice value) noexcept nogil:
    # Return whether `value` is empty, a host name, an IPv4 address or an IPv6 address in brackets,
    # with an optional port (RFC 9110 section 7.2). Underscores are allowed because names of
    # containers often have them; other characters that RFC 3986 allows do not occur in DNS.
    cdef:
        const char* at = value.at
        const char* end = at + value.length
        const char* stop
        Py_ssize_t label_bytes = 0
    while at < end and (at[0] == c' ' or at[0] == c'\t'):
        at += 1
    while end > at and ((end - 1)[0] == c' ' or (end - 1)[0] == c'\t'):
        end -= 1
    if at < end and at[0] == c'[':
        stop = <const char*>memchr(at, c']', end - at)
        if stop == NULL or not is_ipv6(at + 1, stop - at - 1):
            return False
        at = stop + 1
    else:
        while at < end and at[0] != c':':
            if IS_HOST_NAME[<unsigned char>at[0]]:
                label_bytes += 1
            elif at[0] == c'.' and label_bytes > 0:
                label_bytes = 0
            else:
                return False
            at += 1
    if at < end and at[0] != c':':
        return False
    while at + 1 < end:
        at += 1
        if not c'0' <= at[0] <= c'9':
            return False
    return True


cdef inline bint is_ipv6(const char* string, Py_ssize_t length) noexcept nogil:
    cdef char plain[INET6_ADDRSTRLEN]
    cdef unsigned char address[16]
    if length >= INET6_ADDRSTRLEN or memchr(string, 0, length) != NULL:
        return False
    memcpy(plain, string, length)
    plain[length] = 0
    return inet_pton(AF_INET6, plain, address) == 1
