"""The events of one group commit: gathered in memory, then sealed into frames."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.buffer cimport PyBUF_READ
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from pixelfast.spool.frames cimport FRAME_HEADER, RawHeader

from zlib import crc32

from pixelfast.spool import compression

__all__ = ["Batch"]

cdef enum:
    HEAD_ROOM = 112         # a frame's header and the longest source name: 48 + 63, and to spare
    MAX_NAME_BYTES = 63
    FIRST_CAPACITY = 65536
    FIRST_ROOM = 128
    LEAST_COMPRESSED = 512  # bytes of a body
    KEPT_CAPACITY = 4194304 # a batch that grew beyond this gives its memory back

assert compression.LEAST_BYTES == LEAST_COMPRESSED


cdef class Batch:

    def __cinit__(self):
        self._data = <char*>PyMem_Malloc(FIRST_CAPACITY)
        self._ends = <uint32_t*>PyMem_Malloc(FIRST_ROOM * sizeof(uint32_t))
        self._sources = <uint32_t*>PyMem_Malloc(FIRST_ROOM * sizeof(uint32_t))
        self._received = <int64_t*>PyMem_Malloc(FIRST_ROOM * sizeof(int64_t))
        if (
            self._data == NULL
            or self._ends == NULL
            or self._sources == NULL
            or self._received == NULL
        ):
            raise MemoryError()
        self._capacity = FIRST_CAPACITY
        self._room = FIRST_ROOM
        self.clear()

    def __dealloc__(self):
        PyMem_Free(self._data)
        PyMem_Free(self._ends)
        PyMem_Free(self._sources)
        PyMem_Free(self._received)
        PyMem_Free(self._frames)

    def __len__(self):
        return self._count

    @property
    def event_bytes(self):
        return self._size - HEAD_ROOM

    def clear(self):
        cdef char* smaller
        if self._capacity > KEPT_CAPACITY:
            smaller = <char*>PyMem_Realloc(self._data, FIRST_CAPACITY)
            if smaller != NULL:
                self._data = smaller
                self._capacity = FIRST_CAPACITY
        self._size = HEAD_ROOM
        self._count = 0
        self._mixed = False
        self.image = NULL
        self.image_bytes = 0
        self.waiters = []
        self.first_ticket = 0
        self.since_s = 0.0
        self.has_failed = False

    def add(self, uint32_t source, bytes event not None, int64_t received_ms=0):
        cdef Py_ssize_t length = PyBytes_GET_SIZE(event)
        memcpy(self.reserve(length), PyBytes_AS_STRING(event), length)
        self.take(source, length, received_ms)

    cdef char* reserve(self, Py_ssize_t size) except NULL:
        # Where the next event is to be written, of `size` bytes at the most; `take` takes it.
        if self._size + size + 1 > self._capacity or self._count == self._room:
            self._grow(size + 1)
        return self._data + self._size

    cdef int take(self, uint32_t source, Py_ssize_t length, int64_t received_ms) except -1:
        self._size += length + 1
        self._data[self._size - 1] = c'\n'
        self._ends[self._count] = <uint32_t>self._size
        self._sources[self._count] = source
        self._received[self._count] = received_ms
        if source != self._sources[0]:
            self._mixed = True
        self._count += 1
        return 0

    cdef int _grow(self, Py_ssize_t bytes_needed) except -1:
        cdef Py_ssize_t capacity = self._capacity
        cdef void* larger
        while self._size + bytes_needed > capacity:
            capacity *= 2
        if capacity != self._capacity:
            larger = PyMem_Realloc(self._data, capacity)
            if larger == NULL:
                raise MemoryError()
            self._data = <char*>larger
            self._capacity = capacity
        if self._count == self._room:
            larger = PyMem_Realloc(self._ends, 2 * self._room * sizeof(uint32_t))
            if larger == NULL:
                raise MemoryError()
            self._ends = <uint32_t*>larger
            larger = PyMem_Realloc(self._sources, 2 * self._room * sizeof(uint32_t))
            if larger == NULL:
                raise MemoryError()
            self._sources = <uint32_t*>larger
            larger = PyMem_Realloc(self._received, 2 * self._room * sizeof(int64_t))
            if larger == NULL:
                raise MemoryError()
            self._received = <int64_t*>larger
            self._room *= 2
        return 0

    def sealed_bytes(self, list names not None):
        # The most that `seal` can make of this batch: what must fit into the segment.
        cdef Py_ssize_t frames = 1
        if self._mixed:
            frames = min(len(names), self._count)
        return self._size - HEAD_ROOM + frames * (HEAD_ROOM + 8)

    def seal(
        self,
        list names not None,
        segment not None,
        int64_t offset,
        int64_t first_number=0,
        compress=None,
    ):
        # names: [ASCII bytes] by source; segment: SegmentId; offset: where the frames will stand;
        # compress: makes a body smaller, or None.
        cdef:
            char* start
            Py_ssize_t length
            bytes name
        if self._count == 0:
            raise ValueError("a batch without events")
        if not self._mixed and (compress is None or self.event_bytes < LEAST_COMPRESSED):
            name = self._name_of(names, self._sources[0])
            start = self._data + HEAD_ROOM - FRAME_HEADER - len(name)
            if self._size + 8 > self._capacity:
                self._grow(8)
                start = self._data + HEAD_ROOM - FRAME_HEADER - len(name)
            length = self._write_frame(
                start,
                segment,
                offset,
                name,
                <uint32_t>self._count,
                self._size - HEAD_ROOM,
                self._size - HEAD_ROOM,
                self._received[0],
                first_number,
            )
            self.image = start
            self.image_bytes = length
        else:
            self._seal_apart(names, segment, offset, first_number, compress)
        return self.image_bytes

    def _name_of(self, list names, uint32_t source):
        name = names[source] if source < <uint32_t>len(names) else None
        if not isinstance(name, bytes) or not 1 <= len(name) <= MAX_NAME_BYTES:
            raise ValueError(f"source {source} has no name of 1 to {MAX_NAME_BYTES} bytes")
        return name

    def _seal_apart(self, list names, segment, int64_t offset, int64_t first_number, compress):
        # One frame a source, in the order of each source's first event; in a buffer of their own,
        # as the events may be sealed once more, elsewhere.
        cdef:
            Py_ssize_t needed = self.sealed_bytes(names)
            Py_ssize_t i, begin, used = 0, body, stored
            uint32_t source
            char* larger
            char* at
            dict events = {}
            list places
            bytes name, smaller
        if self._frames_capacity < needed or self._frames_capacity > KEPT_CAPACITY:
            larger = <char*>PyMem_Realloc(self._frames, needed)
            if larger == NULL:
                raise MemoryError()
            self._frames = larger
            self._frames_capacity = needed
        for i in range(self._count):
            source = self._sources[i]
            if source in events:
                (<list>events[source]).append(i)
            else:
                events[source] = [i]
        for source, places in events.items():
            name = self._name_of(names, source)
            at = self._frames + used + FRAME_HEADER + len(name)
            body = 0
            for i in places:
                begin = HEAD_ROOM if i == 0 else self._ends[i - 1]
                memcpy(at + body, self._data + begin, self._ends[i] - begin)
                body += self._ends[i] - begin
            stored = body
            if compress is not None and body >= LEAST_COMPRESSED:
                smaller = compress(PyMemoryView_FromMemory(at, body, PyBUF_READ))
                if len(smaller) < body:
                    stored = len(smaller)
                    memcpy(at, PyBytes_AS_STRING(smaller), stored)
            used += self._write_frame(
                self._frames + used,
                segment,
                offset + used,
                name,
                <uint32_t>len(places),
                body,
                stored,
                self._received[<Py_ssize_t>places[0]],
                first_number,
            )
            first_number += len(places)
        self.image = self._frames
        self.image_bytes = used

    cdef Py_ssize_t _write_frame(
        self,
        char* at,
        object segment,
        int64_t offset,
        bytes name,
        uint32_t count,
        Py_ssize_t body,
        Py_ssize_t stored,
        int64_t received_ms,
        int64_t first_number,
    ) except -1:
        # Puts header, name and padding around the body that stands in its place already.
        cdef:
            RawHeader* header = <RawHeader*>at
            Py_ssize_t used = FRAME_HEADER + len(name) + stored
            Py_ssize_t length = (used + 7) // 8 * 8
        memset(at, 0, FRAME_HEADER)
        memcpy(header.magic, b"PXF1", 4)
        header.length = <uint32_t>length
        header.kind = 1
        header.name_bytes = <uint16_t>len(name)
        header.count = count
        header.codec = 1 if stored < body else 0
        header.stored_bytes = <uint32_t>stored
        header.body_bytes = <uint32_t>body
        header.received_ms = <uint64_t>received_ms
        header.first_number = <uint64_t>first_number
        memcpy(at + FRAME_HEADER, PyBytes_AS_STRING(name), len(name))
        memset(at + used, 0, length - used)
        header.checksum = crc32(
            PyMemoryView_FromMemory(at + 12, length - 12, PyBUF_READ),
            crc32(PyMemoryView_FromMemory(at, 8, PyBUF_READ), segment.seed(offset)),
        )
        return length

    def sealed(self):
        # A copy of what is to be written, for storage other than the committer's.
        return self.image[: self.image_bytes] if self.image != NULL else b""
