"""Frames: their layout, written and parsed, and the events of a commit that become frames.

The layout itself is in `frames.pxd`. The length of everything, the magic and the checksum are
written and checked here and nowhere else.
"""

from cpython.buffer cimport PyBUF_READ, Py_buffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.memoryview cimport PyMemoryView_FromMemory, PyMemoryView_GET_BUFFER
from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from zlib import crc32

from pixelfast.errors import SpoolError
from pixelfast.spool.compression import decompress
from pixelfast.spool.format import Frame, FrameHeader

__all__ = [
    "FRAME_HEADER_BYTES",
    "FRAME_MAGIC",
    "MAX_FRAME_BYTES",
    "MAX_NAME_BYTES",
    "MIN_COMPRESSED_BYTES",
    "CommitBatch",
    "check_frame",
    "parse_frame",
    "parse_frames",
    "parse_header",
]

cdef enum:
    KIND_EVENTS = 1
    CODEC_NONE = 0
    CODEC_ZSTD = 1
    CHECKSUM_AT = 8             # the checksum covers what is before it and what is after it
    CHECKED_FROM = 12
    FIRST_CAPACITY = 65536
    FIRST_ENTRIES = 128
    KEPT_CAPACITY = 4194304     # a larger batch releases its memory when it is cleared

cdef const char* MAGIC = b"PXF1"
FRAME_MAGIC = <bytes>MAGIC[:MAGIC_BYTES]
FRAME_HEADER_BYTES = header_bytes()

cdef object new_tuple = tuple.__new__  # without the call of a named tuple's own constructor

# --- one frame -------------------------------------------------------------------------------


cdef object seed_at(object seed_base, int64_t offset):
    # The value that the checksum of a frame at `offset` starts from.
    return crc32(PyMemoryView_FromMemory(<char*>&offset, sizeof(offset), PyBUF_READ), seed_base)


cdef uint32_t checksum_of(const char* frame, Py_ssize_t length, object seed) except? 0:
    cdef char* at = <char*>frame
    return crc32(
        PyMemoryView_FromMemory(at + CHECKED_FROM, length - CHECKED_FROM, PyBUF_READ),
        crc32(PyMemoryView_FromMemory(at, CHECKSUM_AT, PyBUF_READ), seed),
    )


cdef Py_ssize_t write_frame(
    char* at,
    bytes name,
    uint32_t count,
    Py_ssize_t body_bytes,
    Py_ssize_t stored_bytes,
    int64_t received_ms,
    int64_t first_number,
    object seed,
) except -1:
    # Write the header, name and padding around the body, which is already in its place. Return the
    # frame's length.
    cdef:
        RawHeader* header = <RawHeader*>at
        Py_ssize_t used = header_bytes() + len(name) + stored_bytes
        Py_ssize_t length = aligned(used)
    memset(at, 0, header_bytes())
    memcpy(header.magic, MAGIC, MAGIC_BYTES)
    header.length = <uint32_t>length
    header.kind = KIND_EVENTS
    header.name_bytes = <uint16_t>len(name)
    header.count = count
    header.codec = CODEC_ZSTD if stored_bytes < body_bytes else CODEC_NONE
    header.stored_bytes = <uint32_t>stored_bytes
    header.body_bytes = <uint32_t>body_bytes
    header.received_ms = <uint64_t>received_ms
    header.first_number = <uint64_t>first_number
    memcpy(at + header_bytes(), PyBytes_AS_STRING(name), len(name))
    memset(at + used, 0, length - used)
    header.checksum = checksum_of(at, length, seed)
    return length


