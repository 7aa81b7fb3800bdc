"""One request as it comes in: what is wanted of it, within its bounds.

The parser has no limits of its own (it took a target of 200,000 bytes), so everything is counted
here.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memchr, memcmp

from pixelfast.event.query cimport Slice

from httptools import HttpParserInvalidMethodError, HttpRequestParser

from pixelfast.errors import RequestError

__all__ = ["Request"]

cdef unsigned char[256] _IS_TOKEN   # RFC 9110 section 5.6.2
cdef int _c
for _c in range(256):
    _IS_TOKEN[_c] = 0x20 < _c < 0x7F and chr(_c) not in '"(),/:;<=>?@[\\]{}'


cdef class Request:

    def __cinit__(self, str peer="", bint is_proxied=False):
        self.peer = peer
        self.is_proxied = is_proxied
        self._kept = []
        self.reset()

    cdef int reset(self) except -1:
        cdef Slice nothing = Slice(NULL, 0)
        self.target = nothing
        self.user_agent = self.origin = self.referer = self.languages = nothing
        self.forwarded_for = self.real_ip = nothing
        if self.head is not None:
            self.head = self._forwarded = None
            self._kept.clear()
        self.is_in_head = True
        self.says_keep_alive = self.expects_continue = False
        self.has_host = self.has_transfer_coding = False
        self.header_bytes = self.body_bytes = 0
        self.content_length = -1
        self.header_count = 0
        return 0

    cdef int add_header(self, bytes name, bytes value) except -1:
        # Names are compared by length first: most headers are none of these.
        cdef Py_ssize_t length = len(name)
        if not self.is_in_head:
            return 0  # a trailer: it comes too late to say who sent the request
        self.header_count += 1
        self.header_bytes += length + len(value) + 4  # ": " and CRLF
        if self.header_count > MAX_HEADERS:
            raise RequestError(431, "too-many-headers", f"more than {MAX_HEADERS} headers")
        if self.header_bytes > MAX_HEADER_BYTES:
            raise RequestError(
                431, "headers-too-large", f"headers are over {MAX_HEADER_BYTES:,} bytes"
            )
        if length == 10:
            if self.user_agent.at == NULL and name.lower() == b"user-agent":
                self.user_agent = self._keep(value)
            elif name.lower() == b"connection":
                self.says_keep_alive = value.lower() == b"keep-alive"
        elif length == 15:
            if self.is_proxied and name.lower() == b"x-forwarded-for":
                # Not kept with the others: each header would add all before it once more.
                if self._forwarded is not None:
                    value = self._forwarded + b"," + value
                self._forwarded = value
                self.forwarded_for = Slice(PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
            elif self.languages.at == NULL and name.lower() == b"accept-language":
                self.languages = self._keep(value)
        elif length == 9:
            if self.is_proxied and name.lower() == b"x-real-ip":
                self.real_ip = self._keep(value)
        elif length == 6:
            if name.lower() == b"origin":
                self.origin = self._keep(value)
            elif name.lower() == b"expect":
                self.expects_continue = value.lower() == b"100-continue"
        elif length == 7:
            if self.referer.at == NULL and name.lower() == b"referer":
                self.referer = self._keep(value)
        elif length == 4:
            if name.lower() == b"host":
                if self.has_host:
                    raise RequestError(400, "malformed-request", "more than one Host header")
                self.has_host = True
        elif length == 14:
            if name.lower() == b"content-length":
                self.content_length = _length_of(value)
        elif length == 17:
            if name.lower() == b"transfer-encoding":
                self.has_transfer_coding = True
        return 0

    cdef Slice _keep(self, bytes value):
        self._kept.append(value)
        return Slice(PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))

    cdef Py_ssize_t held_bytes(self) noexcept:
        # The head, and the headers that are kept beside it.
        cdef Py_ssize_t held = 0 if self.head is None else PyBytes_GET_SIZE(self.head)
        if self._forwarded is not None:
            held += PyBytes_GET_SIZE(self._forwarded)
        for value in self._kept:
            held += PyBytes_GET_SIZE(<bytes>value)
        return held

    cdef int add_body(self, bytes piece) except -1:
        self.body_bytes += len(piece)
        if self.body_bytes > MAX_BODY_BYTES:
            raise RequestError(413, "body-too-large", f"body is over {MAX_BODY_BYTES:,} bytes")
        return 0


cdef bytes copy_of(Slice text):
    return None if text.at == NULL else PyBytes_FromStringAndSize(text.at, text.length)


cdef object excuse(object error, object log):
    # What to answer where an error came up; a mistake of ours is logged.
    if isinstance(error, RequestError):
        return error
    log.error("request_failed", exc_info=error)
    return RequestError(500, "internal-error")


cdef RequestLine request_line(const char* start, Py_ssize_t length) noexcept:
    # The method and the target at the start of a head, as far as they are there.
    cdef RequestLine line
    cdef const char* at = start
    cdef const char* end = start + length
    line.method = line.target = Slice(NULL, 0)
    while at < end and _IS_TOKEN[<unsigned char>at[0]]:
        at += 1
    if at == end or at == start or at[0] != c' ':
        return line
    line.method = Slice(start, at - start)
    while at < end and at[0] == c' ':  # the parser accepts several
        at += 1
    length = end - at
    length = _before(c' ', at, _before(c'\r', at, _before(c'\n', at, length)))
    line.target = Slice(at, length)
    return line


cdef object head_error(RequestLine line, const char* start, Py_ssize_t length):
    # The RequestError of a head, or of its first bytes; None where there is nothing wrong so far.
    if line.method.length == 0:
        if not _may_be_method(start, length):
            return RequestError(400, "malformed-request", "the method is not a token")
    elif not _is_known_method(line.method):
        return RequestError(405, "method")
    if line.target.length > MAX_TARGET_BYTES:
        return RequestError(
            414, "target-too-long", f"request target is over {MAX_TARGET_BYTES:,} bytes"
        )
    if length > MAX_HEAD_BYTES:
        return RequestError(431, "headers-too-large", f"head is over {MAX_HEAD_BYTES:,} bytes")
    return None


cdef Py_ssize_t head_end(const char* start, Py_ssize_t length, Py_ssize_t searched) noexcept:
    # The length of the head with its empty line; 0 where that is not there. Lines that end with a
    # bare LF are found too, so that the parser can reject them at once. `searched`: bytes that are
    # known to hold no end.
    cdef const char* end = start + length
    cdef const char* at = start + max(searched - 2, 0)
    while True:
        at = <const char*>memchr(at, c'\n', end - at)
        if at == NULL:
            return 0
        at += 1
        if at < end and at[0] == c'\n':
            return at + 1 - start
        if end - at >= 2 and at[0] == c'\r' and at[1] == c'\n':
            return at + 2 - start


cdef inline Py_ssize_t _before(char stop, const char* at, Py_ssize_t length) noexcept:
    cdef const char* found = <const char*>memchr(at, stop, length)
    return length if found == NULL else found - at


cdef Method method_of(Slice name) noexcept:
    if name.length == 3 and memcmp(name.at, b"GET", 3) == 0:
        return Method.GET
    if name.length == 4 and memcmp(name.at, b"POST", 4) == 0:
        return Method.POST
    if name.length == 4 and memcmp(name.at, b"HEAD", 4) == 0:
        return Method.HEAD
    if name.length == 7 and memcmp(name.at, b"OPTIONS", 7) == 0:
        return Method.OPTIONS
    return Method.OTHER


cdef bint is_token(unsigned char c) noexcept:
    return _IS_TOKEN[c]


cdef bint _may_be_method(const char* start, Py_ssize_t length) noexcept:
    cdef Py_ssize_t i
    for i in range(length):
        if not _IS_TOKEN[<unsigned char>start[i]]:
            return False
    return True


cdef bint _is_known_method(Slice method) except -1:
    if method_of(method) != Method.OTHER:
        return True
    try:
        HttpRequestParser(None).feed_data(copy_of(method) + b" ")  # its list is longer
    except HttpParserInvalidMethodError:
        return False
    return True


cdef Py_ssize_t _length_of(bytes value) except -2:
    # The parser rejects what is not a number of 64 bits, so only an excess of digits is cut off.
    cdef bytes digits = value.strip().lstrip(b"0") or b"0"
    return min(int(digits[:20]), MAX_BODY_BYTES + 1) if digits.isdigit() else -1
