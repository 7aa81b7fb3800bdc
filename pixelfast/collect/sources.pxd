from libc.stdint cimport int64_t

from pixelfast.event.decoder cimport Rules

cdef class Source:
    cdef readonly str name
    cdef readonly int number            # its place in the spool writer's names
    cdef readonly Rules rules
    cdef readonly bint is_enabled
    cdef readonly bint fills_ip
    cdef readonly bint fills_referer
    cdef readonly bint fills_locale
    cdef bint fills
    cdef double _rate                   # events a second; 0: no limit
    cdef double _burst
    cdef double _tokens
    cdef double _refilled_s
    cdef public int64_t accepted
    cdef readonly dict refused          # reason: count
    cdef readonly dict warned           # reason: count

    cdef int check_rate(self, double now_s) except -1
    cdef void take(self) noexcept
    cdef count_refused(self, str reason)
    cdef count_warnings(self, list warnings)

cdef class WriteKey:
    cdef Source source
    cdef int64_t expires_ms             # 0: never

    cdef int check(self, int64_t now_ms) except -1

cdef class Sources:
    cdef dict _keys                     # text: WriteKey
    cdef readonly list all
    cdef readonly Source nobody         # counts what came without a key that is known

    cdef WriteKey find(self, str text)
