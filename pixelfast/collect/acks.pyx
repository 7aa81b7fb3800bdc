"""From a commit to the answers: all that it acknowledges goes out in one pass."""

from libc.stdint cimport int64_t

__all__ = ["Waiter"]


cdef class Waiter:
    # What a connection is to a commit. It overrides all of these; a base of its own lets the
    # pass below call it without knowing HTTP.

    cdef int _on_acknowledged(self, int64_t ticket, bint is_stored) except -1:
        raise NotImplementedError

    cdef int _flush(self) except -1:
        raise NotImplementedError

    cdef int _abort(self) except -1:
        raise NotImplementedError


cdef int acknowledge(list waiters, int64_t first_ticket, bint is_stored, object log) except -1:
    # First all answers of the commit become ready, then each waiter writes once.
    cdef:
        Waiter waiter
        list ready = []
        Py_ssize_t place
    for place in range(len(waiters)):
        waiter = <Waiter>waiters[place]
        try:
            waiter._on_acknowledged(first_ticket + place, is_stored)
        except Exception:  # noqa: BLE001 - one connection's failure is not the others'
            log.exception("answer_failed")
            waiter._abort()
            continue
        if not waiter._is_dirty:
            waiter._is_dirty = True
            ready.append(waiter)
    for waiter in ready:
        waiter._is_dirty = False
        try:
            waiter._flush()
        except Exception:  # noqa: BLE001 - one connection's failure is not the others'
            log.exception("answer_failed")
            waiter._abort()
    return 0
