"""The answers that one connection owes, in the order of its requests, and how they go out."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.stdint cimport int64_t
from libc.string cimport memcpy, memmove

cdef extern from "<sys/socket.h>" nogil:
    enum: MSG_DONTWAIT, MSG_NOSIGNAL
    ssize_t send(int fd, const void* data, size_t length, int flags)
    ssize_t recv(int fd, void* data, size_t length, int flags)

__all__ = ["AnswerQueue"]

cdef enum:
    FIRST_ROOM = 2  # most connections have one request under way
    MOST_KEPT_ROOM = 16  # of an empty queue


cdef class AnswerQueue:

    def __dealloc__(self):
        self.clear()
        PyMem_Free(self._all)

    cdef int push(self, bytes answer, int64_t ticket) except -1:
        cdef Pending* last
        if self._first + self.count == self._room:
            self._make_room()
        last = &self._all[self._first + self.count]
        last.ticket = ticket
        last.answer = <PyObject*>answer
        Py_INCREF(answer)
        self.count += 1
        self.size_bytes += PyBytes_GET_SIZE(answer) + sizeof(Pending)
        return 0

    cdef int _make_room(self) except -1:
        cdef int room = self._room * 2 or FIRST_ROOM
        cdef void* larger
        if self._first > 0:
            memmove(self._all, self._all + self._first, self.count * sizeof(Pending))
            self._first = 0
            return 0
        larger = PyMem_Realloc(self._all, room * sizeof(Pending))
        if larger == NULL:
            raise MemoryError()
        self._all = <Pending*>larger
        self._room = room
        return 0

    cdef int find(self, int64_t ticket) noexcept:
        # The place of the answer that waits for a ticket, counted from the oldest; -1 if none does.
        # Tickets come in order, so the search goes on behind the last one.
        cdef int i, place
        for i in range(self.count):
            place = (self._searched + i) % self.count
            if self._all[self._first + place].ticket == ticket:
                self._searched = place
                return place
        return -1

    cdef void make_ready(self, int place) noexcept:
        self._all[self._first + place].ticket = 0

    cdef bytes get(self, int place):
        return <bytes>self._all[self._first + place].answer

    cdef int replace(self, int place, bytes answer) except -1:
        cdef Pending* pending = &self._all[self._first + place]
        self.size_bytes += PyBytes_GET_SIZE(answer) - PyBytes_GET_SIZE(<bytes>pending.answer)
        Py_INCREF(answer)
        Py_DECREF(<bytes>pending.answer)
        pending.answer = <PyObject*>answer
        return 0

    cdef int ready(self) noexcept:
        # How many answers may go out: those before the first that waits.
        cdef int count = 0
        while count < self.count and self._all[self._first + count].ticket == 0:
            count += 1
        return count

    cdef bytes take(self, int count):
        # The oldest answers, as they go out.
        cdef:
            Pending* pending = self._all + self._first
            Py_ssize_t length = 0
            bytes answer
            char* out
            int i
        if count == 1:
            answer = <bytes>pending.answer
            Py_DECREF(answer)
        else:
            for i in range(count):
                length += PyBytes_GET_SIZE(<bytes>pending[i].answer)
            answer = PyBytes_FromStringAndSize(NULL, length)
            out = PyBytes_AS_STRING(answer)
            for i in range(count):
                length = PyBytes_GET_SIZE(<bytes>pending[i].answer)
                memcpy(out, PyBytes_AS_STRING(<bytes>pending[i].answer), length)
                out += length
                Py_DECREF(<bytes>pending[i].answer)
        self.count -= count
        self.size_bytes -= PyBytes_GET_SIZE(answer) + count * sizeof(Pending)
        self._searched = 0
        if self.count == 0:
            self._first = 0
            if self._room > MOST_KEPT_ROOM:
                PyMem_Free(self._all)
                self._all = NULL
                self._room = 0
        else:
            self._first += count
        return answer

    cdef void clear(self) noexcept:
        cdef int i
        for i in range(self.count):
            Py_DECREF(<bytes>self._all[self._first + i].answer)
        self._first = self.count = self._searched = 0
        self.size_bytes = 0


cdef Py_ssize_t write_out(bytes data, object transport, int fd) except -1:
    # Past the transport, which must hold nothing: 0.2 to 0.8 µs less. What is left, and what goes
    # wrong, is the transport's. Returns how many bytes it was given.
    cdef ssize_t sent = -1
    cdef Py_ssize_t length = PyBytes_GET_SIZE(data)
    if fd >= 0:
        sent = send(fd, PyBytes_AS_STRING(data), length, MSG_DONTWAIT | MSG_NOSIGNAL)
    if sent == length:
        return 0
    transport.write(data[sent:] if sent > 0 else data)
    return length - max(sent, 0)


cdef void discard_input(int fd) noexcept:
    # What has come by now, up to the largest request.
    cdef char[8192] data
    cdef int reads = 0
    while fd >= 0 and reads < 16 and recv(fd, data, sizeof(data), MSG_DONTWAIT) > 0:
        reads += 1