cdef const RawHeader* header_at(const Py_buffer* data, Py_ssize_t start) noexcept:
    # Return the header at this place if its lengths can be those of a frame, otherwise NULL.
    cdef:
        const RawHeader* header = <const RawHeader*>(<const char*>data.buf + start)
        Py_ssize_t used = header_bytes() + header.name_bytes + <Py_ssize_t>header.stored_bytes
        Py_ssize_t length = header.length
    if memcmp(header.magic, MAGIC, MAGIC_BYTES) or header.kind != KIND_EVENTS:
        return NULL
    if length != aligned(used) or length > MAX_FRAME_BYTES:
        return NULL
    if header.codec == CODEC_NONE:
        return header if header.stored_bytes == header.body_bytes else NULL
    if header.codec == CODEC_ZSTD and header.stored_bytes < header.body_bytes <= MAX_FRAME_BYTES:
        return header
    return NULL


cdef object make_header(const RawHeader* header):
    return new_tuple(
        FrameHeader,
        (
            header.length,
            header.checksum,
            header.codec,
            header.name_bytes,
            header.count,
            header.stored_bytes,
            header.body_bytes,
            header.received_ms,
            header.first_number,
        ),
    )


cdef const RawHeader* valid_header(
    const Py_buffer* data, Py_ssize_t start, object seed, Py_ssize_t* needed
) except? NULL:
    # Return the header of a valid frame, or NULL; `needed` is set if the data ends too early.
    cdef const RawHeader* header
    needed[0] = 0
    if data.len - start < header_bytes():
        needed[0] = header_bytes()
        return NULL
    header = header_at(data, start)
    if header == NULL:
        return NULL
    if data.len - start < <Py_ssize_t>header.length:
        needed[0] = header.length
        return NULL
    if checksum_of(<const char*>header, header.length, seed) != header.checksum:
        return NULL
    return header


cdef const Py_buffer* buffer_of(object data, Py_ssize_t start) except NULL:
    cdef const Py_buffer* buffer
    if not isinstance(data, memoryview):
        raise TypeError(f"expected a memoryview, got {type(data).__name__}")
    buffer = PyMemoryView_GET_BUFFER(data)
    if not buffer.buf or buffer.ndim != 1 or buffer.itemsize != 1 or start < 0:
        raise ValueError("expected contiguous bytes and a start of 0 or more")
    return buffer


def parse_header(data, Py_ssize_t start):
    cdef:
        const Py_buffer* buffer = buffer_of(data, start)
        const RawHeader* header
    if buffer.len - start < header_bytes():
        raise ValueError(f"expected {header_bytes()} bytes, got {max(0, buffer.len - start)}")
    header = header_at(buffer, start)
    return None if header == NULL else make_header(header)


def check_frame(data, Py_ssize_t start, int64_t offset, segment):
    cdef:
        Py_ssize_t needed = 0
        const RawHeader* header
        const Py_buffer* buffer = buffer_of(data, start)
    header = valid_header(buffer, start, seed_at(segment.seed_base(), offset), &needed)
    if header != NULL:
        return make_header(header)
    return needed if needed else None


def parse_frame(data, Py_ssize_t start, int64_t offset, segment):
    cdef:
        Py_ssize_t needed = 0
        const RawHeader* header
        const Py_buffer* buffer = buffer_of(data, start)
    header = valid_header(buffer, start, seed_at(segment.seed_base(), offset), &needed)
    if header == NULL:
        return needed if needed else None
    return make_frame(header, data, start, offset, segment.number)


def parse_frames(
    data, int64_t offset, segment, Py_ssize_t most_frames, Py_ssize_t most_bytes
):
    cdef:
        const Py_buffer* buffer = buffer_of(data, 0)
        const RawHeader* header
        Py_ssize_t start = 0, needed = 0, body_bytes = 0
        int64_t at = offset
        object number = segment.number, seed_base = segment.seed_base(), frame
        list frames = []
    while len(frames) < most_frames and body_bytes < most_bytes:
        header = valid_header(buffer, start, seed_at(seed_base, at), &needed)
        if header == NULL:
            return frames, start, needed
        try:
            frame = make_frame(header, data, start, at, number)
        except SpoolError:
            if frames:
                break  # these first: the next call raises
            raise
        if frame is None:
            return frames, start, 0
        frames.append(frame)
        body_bytes += header.body_bytes
        start += header.length
        at += header.length
    return frames, start, header_bytes()


