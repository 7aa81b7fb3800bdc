"""The layout of frames, written and parsed; nothing else knows it.

The structs are in `frames.pxd`. Lengths, the magic, the mark and the checksum are written and
checked here.
"""

from cpython.buffer cimport PyBUF_READ, Py_buffer
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.memoryview cimport PyMemoryView_FromMemory, PyMemoryView_GET_BUFFER
from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from zlib_ng.zlib_ng import crc32

from pixelfast.errors import SpoolError
from pixelfast.spool.compression import decompress
from pixelfast.spool.format import UNKNOWN_VERSION, Frame, FrameHeader

__all__ = [
    "FRAME_END_BYTES",
    "FRAME_HEADER_BYTES",
    "FRAME_MAGIC",
    "MAX_FRAME_BYTES",
    "MAX_NAME_BYTES",
    "MIN_COMPRESSED_BYTES",
    "check_frame",
    "claimed_bytes",
    "find_frame",
    "parse_frame",
    "parse_frames",
    "parse_header",
    "rfind_frame",
]

cdef enum:
    KIND_EVENTS = 1
    CODEC_NONE = 0
    CODEC_ZSTD = 1
    CHECKED_FROM = 12           # the checksum covers bytes 0 to 7 and those from here on

cdef const char* MAGIC = b"PXF1"
FRAME_MAGIC = <bytes>MAGIC[:MAGIC_BYTES]
FRAME_HEADER_BYTES = header_bytes()
FRAME_END_BYTES = END_BYTES

cdef object new_tuple = tuple.__new__  # without the call of a named tuple's own constructor

cdef struct Mark:
    # The mark of a segment's frames. If the segment's header is damaged, 0 is accepted as well,
    # because the segment's version is unknown.
    uint32_t value
    bint is_zero_good


cdef Mark mark_of(object segment) except *:
    return Mark(segment.mark(), segment.version == UNKNOWN_VERSION)


cdef extern from *:
    """
    /* The crc32 of each number of four bits, as in zlib. */
    static const uint32_t CRC_OF_4_BITS[16] = {
        0x00000000, 0x1DB71064, 0x3B6E20C8, 0x26D930AC, 0x76DC4190, 0x6B6B51F4, 0x4DB26158,
        0x5005713C, 0xEDB88320, 0xF00F9344, 0xD6D6A3E8, 0xCB61B38C, 0x9B64C2B0, 0x86D3D2D4,
        0xA00AE278, 0xBDBDF21C
    };
    """
    const uint32_t[16] CRC_OF_4_BITS


cdef uint32_t crc32_of_8(const char* at, uint32_t crc) noexcept:
    # Continue zlib's crc32 with 8 bytes; a call of zlib takes five times as long.
    cdef int i
    crc = ~crc
    for i in range(8):
        crc ^= <unsigned char>at[i]
        crc = CRC_OF_4_BITS[crc & 15] ^ crc >> 4
        crc = CRC_OF_4_BITS[crc & 15] ^ crc >> 4
    return ~crc


cdef uint32_t seed_at(uint32_t seed_base, int64_t offset) noexcept:
    # The value that the checksum of a frame at `offset` starts from.
    return crc32_of_8(<const char*>&offset, seed_base)


cdef uint32_t checksum_of(const char* frame, Py_ssize_t length, uint32_t seed) except? 0:
    return crc32(
        PyMemoryView_FromMemory(<char*>frame + CHECKED_FROM, length - CHECKED_FROM, PyBUF_READ),
        crc32_of_8(frame, seed),
    )


cdef Py_ssize_t write_frame(
    char* at,
    bytes name,
    uint32_t count,
    Py_ssize_t body_bytes,
    Py_ssize_t stored_bytes,
    int64_t received_ms,
    int64_t first_number,
    uint32_t mark,
    uint32_t seed,
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
    header.mark = mark
    header.received_ms = <uint64_t>received_ms
    header.first_number = <uint64_t>first_number
    memcpy(at + header_bytes(), PyBytes_AS_STRING(name), len(name))
    memset(at + used, 0, length - used)
    header.checksum = checksum_of(at, length, seed)
    return length


cdef const RawHeader* header_at(const Py_buffer* data, Py_ssize_t start, Mark mark) noexcept:
    # Return the header at this place if it has the segment's mark and its lengths can be those of
    # a frame, otherwise NULL.
    cdef:
        const RawHeader* header = <const RawHeader*>(<const char*>data.buf + start)
        Py_ssize_t used = header_bytes() + header.name_bytes + <Py_ssize_t>header.stored_bytes
        Py_ssize_t length = header.length
    if memcmp(header.magic, MAGIC, MAGIC_BYTES) or header.kind != KIND_EVENTS:
        return NULL
    if header.mark != mark.value and not (mark.is_zero_good and header.mark == 0):
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
    const Py_buffer* data, Py_ssize_t start, Mark mark, uint32_t seed, Py_ssize_t* needed
) except? NULL:
    # Return the header of a valid frame, or NULL; `needed` is set if the data ends too early.
    cdef const RawHeader* header
    needed[0] = 0
    if data.len - start < header_bytes():
        needed[0] = header_bytes()
        return NULL
    header = header_at(data, start, mark)
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


