cdef class Request:
    # of the connection
    cdef str peer                       # "" for a Unix socket
    cdef bint is_proxied                # the peer is a trusted proxy
    # of one request
    cdef bytes target                   # None before its first byte
    cdef bytes user_agent, origin, forwarded_for, real_ip, referer, languages
    cdef bint is_in_head
    cdef bint says_keep_alive
    cdef bint expects_continue
    cdef bint has_host
    cdef Py_ssize_t header_bytes, body_bytes
    cdef int header_count

    cdef int reset(self) except -1
    cdef int add_target(self, bytes piece) except -1
    cdef int add_header(self, bytes name, bytes value) except -1
    cdef int add_body(self, bytes piece) except -1

cdef bint is_method(bytes chunk, bint is_started)
