from libc.stdint cimport int64_t

from pixelfast.collect.budgets cimport RateBudget
from pixelfast.event.decoder cimport Rules

cdef class ActiveSource:
    cdef readonly str name
    cdef readonly int number            # index among the spool writer's names
    cdef readonly Rules rules
    cdef readonly bint is_enabled
    cdef RateBudget budget              # None if the rate is unlimited
    cdef public int64_t accepted
    cdef readonly dict rejected         # {reason: count}
    cdef readonly dict warned           # {reason: count}

    cdef int take_budget(self, double now_s) except -1
    cdef count_rejection(self, str reason)
    cdef count_warnings(self, list warnings)

cdef class ActiveKey:
    cdef ActiveSource source
    cdef int64_t expires_ms             # 0 if it never expires

    cdef int check(self, int64_t now_ms) except -1

cdef class Sources:
    cdef dict _keys                     # {write key: ActiveKey}
    cdef readonly list all
    cdef readonly ActiveSource unknown  # counts requests without a known write key

    cdef ActiveKey find(self, str write_key)
