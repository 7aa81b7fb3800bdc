from libc.stdint cimport uint64_t

from pixelfast.event.slices cimport Slice

cdef struct Network:
    uint64_t high, low              # the network's address, as 128 bits
    uint64_t high_mask, low_mask

cdef class TrustedProxies:
    cdef Network* _networks
    cdef Py_ssize_t _count
    cdef readonly bint trusts_unix      # peers of Unix sockets are trusted

    cpdef bint trusts(self, str address)
    cdef bint trusts_peer(self, object peername) except -1
    cdef str client_of(self, str peer, Slice forwarded_for, Slice real_ip)
    cdef bint _trusts(self, uint64_t high, uint64_t low) noexcept

cdef str address_of(object peername)


cdef inline bint is_empty_list(Slice value) noexcept nogil:
    # Return whether a list has only empty elements (RFC 9110 section 5.6.1.2).
    cdef Py_ssize_t i
    for i in range(value.length):
        if value.at[i] != c',' and value.at[i] != c' ' and value.at[i] != c'\t':
            return False
    return True
