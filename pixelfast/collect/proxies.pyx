"""Find the address of a client behind trusted proxies: read X-Forwarded-For from the right.

Each proxy appends the address of its own client, so the client cannot forge the rightmost address
that does not belong to a trusted proxy.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeASCII
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memchr, memcpy, strlen

from pixelfast.event.slices cimport Slice

import ipaddress

cdef extern from "<arpa/inet.h>" nogil:
    enum: AF_INET, AF_INET6, INET6_ADDRSTRLEN
    int inet_pton(int family, const char* string, void* address)
    const char* inet_ntop(int family, const void* address, char* string, unsigned int size)

__all__ = ["TrustedProxies"]

cdef str UNIX = "unix:"  # in `networks`: trust the peers of Unix sockets
cdef uint64_t MAPPED = 0xFFFF00000000  # ::ffff:0:0/96, the IPv4-mapped IPv6 addresses


cdef bint _parse(
    const char* string, Py_ssize_t length, uint64_t* high, uint64_t* low, char* canonical
) noexcept:
    # Parse an address with an optional port: 192.0.2.1, 192.0.2.1:80, 2001:db8::1,
    # [2001:db8::1]:80. Write its canonical form to `canonical` (INET6_ADDRSTRLEN bytes).
    cdef:
        char plain[46]
        uint8_t raw[16]
        const char* stop
        int i
    if length and string[0] == c'[':
        stop = <const char*>memchr(string, c']', length)
        if stop == NULL:
            return False
        string, length = string + 1, stop - string - 1
    else:
        stop = <const char*>memchr(string, c':', length)
        if stop != NULL and memchr(stop + 1, c':', string + length - stop - 1) == NULL:
            length = stop - string
    if length == 0 or length >= 46:
        return False
    memcpy(plain, string, length)
    plain[length] = 0
    high[0] = low[0] = 0
    if inet_pton(AF_INET, plain, raw) == 1:
        low[0] = MAPPED | <uint64_t>raw[0] << 24 | raw[1] << 16 | raw[2] << 8 | raw[3]
        memcpy(canonical, plain, length + 1)
        return True
    if inet_pton(AF_INET6, plain, raw) != 1:
        return False
    for i in range(8):
        high[0] = high[0] << 8 | raw[i]
        low[0] = low[0] << 8 | raw[8 + i]
    if high[0] == 0 and low[0] >> 32 == 0xFFFF:
        return inet_ntop(AF_INET, raw + 12, canonical, INET6_ADDRSTRLEN) != NULL
    return inet_ntop(AF_INET6, raw, canonical, INET6_ADDRSTRLEN) != NULL


cdef Slice _trimmed(const char* start, const char* end) noexcept:
    # Remove white space and empty elements at both ends.
    while start < end and _is_padding(start[0]):
        start += 1
    while end > start and _is_padding((end - 1)[0]):
        end -= 1
    return Slice(start, end - start)


cdef Slice _last_item(const char* start, const char* end) noexcept:
    # Return the last element that is not empty, or an empty slice.
    cdef const char* at
    while end > start and _is_padding((end - 1)[0]):
        end -= 1
    at = end
    while at > start and (at - 1)[0] != c',':
        at -= 1
    return _trimmed(at, end)


cdef inline bint _is_padding(char c) noexcept:
    return c == c' ' or c == c'\t' or c == c','


cdef bint _is_tcp(object peername) noexcept:
    # Return whether a transport's peer uses TCP. The name of a Unix peer is a string; None means
    # that a TCP peer reset the connection before it was accepted.
    return isinstance(peername, tuple) and len(<tuple>peername) > 0


cdef str address_of(object peername):
    # Return the canonical address of a peer, or an empty string if it has none. Dual-stack sockets
    # report IPv4 peers as IPv4-mapped IPv6 addresses, which become IPv4.
    cdef:
        uint64_t high, low
        char canonical[46]
        Py_ssize_t length
        str address
        const char* string
    if not _is_tcp(peername):
        return ""
    address = (<tuple>peername)[0]
    string = PyUnicode_AsUTF8AndSize(address, &length)
    if not _parse(string, length, &high, &low, canonical):
        return address
    return PyUnicode_DecodeASCII(canonical, strlen(canonical), NULL)


cdef class TrustedProxies:

    def __cinit__(self, networks=()):
        cdef Py_ssize_t place
        networks = list(networks)
        self.trusts_unix = UNIX in networks
        parsed = [
            ipaddress.ip_network(each, strict=False) for each in networks if each != UNIX
        ]
        self._networks = <Network*>PyMem_Calloc(len(parsed) + 1, sizeof(Network))
        if self._networks == NULL:
            raise MemoryError()
        self._count = len(parsed)
        for place, network in enumerate(parsed):
            address = int(network.network_address)
            mask = int(network.netmask)
            if network.version == 4:
                address |= int(MAPPED)
                mask |= (2**96 - 1) << 32
            self._networks[place] = Network(
                address >> 64, address & (2**64 - 1), mask >> 64, mask & (2**64 - 1)
            )

    def __dealloc__(self):
        PyMem_Free(self._networks)

    cdef bint _trusts(self, uint64_t high, uint64_t low) noexcept:
        cdef Py_ssize_t place
        cdef Network* network
        for place in range(self._count):
            network = &self._networks[place]
            if high & network.high_mask == network.high and low & network.low_mask == network.low:
                return True
        return False

    cpdef bint trusts(self, str address):
        cdef:
            uint64_t high, low
            char canonical[46]
            Py_ssize_t length
            const char* string = PyUnicode_AsUTF8AndSize(address, &length)
        return _parse(string, length, &high, &low, canonical) and self._trusts(high, low)

    cdef bint trusts_peer(self, object peername) except -1:
        if _is_tcp(peername):
            return self.trusts((<tuple>peername)[0])
        return self.trusts_unix and peername is not None

    def client_address(self, str peer not None, bytes forwarded_for, bytes real_ip):
        cdef Slice first = Slice(NULL, 0), second = Slice(NULL, 0)
        if forwarded_for is not None:
            first = Slice(PyBytes_AS_STRING(forwarded_for), PyBytes_GET_SIZE(forwarded_for))
        if real_ip is not None:
            second = Slice(PyBytes_AS_STRING(real_ip), PyBytes_GET_SIZE(real_ip))
        return self.client_of(peer, first, second)

    cdef str client_of(self, str peer, Slice forwarded_for, Slice real_ip):
        # Return the client's address, for a trusted peer. Empty elements and empty headers are
        # skipped (RFC 9110 section 5.6.1.2). Any other invalid element ends the search, and the
        # address found before it counts.
        cdef:
            const char* start
            const char* end
            Slice item
            uint64_t high, low
            char canonical[46]
            char nearest[46]
        nearest[0] = 0
        if not is_empty_list(forwarded_for):
            start = forwarded_for.at
            end = start + forwarded_for.length
            while end > start:
                item = _last_item(start, end)
                if item.length == 0:
                    break
                if not _parse(item.at, item.length, &high, &low, canonical):
                    break
                memcpy(nearest, canonical, 46)
                if not self._trusts(high, low):
                    break
                end = item.at
        elif real_ip.at != NULL:
            item = _trimmed(real_ip.at, real_ip.at + real_ip.length)
            if _parse(item.at, item.length, &high, &low, canonical):
                memcpy(nearest, canonical, 46)
        if nearest[0] == 0:
            return peer
        return PyUnicode_DecodeASCII(nearest, strlen(nearest), NULL)
