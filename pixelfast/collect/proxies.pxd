from libc.stdint cimport uint64_t

cdef struct Network:
    uint64_t high, low              # the network's address, as 128 bits
    uint64_t high_mask, low_mask

cdef class TrustedProxies:
    cdef Network* _networks
    cdef Py_ssize_t _count

    cpdef bint trusts(self, str address)
    cpdef str client_address(self, str peer, bytes forwarded_for, bytes real_ip)
    cdef bint _trusts(self, uint64_t high, uint64_t low) noexcept
