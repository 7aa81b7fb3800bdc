from pixelfast.event.query cimport Slice

cdef enum:
    MAX_TARGET_BYTES = 32768    # as RudderStack's gateway; nginx's default is 8 KB
    MAX_HEADER_BYTES = 32768
    MAX_HEADERS = 100
    MAX_HEAD_BYTES = 66560      # target, headers, and 1 KB for the rest of the request line
    MAX_BODY_BYTES = 65536

cdef enum Method:
    GET
    POST
    HEAD
    OPTIONS
    OTHER

cdef class Request:
    # of the connection
    cdef str peer                       # "" for a Unix socket
    cdef bint is_proxied                # the peer is a trusted proxy
    # of one request: NULL where it was not sent
    cdef Slice target
    cdef Slice user_agent, origin, forwarded_for, real_ip, referer, languages
    cdef bytes head                     # that the target points into
    cdef bytes _forwarded               # that `forwarded_for` points into
    cdef list _kept                     # bytes that the headers point into
    cdef bint is_in_head
    cdef bint says_keep_alive
    cdef bint expects_continue
    cdef bint has_host
    cdef bint has_transfer_coding
    cdef Py_ssize_t header_bytes, body_bytes
    cdef Py_ssize_t content_length      # -1 where it was not sent
    cdef int header_count

    cdef int reset(self) except -1
    cdef int add_header(self, bytes name, bytes value) except -1
    cdef Slice _keep(self, bytes value)
    cdef Py_ssize_t held_bytes(self) noexcept
    cdef int add_body(self, bytes piece) except -1

cdef bytes copy_of(Slice text)
cdef Method method_of(Slice name) noexcept
cdef bint is_token(unsigned char c) noexcept
cdef object excuse(object error, object log)

# What the first bytes of a request say before all of its head is here.
cdef struct RequestLine:
    Slice method                # up to its space; empty before that is here
    Slice target                # what there is of it

cdef RequestLine request_line(const char* start, Py_ssize_t length) noexcept
cdef object head_error(RequestLine line, const char* start, Py_ssize_t length)
cdef Py_ssize_t head_end(const char* start, Py_ssize_t length, Py_ssize_t searched) noexcept