def parse_header(data, Py_ssize_t start, segment):
    cdef:
        const Py_buffer* buffer = buffer_of(data, start)
        const RawHeader* header
    if buffer.len - start < header_bytes():
        raise ValueError(f"expected {header_bytes()} bytes, got {max(0, buffer.len - start)}")
    header = header_at(buffer, start, mark_of(segment))
    return None if header == NULL else make_header(header)


def claimed_bytes(data, Py_ssize_t start, segment):
    cdef:
        const Py_buffer* buffer = buffer_of(data, start)
        const RawHeader* header = <const RawHeader*>(<const char*>buffer.buf + start)
    if buffer.len - start < header_bytes() or header.mark != mark_of(segment).value:
        return 0
    if header.length % ALIGNMENT or not header_bytes() < header.length <= MAX_FRAME_BYTES:
        return header_bytes()
    return header.length


def check_frame(data, Py_ssize_t start, int64_t offset, segment):
    cdef:
        Py_ssize_t needed = 0
        const RawHeader* header
        const Py_buffer* buffer = buffer_of(data, start)
        uint32_t seed = seed_at(segment.seed_base(), offset)
    header = valid_header(buffer, start, mark_of(segment), seed, &needed)
    if header != NULL:
        return make_header(header)
    return needed if needed else None


def parse_frame(data, Py_ssize_t start, int64_t offset, segment):
    cdef:
        Py_ssize_t needed = 0
        const RawHeader* header
        const Py_buffer* buffer = buffer_of(data, start)
        uint32_t seed = seed_at(segment.seed_base(), offset)
    header = valid_header(buffer, start, mark_of(segment), seed, &needed)
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
        object number = segment.number, frame
        uint32_t seed_base = segment.seed_base()
        Mark mark = mark_of(segment)
        list frames = []
    while len(frames) < most_frames and body_bytes < most_bytes:
        header = valid_header(buffer, start, mark, seed_at(seed_base, at), &needed)
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


def find_frame(data, int64_t offset, segment, Py_ssize_t stop):
    cdef:
        const Py_buffer* buffer = buffer_of(data, 0)
        const RawHeader* header
        object number = segment.number
        uint32_t seed_base = segment.seed_base()
        Mark mark = mark_of(segment)
        Py_ssize_t needed = 0
        Py_ssize_t start = (ALIGNMENT - offset % ALIGNMENT) % ALIGNMENT
    stop = min(stop, buffer.len - header_bytes() + 1)
    while start < stop:
        if header_at(buffer, start, mark) != NULL:
            header = valid_header(buffer, start, mark, seed_at(seed_base, offset + start), &needed)
            if header != NULL:
                if make_frame(header, data, start, offset + start, number) is not None:
                    return start
        start += ALIGNMENT
    return -1


def rfind_frame(data, int64_t offset, segment, Py_ssize_t stop):
    cdef:
        const Py_buffer* buffer = buffer_of(data, 0)
        const RawHeader* header
        uint32_t seed_base = segment.seed_base()
        Mark mark = mark_of(segment)
        Py_ssize_t needed = 0
        Py_ssize_t start
    stop = min(stop, buffer.len - header_bytes() + 1)
    if stop <= 0:
        return None
    start = stop - 1 - (offset + stop - 1) % ALIGNMENT
    while start >= 0:
        if header_at(buffer, start, mark) != NULL:
            header = valid_header(buffer, start, mark, seed_at(seed_base, offset + start), &needed)
            if header == NULL and needed:
                header = header_at(buffer, start, mark)
            if header != NULL:
                return start, make_header(header)
        start -= ALIGNMENT
    return None


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
