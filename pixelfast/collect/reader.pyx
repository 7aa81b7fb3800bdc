"""Read requests from bytes, however TCP splits them.

`scan` handles plain GET requests; the reader parses all others with httptools. These rules hold,
each with a test:

1.  A head is parsed in one piece once it is complete, and the parser never sees bytes beyond the
    end of a body. The parser reports errors as bytes arrive, so if it got a head in pieces, the
    order of its errors and those of this module would depend on the pieces.
2.  A head is checked in a fixed order. `_head_error` comes first and works on incomplete heads: a
    method that is not a token (400), an unknown method (405), a target that is too long (414), a
    request line that is not `METHOD target HTTP/1.0` or `HTTP/1.1` (400), a head that is too large
    (431). More bytes never change an error once it is found. The parser comes second. It rejects
    bytes from 0x80 on in a target, so it gets `_` in their place.
3.  httptools has no limits, so this module counts headers and bodies. It passes only the end of a
    chunked body to the parser.
4.  The parser raises an exception of a callback as HttpParserCallbackError, a subclass of the
    class for errors of the client. It must be caught first, and becomes a 500 unless its cause is a
    RequestError.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memchr, memcmp

from pixelfast.collect.chunks cimport ChunkState, no_chunks, skip_chunks
from pixelfast.collect.headers cimport IS_TOKEN, Header
from pixelfast.collect.host cimport is_host
from pixelfast.collect.limits cimport (
    MAX_BODY_BYTES,
    MAX_HEAD_BYTES,
    MAX_HEADER_BYTES,
    MAX_HEADERS,
)
from pixelfast.collect.proxies cimport is_empty_list
from pixelfast.collect.scan cimport scan_plain_get
from pixelfast.event.limits cimport MAX_TARGET_BYTES
from pixelfast.event.slices cimport Slice

from httptools import (
    HttpParserCallbackError,
    HttpParserError,
    HttpParserInvalidMethodError,
    HttpParserUpgrade,
    HttpRequestParser,
)

from pixelfast.errors import RequestError

__all__ = ["Reader", "Request", "scan"]

cdef struct RequestLine:
    # The request line, as far as it has arrived.
    Slice method                # empty until the space after it has arrived
    Slice target                # as far as it has arrived
    bint is_malformed           # after the method

cdef enum:
    MAX_METHOD_BYTES = 32       # longer than any method that the parser knows

# Replaces bytes from 0x80 on, which the parser rejects in a target.
cdef bytes _ASCII_ONLY = bytes(range(128)) + b"_" * 128


cdef class Request:
    # The parts of a request that the collector needs. The methods enforce the limits, because the
    # parser has none (it accepts a target of 200,000 bytes).

    def __cinit__(
        self, str peer="", bint is_proxied=False, bytes message_id_header not None=b""
    ):
        self.peer = peer
        self.is_proxied = is_proxied
        self._message_id_header = message_id_header
        self.message_id_name = slice_of(message_id_header)
        self._kept = []
        self.reset()

    cdef int reset(self) except -1:
        cdef Slice nothing = Slice(NULL, 0)
        self.target = nothing
        self.user_agent = self.origin = self.referer = self.languages = nothing
        self.forwarded_for = self.real_ip = self.message_id = nothing
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
        cdef Py_ssize_t length = len(name)
        cdef Header header
        cdef Slice* place
        if not self.is_in_head:
            return 0  # trailers must not set the client's address
        self.header_count += 1
        self.header_bytes += length + len(value) + 4  # ": " and CRLF
        if self.header_count > MAX_HEADERS:
            raise RequestError(
                431, "too-many-headers", f"the request has more than {MAX_HEADERS} headers"
            )
        if self.header_bytes > MAX_HEADER_BYTES:
            raise RequestError(
                431, "headers-too-large", f"the headers have more than {MAX_HEADER_BYTES:,} bytes"
            )
        header = header_in(self, PyBytes_AS_STRING(name), length)
        place = place_of(self, header)
        if place != NULL:
            if header == Header.X_FORWARDED_FOR:
                # Not in `_kept`, where each joined value would stay, with quadratic memory.
                if self._forwarded is not None:
                    value = self._forwarded + b"," + value
                self._forwarded = value
                place[0] = slice_of(value)
            elif (
                is_empty_list(place[0])  # a blank value does not hide another
                or header == Header.ORIGIN
                or (
                    (header == Header.X_REAL_IP or header == Header.MESSAGE_ID)
                    and not is_empty_list(slice_of(value))
                )
            ):
                place[0] = self._keep(value)
        elif header == Header.HOST:
            if self.has_host:
                raise RequestError(400, "malformed-request", "Host is duplicated")
            if not is_host(slice_of(value)):
                raise RequestError(
                    400, "malformed-request", "Host is not a valid host name or IP address"
                )
            self.has_host = True
        elif header == Header.CONNECTION:
            self.says_keep_alive = value.lower() == b"keep-alive"
        elif header == Header.EXPECT:
            self.expects_continue = value.lower() == b"100-continue"
        elif header == Header.CONTENT_LENGTH:
            self.content_length = _length_of(value)
        elif header == Header.TRANSFER_ENCODING:
            self.has_transfer_coding = True
        return 0

    cdef Slice _keep(self, bytes value):
        self._kept.append(value)
        return slice_of(value)

    cdef Py_ssize_t held_bytes(self) noexcept:
        # Return the size of the head and of the headers copied from it.
        cdef Py_ssize_t held = 0 if self.head is None else PyBytes_GET_SIZE(self.head)
        if self._forwarded is not None:
            held += PyBytes_GET_SIZE(self._forwarded)
        for value in self._kept:
            held += PyBytes_GET_SIZE(<bytes>value)
        return held

    cdef int add_body(self, bytes piece) except -1:
        self.body_bytes += len(piece)
        if self.body_bytes > MAX_BODY_BYTES:
            raise RequestError(
                413, "body-too-large", f"the body has more than {MAX_BODY_BYTES:,} bytes"
            )
        return 0


cdef class Reader:

    def __cinit__(self, str peer, bint is_proxied, bytes message_id_header, log):
        self.request = Request(peer, is_proxied, message_id_header)
        self._log = log

    # --- called by a connection --------------------------------------------------------------

    cdef Py_ssize_t read(self, bytes data, Py_ssize_t start) except -1:
        # Read on and return the number of bytes consumed; `reading` tells the progress. 0 means
        # that the head is incomplete: call again with the same bytes and more.
        cdef:
            const char* at = PyBytes_AS_STRING(data) + start
            Py_ssize_t length = PyBytes_GET_SIZE(data) - start, end
            RequestLine line
        if self.reading == Reading.IN_BODY:
            return self._read_body(data, start)
        if at[0] == c'\r' or at[0] == c'\n':
            return self._read_blank(at, length)
        end = _head_end(at, length, self._searched_bytes)
        line = _request_line(at, length)
        error = _head_error(line, at, end or length)
        if error is not None:
            self.fail(error, data[start:])
            return length
        self._searched_bytes = 0 if end else length
        if end:
            self._read_head(data[start : start + end])
        return end

    cdef bint has_part(self) noexcept:
        # Return whether part of a request has arrived.
        return self._searched_bytes > 0 or self.reading == Reading.IN_BODY

    cdef bint has_head(self, bytes data, Py_ssize_t start) noexcept:
        # Return whether `data` completes the head.
        return self.reading == Reading.IN_HEAD and _head_end(
            PyBytes_AS_STRING(data) + start, PyBytes_GET_SIZE(data) - start, self._searched_bytes
        ) > 0

    cdef Py_ssize_t held_bytes(self) noexcept:
        # Return the memory of a request whose body is incomplete.
        return self.request.held_bytes() if self.reading == Reading.IN_BODY else 0

    cdef int next(self) except -1:
        # Prepare for the next request, after the reader or the scan has read one.
        self.request.reset()
        self.reading = Reading.IN_HEAD
        self._blank_bytes = self._searched_bytes = 0
        return 0

    cdef int fail(self, object error, bytes start) except -1:
        # Fail with an error. `start` is the head as far as it has arrived, for its method and
        # target.
        cdef RequestLine line = _request_line(PyBytes_AS_STRING(start), PyBytes_GET_SIZE(start))
        self.request.head = start
        self.request.target = line.target
        self.method = _method_of(line.method)
        self.error = error
        self.reading = Reading.FAILED
        return 0

    cdef int close(self) except -1:
        # Break the reference cycle: the parser holds methods of its reader.
        self._parser = self._feed = None
        return 0

    # --- head and body -----------------------------------------------------------------------

    cdef Py_ssize_t _read_blank(self, const char* at, Py_ssize_t length) except -1:
        # Skip line ends before a request (RFC 9112 section 2.2).
        cdef Py_ssize_t taken = 0
        while taken < length and (at[taken] == c'\r' or at[taken] == c'\n'):
            taken += 1
        self._blank_bytes += taken
        if self._blank_bytes > MAX_HEAD_BYTES:
            self.fail(RequestError(431, "headers-too-large"), b"")
        return taken

    cdef int _read_head(self, bytes head) except -1:
        cdef RequestLine line = _request_line(PyBytes_AS_STRING(head), PyBytes_GET_SIZE(head))
        if self._parser is None:
            self._parser = HttpRequestParser(self)
            self._feed = self._parser.feed_data
        self.request.head = head
        self.request.target = line.target
        self.method = _method_of(line.method)
        self.reading = Reading.IN_BODY
        self._chunks = no_chunks()
        self._parse(_with_ascii_target(head, line.target))
        if self.reading == Reading.IN_BODY and self.request.is_in_head:
            # The parser finds no end of the head in PRI, the preface of HTTP/2.
            self.fail(RequestError(400, "malformed-request"), head)
        return 0

    cdef Py_ssize_t _read_body(self, bytes data, Py_ssize_t start) except -1:
        cdef const char* at = PyBytes_AS_STRING(data) + start
        cdef Py_ssize_t length = PyBytes_GET_SIZE(data) - start
        if self.request.content_length < 0:
            return self._read_chunks(at, length)
        length = min(length, self.request.content_length - self.request.body_bytes)
        self._parse(data[start : start + length])
        return length

    cdef Py_ssize_t _read_chunks(self, const char* at, Py_ssize_t length) except -1:
        length = skip_chunks(&self._chunks, at, length)
        if self._chunks.state == ChunkState.WHOLE:
            self._parse(b"0\r\n\r\n")  # the parser only needs to see the end
        elif self._chunks.state == ChunkState.MALFORMED:
            self.fail(RequestError(400, "malformed-request"), self.request.head)
        elif self._chunks.state == ChunkState.TOO_LARGE:
            self.fail(RequestError(413, "body-too-large"), self.request.head)
        return length

    cdef int _parse(self, bytes data) except -1:
        try:
            self._feed(data)
        except HttpParserCallbackError as error:
            self.fail(as_request_error(error.__context__ or error, self._log), self.request.head)
        except HttpParserUpgrade:
            pass  # the request is complete
        except HttpParserError:
            self.fail(RequestError(400, "malformed-request"), self.request.head)
        return 0

    # --- called by the parser ----------------------------------------------------------------

    def on_header(self, bytes name, bytes value):
        self.request.add_header(name, value)

    def on_headers_complete(self):
        cdef Request request = self.request
        request.is_in_head = False
        if not request.has_host and self._is_1_1():
            raise RequestError(400, "malformed-request", "Host is missing")
        self.owes_continue = request.expects_continue and self._is_1_1()

    def on_body(self, bytes body):
        self.request.add_body(body)

    def on_message_complete(self):
        self.is_upgrade = self._parser.should_upgrade()
        # Before HTTP/1.1 chunked framing may be faulty, so a connection must close after it (RFC
        # 9112 section 6.1).
        self.keeps_alive = self._parser.should_keep_alive() and (
            not self.request.has_transfer_coding or self._is_1_1()
        )
        self.reading = Reading.DONE

    cdef bint _is_1_1(self) except -1:
        return self._parser.get_http_version() == "1.1"


cdef Slice slice_of(bytes value) noexcept:
    return Slice(PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))


cdef bytes copy_of(Slice string):
    return None if string.at == NULL else PyBytes_FromStringAndSize(string.at, string.length)


cdef object as_request_error(object error, object log):
    # Return the RequestError to respond with. Any other exception is a bug and is logged.
    if isinstance(error, RequestError):
        return error
    log.error("request_failed", exc_info=error)
    return RequestError(500, "internal-error")


cdef RequestLine _request_line(const char* start, Py_ssize_t length) noexcept:
    # Return the request line of a head, as far as it has arrived.
    cdef RequestLine line
    cdef const char* at = start
    cdef const char* end = start + length
    line.method = line.target = Slice(NULL, 0)
    line.is_malformed = False
    while at < end and IS_TOKEN[<unsigned char>at[0]]:
        at += 1
    if at == end or at == start or at[0] != c' ':
        return line
    line.method = Slice(start, at - start)
    at += 1
    length = end - at
    length = _before(c' ', at, _before(c'\r', at, _before(c'\n', at, length)))
    line.target = Slice(at, length)
    at += length
    line.is_malformed = at < end and (length == 0 or not _may_be_version(at, end - at))
    return line


cdef bint _may_be_version(const char* at, Py_ssize_t length) noexcept:
    # Return whether the bytes after a target are a valid version, as far as they have arrived (RFC
    # 9112 section 3; the parser accepts more).
    cdef const char* form = b" HTTP/1.1\r\n"
    cdef Py_ssize_t i
    for i in range(min(length, 11)):
        if at[i] != form[i] and not (i == 8 and at[i] == c'0'):
            return False
    return True


cdef bytes _with_ascii_target(bytes head, Slice target):
    # Return the head with an ASCII-only target for the parser.
    cdef Py_ssize_t start = target.at - PyBytes_AS_STRING(head), i
    cdef unsigned char bits = 0
    for i in range(target.length):  # no branch, so that the compiler can vectorize it
        bits |= <unsigned char>target.at[i]
    if bits < 0x80:
        return head
    return head[:start] + copy_of(target).translate(_ASCII_ONLY) + head[start + target.length :]


cdef object _head_error(RequestLine line, const char* start, Py_ssize_t length):
    # Return the RequestError of a head or of its first bytes, or None if there is no error so far.
    if line.method.length == 0:
        if not _may_be_method(start, min(length, MAX_METHOD_BYTES)):
            return RequestError(400, "malformed-request", "the method is not a token")
        if length > MAX_METHOD_BYTES:
            return RequestError(405, "method-not-allowed")
    elif not _is_known_method(line.method):
        return RequestError(405, "method-not-allowed")
    if line.target.length > MAX_TARGET_BYTES:
        return RequestError(
            414, "target-too-long", f"the request target has more than {MAX_TARGET_BYTES:,} bytes"
        )
    if line.is_malformed:
        return RequestError(
            400, "malformed-request", "the request line is not METHOD target HTTP/1.0 or HTTP/1.1"
        )
    if length > MAX_HEAD_BYTES:
        return RequestError(
            431, "headers-too-large", f"the head has more than {MAX_HEAD_BYTES:,} bytes"
        )
    return None


cdef Py_ssize_t _head_end(const char* start, Py_ssize_t length, Py_ssize_t searched) noexcept:
    # Return the length of the head with its empty line, or 0 if it is incomplete. A bare LF ends a
    # line here, so that the parser can reject it immediately. `searched` bytes were searched
    # before.
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


cdef Method _method_of(Slice name) noexcept:
    if name.length == 3 and memcmp(name.at, b"GET", 3) == 0:
        return Method.GET
    if name.length == 4 and memcmp(name.at, b"POST", 4) == 0:
        return Method.POST
    if name.length == 4 and memcmp(name.at, b"HEAD", 4) == 0:
        return Method.HEAD
    if name.length == 7 and memcmp(name.at, b"OPTIONS", 7) == 0:
        return Method.OPTIONS
    return Method.OTHER


cdef bint _may_be_method(const char* start, Py_ssize_t length) noexcept:
    cdef Py_ssize_t i
    for i in range(length):
        if not IS_TOKEN[<unsigned char>start[i]]:
            return False
    return True


cdef bint _is_known_method(Slice method) except -1:
    if _method_of(method) != Method.OTHER:
        return True
    try:
        HttpRequestParser(None).feed_data(copy_of(method) + b" ")  # it knows more methods
    except HttpParserInvalidMethodError:
        return False
    return True


cdef Py_ssize_t _length_of(bytes value) except -2:
    # The parser rejects values that are not 64-bit numbers, so this only limits the digits.
    cdef bytes digits = value.strip().lstrip(b"0") or b"0"
    return min(int(digits[:20]), MAX_BODY_BYTES + 1) if digits.isdigit() else -1


def scan(bytes data not None, bytes message_id_header not None=b""):
    cdef Request request = Request("", True, message_id_header)
    cdef Py_ssize_t length = scan_plain_get(
        PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), request
    )
    if length == 0:
        return None
    kept = {
        "target": copy_of(request.target),
        "user-agent": copy_of(request.user_agent),
        "origin": copy_of(request.origin),
        "referer": copy_of(request.referer),
        "accept-language": copy_of(request.languages),
        "x-forwarded-for": copy_of(request.forwarded_for),
        "x-real-ip": copy_of(request.real_ip),
        "message-id": copy_of(request.message_id),
    }
    return length, {name: value for name, value in kept.items() if value is not None}
