"""The layout of a frame, and the limits that follow from it. `format` describes the fields."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    MAGIC_BYTES = 4

cdef packed struct RawHeader:
    # The start of a frame, as it is on the disk. The source's name follows, then the body.
    char magic[MAGIC_BYTES]
    uint32_t length
    uint32_t checksum
    uint8_t kind
    uint8_t codec
    uint16_t name_bytes
    uint32_t count
    uint32_t stored_bytes
    uint32_t body_bytes
    uint32_t mark
    uint64_t received_ms
    uint64_t first_number

cpdef enum:
    MAX_FRAME_BYTES = 2097152       # a full commit of one source, and one event more
    MAX_NAME_BYTES = 63             # of a source's name
    MIN_COMPRESSED_BYTES = 512      # compressing smaller bodies saves too little

cdef enum:
    ALIGNMENT = 8                   # frames begin and end at multiples of it
    END_BYTES = 48                  # zeros after a commit: as long as a frame's header

cdef inline Py_ssize_t header_bytes() noexcept nogil:
    return sizeof(RawHeader)

cdef inline Py_ssize_t aligned(Py_ssize_t size) noexcept nogil:
    return (size + ALIGNMENT - 1) & -ALIGNMENT

cdef inline Py_ssize_t max_head_bytes() noexcept nogil:
    # The most bytes in front of a body, aligned.
    return aligned(header_bytes() + MAX_NAME_BYTES)

cdef inline Py_ssize_t max_overhead_bytes() noexcept nogil:
    # The most bytes around a body.
    return max_head_bytes() + ALIGNMENT

cdef uint32_t seed_at(uint32_t seed_base, int64_t offset) noexcept
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
) except -1
