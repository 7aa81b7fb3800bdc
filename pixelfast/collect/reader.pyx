"""One request after the other, as httptools parses them, wherever TCP cuts.

The rules it keeps, each with its test:

1.  A head is parsed once it is whole, in one piece, and a body is never fed beyond its end. The
    parser reports spans as they come, so with a head in pieces its errors and ours would be met in
    an order that depends on the pieces.
2.  A head is checked in a fixed order. First `head_error`, on what is there of it: a method that is
    not a token (400), an unknown method (405), a target that is too long (414), a head that is too
    large (431); more bytes never change the result once there is one. Then the parser.
3.  httptools has no limits: headers and a body are counted here. What a body in chunks holds never
    reaches it.
4.  What we raise inside a callback comes back as HttpParserCallbackError, a subclass of the class
    that means a client's fault. It is told apart first: 500 if it was our own.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from pixelfast.collect.chunks cimport ChunkState, no_chunks, skip_chunks
from pixelfast.collect.request cimport (
    MAX_HEAD_BYTES,
    Request,
    RequestLine,
    excuse,
    head_end,
    head_error,
    method_of,
    request_line,
)

from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpRequestParser

from pixelfast.errors import RequestError

__all__ = ["Reader"]


cdef class Reader:

    def __cinit__(self, str peer, bint is_proxied, log):
        self.request = Request(peer, is_proxied)
        self._log = log

    # --- what a connection calls -------------------------------------------------------------

    cdef Py_ssize_t read(self, bytes data, Py_ssize_t start) except -1:
        # Read on, `reading` says how far it got. Returns the bytes that are read; 0 where all of
        # them are part of a head, and are to come again with more.
        cdef:
            const char* at = PyBytes_AS_STRING(data) + start
            Py_ssize_t length = PyBytes_GET_SIZE(data) - start, end
            RequestLine line
        if self.reading == Reading.IN_BODY:
            return self._read_body(data, start)
        if at[0] == c'\r' or at[0] == c'\n':
            return self._read_blank(at, length)
        end = head_end(at, length, self._searched_bytes)
        line = request_line(at, length)
        error = head_error(line, at, end or length)
        if error is not None:
            self.fail(error, data[start:])
            return length
        self._searched_bytes = 0 if end else length
        if end:
            self._read_head(data[start : start + end])
        return end

    cdef bint has_part(self) noexcept:
        # Whether there is a part of a request.
        return self._searched_bytes > 0 or self.reading == Reading.IN_BODY

    cdef bint has_head(self, bytes data, Py_ssize_t start) noexcept:
        # Whether what is there of a head is all of it with `data`.
        return self.reading == Reading.IN_HEAD and head_end(
            PyBytes_AS_STRING(data) + start, PyBytes_GET_SIZE(data) - start, self._searched_bytes
        ) > 0

    cdef Py_ssize_t held_bytes(self) noexcept:
        # Of a request whose body is under way.
        return self.request.held_bytes() if self.reading == Reading.IN_BODY else 0

    cdef int next(self) except -1:
        # Forget the request that is done, here or elsewhere.
        self.request.reset()
        self.reading = Reading.IN_HEAD
        self._blank_bytes = self._searched_bytes = 0
        return 0

    cdef int fail(self, object error, bytes start) except -1:
        # `start`: what is there of the head. Its line says what may be known of the request.
        cdef RequestLine line = request_line(PyBytes_AS_STRING(start), PyBytes_GET_SIZE(start))
        self.request.head = start
        self.request.target = line.target
        self.method = method_of(line.method)
        self.error = error
        self.reading = Reading.FAILED
        return 0

    cdef int close(self) except -1:
        # The parser holds methods of its reader: each would keep the other alive.
        self._parser = self._feed = None
        return 0

    # --- head and body -----------------------------------------------------------------------

    cdef Py_ssize_t _read_blank(self, const char* at, Py_ssize_t length) except -1:
        # RFC 9112 section 2.2: line ends before a request are ignored.
        cdef Py_ssize_t taken = 0
        while taken < length and (at[taken] == c'\r' or at[taken] == c'\n'):
            taken += 1
        self._blank_bytes += taken
        if self._blank_bytes > MAX_HEAD_BYTES:
            self.fail(RequestError(431, "headers-too-large"), b"")
        return taken

    cdef int _read_head(self, bytes head) except -1:
        cdef RequestLine line = request_line(PyBytes_AS_STRING(head), PyBytes_GET_SIZE(head))
        if self._parser is None:
            self._parser = HttpRequestParser(self)
            self._feed = self._parser.feed_data
        self.request.head = head
        self.request.target = line.target
        self.method = method_of(line.method)
        self.reading = Reading.IN_BODY
        self._chunks = no_chunks()
        self._parse(head)
        if self.reading == Reading.IN_BODY and self.request.is_in_head:
            # PRI, of HTTP/2: the parser sees no end of the head there.
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
            self._parse(b"0\r\n\r\n")  # that is all it needs to know
        elif self._chunks.state == ChunkState.MALFORMED:
            self.fail(RequestError(400, "malformed-request"), self.request.head)
        elif self._chunks.state == ChunkState.TOO_LARGE:
            self.fail(RequestError(413, "body-too-large"), self.request.head)
        return length

    cdef int _parse(self, bytes data) except -1:
        try:
            self._feed(data)
        except HttpParserCallbackError as error:
            self.fail(excuse(error.__context__ or error, self._log), self.request.head)
        except HttpParserUpgrade:
            pass  # read to its end
        except HttpParserError:
            self.fail(RequestError(400, "malformed-request"), self.request.head)
        return 0

    # --- what the parser calls ---------------------------------------------------------------

    def on_header(self, bytes name, bytes value):
        self.request.add_header(name, value)

    def on_headers_complete(self):
        cdef Request request = self.request
        request.is_in_head = False
        if not request.has_host and self._is_1_1():
            raise RequestError(400, "malformed-request", "no Host header")
        self.owes_continue = request.expects_continue and self._is_1_1()

    def on_body(self, bytes body):
        self.request.add_body(body)

    def on_message_complete(self):
        self.is_upgrade = self._parser.should_upgrade()
        # RFC 9112 section 6.1: before HTTP/1.1 the framing of chunks may be faulty, so that nothing
        # after them is a request.
        self.keeps_alive = self._parser.should_keep_alive() and (
            not self.request.has_transfer_coding or self._is_1_1()
        )
        self.reading = Reading.DONE

    cdef bint _is_1_1(self) except -1:
        return self._parser.get_http_version() == "1.1"