cdef object make_frame(
    const RawHeader* header, object data, Py_ssize_t start, int64_t offset, object number
):
    # Return a frame whose checksum is right, or None if its body cannot be decompressed.
    cdef:
        Py_ssize_t body_start = start + header_bytes() + header.name_bytes
        object body = data[body_start : body_start + header.stored_bytes]
    if header.codec == CODEC_ZSTD:
        body = decompress(body, header.body_bytes)
        if body is None:
            return None
    return new_tuple(
        Frame,
        (
            number,
            offset,
            header.length,
            PyUnicode_DecodeASCII(
                <const char*>header + header_bytes(), header.name_bytes, b"replace"
            ),
            header.count,
            header.received_ms,
            header.first_number,
            body,
        ),
    )


# --- the events of one group commit -------------------------------------------------------------


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
    ):
        cdef object seed_base = segment.seed_base()
        cdef Py_ssize_t event_bytes = self._size - max_head_bytes()
        if self.count == 0:
            raise ValueError("a batch without events")
        if self._is_mixed or (compress is not None and event_bytes >= MIN_COMPRESSED_BYTES):
            self._seal_apart(names, seed_base, offset, first_number, compress)
        else:
            name = name_of(names, self._entries[0].source)
            self._seal_in_place(name, seed_base, offset, first_number)
        return self.image_bytes

    cdef int _seal_in_place(
        self, bytes name, object seed_base, int64_t offset, int64_t first_number
    ) except -1:
        # Make one frame around the events in place; nothing is copied.
        cdef:
            Py_ssize_t body = self._size - max_head_bytes()
            char* start
        if self._size + ALIGNMENT > self._capacity:
            self._grow(ALIGNMENT)
        start = self._data + max_head_bytes() - header_bytes() - len(name)
        self.image_bytes = write_frame(
            start,
            name,
            <uint32_t>self.count,
            body,
            body,
            self._entries[0].received_ms,
            first_number,
            seed_at(seed_base, offset),
        )
        self.image = start
        return 0

    cdef int _seal_apart(
        self, list names, object seed_base, int64_t offset, int64_t first_number, object compress
    ) except -1:
        # Make one frame for each source, in the order of their first events, in a separate buffer,
        # because the events may be sealed again for another place.
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
        for i in range(self.count):
            source = self._entries[i].source
            if source in events:
                (<list>events[source]).append(i)
            else:
                events[source] = [i]
        for source, places in events.items():
            name = name_of(names, source)
            at = self._frames + used + header_bytes() + len(name)
            body = 0
            for i in places:
                begin = max_head_bytes() if i == 0 else self._entries[i - 1].end
                memcpy(at + body, self._data + begin, self._entries[i].end - begin)
                body += self._entries[i].end - begin
            stored = body
            if compress is not None and body >= MIN_COMPRESSED_BYTES:
                smaller = compress(PyMemoryView_FromMemory(at, body, PyBUF_READ))
                if len(smaller) < body:
                    stored = len(smaller)
                    memcpy(at, PyBytes_AS_STRING(smaller), stored)
            used += write_frame(
                self._frames + used,
                name,
                <uint32_t>len(places),
                body,
                stored,
                self._entries[<Py_ssize_t>places[0]].received_ms,
                first_number,
                seed_at(seed_base, offset + used),
            )
            first_number += len(places)
        self.image = self._frames
        self.image_bytes = used
        return 0

    def sealed(self):
        return self.image[: self.image_bytes] if self.image != NULL else b""


cdef bytes name_of(list names, uint32_t source):
    name = names[source] if source < <uint32_t>len(names) else None
    if not isinstance(name, bytes) or not 1 <= len(name) <= MAX_NAME_BYTES:
        raise ValueError(f"source {source} has no name of 1 to {MAX_NAME_BYTES} bytes")
    return name
