from pixelfast.collect.chunks cimport Chunks
from posix.strings cimport strncasecmp

from pixelfast.collect.headers cimport Header, header_of
from pixelfast.event.slices cimport Slice

cdef enum Method:
    GET
    POST
    HEAD
    OPTIONS
    OTHER

cdef class Request:
    # fields of the connection
    cdef str peer                       # "" for a Unix socket
    cdef bint is_proxied                # the peer is a trusted proxy
    cdef Slice message_id_name          # name of the message id header; empty if not configured
    cdef bytes _message_id_header       # `message_id_name` points into it
    # fields of one request; a slice is NULL if it was not sent
    cdef Slice target
    cdef Slice user_agent, origin, forwarded_for, real_ip, message_id, referer, languages
    cdef bytes head                     # `target` points into it
    cdef bytes _forwarded               # `forwarded_for` points into it
    cdef list _kept                     # the other headers point into these bytes
    cdef bint is_in_head
    cdef bint says_keep_alive
    cdef bint expects_continue
    cdef bint has_host
    cdef bint has_transfer_coding
    cdef Py_ssize_t header_bytes, body_bytes
    cdef Py_ssize_t content_length      # -1 if it was not sent
    cdef int header_count

    cdef int reset(self) except -1
    cdef int add_header(self, bytes name, bytes value) except -1
    cdef Slice _keep(self, bytes value)
    cdef Py_ssize_t held_bytes(self) noexcept
    cdef int add_body(self, bytes piece) except -1

cdef inline Header header_in(Request request, const char* name, Py_ssize_t length) noexcept:
    # Return the header with this name.
    cdef Header header = header_of(name, length)
    if (
        header == Header.OTHER_HEADER
        and length == request.message_id_name.length
        and strncasecmp(name, request.message_id_name.at, length) == 0
    ):
        return Header.MESSAGE_ID
    return header

cdef inline Slice* place_of(Request request, Header header) noexcept:
    # Return the field for the value of a header, or NULL if it is not kept. Proxy headers are kept
    # only if the peer is a trusted proxy.
    if header == Header.USER_AGENT:
        return &request.user_agent
    if header == Header.ACCEPT_LANGUAGE:
        return &request.languages
    if header == Header.REFERER:
        return &request.referer
    if header == Header.ORIGIN:
        return &request.origin
    if header == Header.X_FORWARDED_FOR and request.is_proxied:
        return &request.forwarded_for
    if header == Header.X_REAL_IP and request.is_proxied:
        return &request.real_ip
    if header == Header.MESSAGE_ID and request.is_proxied:
        return &request.message_id
    return NULL

cdef enum Reading:
    IN_HEAD     # before a request or in its head
    IN_BODY
    DONE        # `request` is complete
    FAILED      # see `error`; the next request cannot be found

cdef class Reader:
    cdef Request request
    cdef Reading reading
    cdef Method method                  # of the request that is DONE or FAILED
    cdef object error
    cdef bint owes_continue             # the client expects 100 before it sends the body
    cdef bint keeps_alive
    cdef bint is_upgrade                # the connection may switch to another protocol
    cdef object _parser, _feed          # None until a head is complete
    cdef object _log
    cdef Py_ssize_t _searched_bytes     # of the head, already searched for its end
    cdef Py_ssize_t _blank_bytes        # line ends before the request
    cdef Chunks _chunks                 # of the body

    cdef Py_ssize_t read(self, bytes data, Py_ssize_t start) except -1
    cdef bint has_part(self) noexcept
    cdef bint has_head(self, bytes data, Py_ssize_t start) noexcept
    cdef Py_ssize_t held_bytes(self) noexcept
    cdef int next(self) except -1
    cdef int fail(self, object error, bytes start) except -1
    cdef int close(self) except -1
    cdef Py_ssize_t _read_blank(self, const char* at, Py_ssize_t length) except -1
    cdef int _read_head(self, bytes head) except -1
    cdef Py_ssize_t _read_body(self, bytes data, Py_ssize_t start) except -1
    cdef Py_ssize_t _read_chunks(self, const char* at, Py_ssize_t length) except -1
    cdef int _parse(self, bytes data) except -1
    cdef bint _is_1_1(self) except -1

cdef bytes copy_of(Slice string)
cdef Slice slice_of(bytes value) noexcept
cdef object as_request_error(object error, object log)
