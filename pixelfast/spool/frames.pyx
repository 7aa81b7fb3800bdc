"""Frames as they stand in a segment: parsed, and held against their checksums."""

from cpython.buffer cimport PyBUF_READ, Py_buffer
from cpython.memoryview cimport PyMemoryView_FromMemory, PyMemoryView_GET_BUFFER
from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memcmp

from zlib import crc32

from pixelfast.errors import SpoolError
from pixelfast.spool import format as spool_format
from pixelfast.spool.compression import decompress
from pixelfast.spool.format import Frame, FrameHeader

__all__ = ["check_frame", "parse_frame", "parse_frames", "parse_header"]

cdef enum:
    EVENTS = 1
    NOT_COMPRESSED = 0
    ZSTD = 1
    MAX_FRAME = 2097152

assert sizeof(RawHeader) == FRAME_HEADER == spool_format.FRAME_HEADER_BYTES
assert MAX_FRAME == spool_format.MAX_FRAME_BYTES
assert EVENTS == spool_format.FRAME_TYPE_EVENTS
assert (NOT_COMPRESSED, ZSTD) == (spool_format.CODEC_NONE, spool_format.CODEC_ZSTD)

cdef object new_tuple = tuple.__new__  # without the call of a named tuple's own constructor


cdef const RawHeader* header_at(const Py_buffer* data, Py_ssize_t start) noexcept:
    # The header at a place that holds one, if its lengths can be those of a frame; else NULL.
    cdef:
        const RawHeader* header = <const RawHeader*>(<const char*>data.buf + start)
        Py_ssize_t used = FRAME_HEADER + header.name_bytes + <Py_ssize_t>header.stored_bytes
        Py_ssize_t length = header.length
    if memcmp(header.magic, b"PXF1", 4) or length % 8 or header.kind != EVENTS:
        return NULL
    if not used <= length <= min(used + 7, MAX_FRAME):
        return NULL
    if header.codec == NOT_COMPRESSED:
        return header if header.stored_bytes == header.body_bytes else NULL
    if header.codec == ZSTD and header.stored_bytes < header.body_bytes <= MAX_FRAME:
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
    # The header of a valid frame; else NULL, with `needed` set where the data ends too early.
    cdef:
        const RawHeader* header
        char* at
        uint32_t checksum
    needed[0] = 0
    if data.len - start < FRAME_HEADER:
        needed[0] = FRAME_HEADER
        return NULL
    header = header_at(data, start)
    if header == NULL:
        return NULL
    if data.len - start < <Py_ssize_t>header.length:
        needed[0] = header.length
        return NULL
    at = <char*>data.buf + start
    checksum = crc32(
        PyMemoryView_FromMemory(at + 12, header.length - 12, PyBUF_READ),
        crc32(PyMemoryView_FromMemory(at, 8, PyBUF_READ), seed),
    )
    return header if checksum == header.checksum else NULL


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
    if buffer.len - start < FRAME_HEADER:
        raise ValueError(f"expected {FRAME_HEADER} bytes, got {max(0, buffer.len - start)}")
    header = header_at(buffer, start)
    return None if header == NULL else make_header(header)


def check_frame(data, Py_ssize_t start, int64_t offset, segment):
    cdef:
        Py_ssize_t needed = 0
        const RawHeader* header
    header = valid_header(buffer_of(data, start), start, segment.seed(offset), &needed)
    if header != NULL:
        return make_header(header)
    return needed if needed else None


def parse_frame(data, Py_ssize_t start, int64_t offset, segment):
    cdef:
        Py_ssize_t needed = 0
        const RawHeader* header
    header = valid_header(buffer_of(data, start), start, segment.seed(offset), &needed)
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
        object number = segment.number, base = segment.seed_base(), frame
        list frames = []
    while len(frames) < most_frames and body_bytes < most_bytes:
        seed = crc32(PyMemoryView_FromMemory(<char*>&at, 8, PyBUF_READ), base)
        header = valid_header(buffer, start, seed, &needed)
        if header == NULL:
            return frames, start, needed
        try:
            frame = make_frame(header, data, start, at, number)
        except SpoolError:
            if frames:
                break  # those first; the next call says it
            raise
        if frame is None:
            return frames, start, 0
        frames.append(frame)
        body_bytes += header.body_bytes
        start += header.length
        at += header.length
    return frames, start, FRAME_HEADER


cdef object make_frame(
    const RawHeader* header, object data, Py_ssize_t start, int64_t offset, object number
):
    # A frame whose checksum is right; None if its body can't be decompressed.
    cdef:
        Py_ssize_t body_start = start + FRAME_HEADER + header.name_bytes
        object body = data[body_start : body_start + header.stored_bytes]
    if header.codec == ZSTD:
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
                <const char*>header + FRAME_HEADER, header.name_bytes, b"replace"
            ),
            header.count,
            header.received_ms,
            header.first_number,
            body,
        ),
    )
