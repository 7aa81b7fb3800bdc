"""The events of one group commit, collected by the writer and sealed into frames."""

from cpython.buffer cimport PyBUF_READ
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport INT64_MAX, int64_t, uint32_t
from libc.string cimport memcpy, memset

from pixelfast.spool.frames cimport (
    ALIGNMENT,
    END_BYTES,
    MAX_NAME_BYTES,
    MIN_COMPRESSED_BYTES,
    header_bytes,
    max_head_bytes,
    max_overhead_bytes,
    seed_at,
    write_frame,
)

__all__ = ["CommitBatch"]

cdef enum:
    FIRST_CAPACITY = 65536
    FIRST_ENTRIES = 128
    KEPT_CAPACITY = 4194304     # a larger batch releases its memory when it is cleared


cdef class CommitBatch:

    def __cinit__(self):
        self._data = <char*>PyMem_Malloc(FIRST_CAPACITY)
        self._entries = <Entry*>PyMem_Malloc(FIRST_ENTRIES * sizeof(Entry))
        if self._data == NULL or self._entries == NULL:
            raise MemoryError()
        self._capacity = FIRST_CAPACITY
        self._entries_capacity = FIRST_ENTRIES
        self.clear()

    def __dealloc__(self):
        PyMem_Free(self._data)
        PyMem_Free(self._entries)
        PyMem_Free(self._frames)
        PyMem_Free(self._groups)
        PyMem_Free(self._group_of)

    def __len__(self):
        return self.count

    @property
    def event_bytes(self):
        return self._size - max_head_bytes()

    def clear(self):
        cdef char* smaller
        if self._capacity > KEPT_CAPACITY:
            smaller = <char*>PyMem_Realloc(self._data, FIRST_CAPACITY)
            if smaller != NULL:
                self._data = smaller
                self._capacity = FIRST_CAPACITY
        self._size = max_head_bytes()
        self.count = 0
        self._is_mixed = False
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
        # Return memory for an event of at most `size` bytes. `take` adds the event written there.
        if self._size + size + 1 > self._capacity or self.count == self._entries_capacity:
            self._grow(size + 1)
        return self._data + self._size

    cdef int take(self, uint32_t source, Py_ssize_t length, int64_t received_ms) except -1:
        cdef Entry* entry = &self._entries[self.count]
        self._size += length + 1
        self._data[self._size - 1] = c'\n'
        entry.end = <uint32_t>self._size
        entry.source = source
        entry.received_ms = received_ms
        if source != self._entries[0].source:
            self._is_mixed = True
        self.count += 1
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
        if self.count == self._entries_capacity:
            larger = PyMem_Realloc(self._entries, 2 * self._entries_capacity * sizeof(Entry))
            if larger == NULL:
                raise MemoryError()
            self._entries = <Entry*>larger
            self._entries_capacity *= 2
        return 0

    def sealed_bytes(self, list names not None):
        cdef Py_ssize_t frames = 1
        if self._is_mixed:
            frames = min(len(names), self.count)
        return self._size - max_head_bytes() + frames * max_overhead_bytes()

    def seal(
        self,
        list names not None,
        segment not None,
        int64_t offset,
        int64_t first_number=0,
        compress=None,
        *,
        int64_t segment_bytes=INT64_MAX,
    ):
        cdef Py_ssize_t event_bytes = self._size - max_head_bytes()
        cdef Py_ssize_t end_bytes
        if self.count == 0:
            raise ValueError("a batch without events")
        if self._is_mixed or (compress is not None and event_bytes >= MIN_COMPRESSED_BYTES):
            self._seal_apart(names, segment, offset, first_number, compress)
        else:
            name = name_of(names, self._entries[0].source)
            self._seal_in_place(name, segment, offset, first_number)
        # The zeros end the log here, even if the segment holds older frames after them.
        end_bytes = max(0, min(END_BYTES, segment_bytes - offset - self.image_bytes))
        memset(<char*>self.image + self.image_bytes, 0, end_bytes)
        self.written_bytes = self.image_bytes + end_bytes
        return self.image_bytes

    cdef int _seal_in_place(
        self, bytes name, object segment, int64_t offset, int64_t first_number
    ) except -1:
        # Make one frame around the events in place; nothing is copied.
        cdef:
            Py_ssize_t body = self._size - max_head_bytes()
            char* start
        if self._size + ALIGNMENT + END_BYTES > self._capacity:
            self._grow(ALIGNMENT + END_BYTES)
        start = self._data + max_head_bytes() - header_bytes() - len(name)
        self.image_bytes = write_frame(
            start,
            name,
            <uint32_t>self.count,
            body,
            body,
            self._entries[0].received_ms,
            first_number,
            segment.mark(),
            seed_at(segment.seed_base(), offset),
        )
        self.image = start
        return 0

    cdef int _seal_apart(
        self, list names, object segment, int64_t offset, int64_t first_number, object compress
    ) except -1:
        # Make one frame for each source, in the order of their first events, in a separate buffer,
        # because the events may be sealed again for another place.
        cdef:
            Py_ssize_t needed = self.sealed_bytes(names) + END_BYTES
            Py_ssize_t number, begin, used = 0, body, stored
            uint32_t i, n, mark = segment.mark(), seed_base = segment.seed_base()
            Group* group
            char* larger
            char* at
            bytes name, smaller
        if self._frames_capacity < needed or self._frames_capacity > KEPT_CAPACITY:
            larger = <char*>PyMem_Realloc(self._frames, needed)
            if larger == NULL:
                raise MemoryError()
            self._frames = larger
            self._frames_capacity = needed
        for number in range(self._group()):
            group = &self._groups[number]
            name = name_of(names, group.source)
            at = self._frames + used + header_bytes() + PyBytes_GET_SIZE(name)
            body = 0
            i = group.first
            for n in range(group.count):
                begin = max_head_bytes() if i == 0 else self._entries[i - 1].end
                memcpy(at + body, self._data + begin, self._entries[i].end - begin)
                body += self._entries[i].end - begin
                i = self._entries[i].next
            stored = body
            if compress is not None and body >= MIN_COMPRESSED_BYTES:
                smaller = compress(PyMemoryView_FromMemory(at, body, PyBUF_READ))
                if len(smaller) < body:
                    stored = len(smaller)
                    memcpy(at, PyBytes_AS_STRING(smaller), stored)
            used += write_frame(
                self._frames + used,
                name,
                group.count,
                body,
                stored,
                self._entries[group.first].received_ms,
                first_number,
                mark,
                seed_at(seed_base, offset + used),
            )
            first_number += group.count
        self.image = self._frames
        self.image_bytes = used
        return 0

    cdef Py_ssize_t _group(self) except -1:
        # Group the events by source; return the number of groups.
        cdef:
            Py_ssize_t count = 0, mask = 2 * FIRST_ENTRIES - 1, place
            uint32_t i, source
            Group* group
            void* groups
            void* group_of
        if self._groups_capacity < self._entries_capacity:
            groups = PyMem_Realloc(self._groups, self._entries_capacity * sizeof(Group))
            if groups == NULL:
                raise MemoryError()
            self._groups = <Group*>groups
            group_of = PyMem_Realloc(
                self._group_of, 2 * self._entries_capacity * sizeof(uint32_t)
            )
            if group_of == NULL:
                raise MemoryError()
            self._group_of = <uint32_t*>group_of
            self._groups_capacity = self._entries_capacity
        while mask + 1 < 2 * self.count:
            mask = 2 * mask + 1
        memset(self._group_of, 0, (mask + 1) * sizeof(uint32_t))
        for i in range(<uint32_t>self.count):
            source = self._entries[i].source
            # The numbers of sources are consecutive, so they are their own hashes.
            place = source & mask
            while self._group_of[place] and self._groups[self._group_of[place] - 1].source != source:
                place = (place + 1) & mask
            if self._group_of[place]:
                group = &self._groups[self._group_of[place] - 1]
                self._entries[group.last].next = i
                group.last = i
                group.count += 1
                continue
            self._groups[count] = Group(source, i, i, 1)
            count += 1
            self._group_of[place] = <uint32_t>count
        return count

    def sealed(self):
        return self.image[: self.image_bytes] if self.image != NULL else b""

    def written(self):
        return self.image[: self.written_bytes] if self.image != NULL else b""


cdef bytes name_of(list names, uint32_t source):
    name = names[source] if source < <uint32_t>len(names) else None
    if not isinstance(name, bytes) or not 1 <= len(name) <= MAX_NAME_BYTES:
        raise ValueError(f"source {source} has no name of 1 to {MAX_NAME_BYTES} bytes")
    return name
