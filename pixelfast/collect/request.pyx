"""One request as it comes in: what is wanted of it, within its bounds.

httptools hands over pieces and has no limits of its own (it took a target of 200,000 bytes), so
everything is counted here.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from pixelfast.event.query cimport Slice

import re

from httptools import HttpParserInvalidMethodError

from pixelfast.errors import RequestError

__all__ = ["Request"]

# RFC 9110 sections 5.6.2 and 9.1: a method is a token, and a space follows it.
cdef object _METHOD = re.compile(rb"[\r\n]*[!#$%&'*+.^_`|~0-9A-Za-z-]+(?: |\Z)")
cdef object _REST_OF_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]*(?: |\Z)")


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
        if self._target is not None:
            self._target = None
            self._kept.clear()
        self.is_in_head = True
        self.says_keep_alive = self.expects_continue = self.has_host = False
        self.header_bytes = self.body_bytes = 0
        self.header_count = 0
        return 0

    cdef int add_target(self, bytes piece) except -1:
        self._target = piece if self._target is None else self._target + piece
        self.target = Slice(PyBytes_AS_STRING(self._target), PyBytes_GET_SIZE(self._target))
        if self.target.length > MAX_TARGET_BYTES:
            raise RequestError(
                414, "target-too-long", f"request target is over {MAX_TARGET_BYTES:,} bytes"
            )
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
                if self.forwarded_for.at != NULL:
                    value = copy_of(self.forwarded_for) + b"," + value
                self.forwarded_for = self._keep(value)
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
        return 0

    cdef Slice _keep(self, bytes value):
        self._kept.append(value)
        return Slice(PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))

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


cdef bint is_unknown_method(object error, bytes chunk, bint is_started):
    # Whether what the parser takes for no method may be one that it does not know. Of a request
    # that has started before, only letters of methods that it knows have been taken.
    if not isinstance(error, HttpParserInvalidMethodError):
        return False
    return (_REST_OF_METHOD if is_started else _METHOD).match(chunk) is not None
