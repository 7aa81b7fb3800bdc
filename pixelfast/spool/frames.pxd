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
    uint32_t reserved
    uint64_t received_ms
    uint64_t first_number

cpdef enum:
    MAX_FRAME_BYTES = 2097152       # a full commit of one source, and one event more
    MAX_NAME_BYTES = 63             # of a source's name
    MIN_COMPRESSED_BYTES = 512      # compressing smaller bodies saves too little

cdef enum:
    ALIGNMENT = 8                   # frames begin and end at multiples of it

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

cdef struct Entry:
    # One event of a batch.
    uint32_t end                # in the batch's data
    uint32_t source             # its index in the names passed to `seal`
    int64_t received_ms

cdef class CommitBatch:
    cdef char* _data            # the events in order of arrival, behind max_head_bytes()
    cdef Py_ssize_t _size
    cdef Py_ssize_t _capacity
    cdef Entry* _entries
    cdef Py_ssize_t _entries_capacity
    cdef bint _is_mixed         # events of more than one source
    cdef char* _frames          # the frames of a batch that is not sealed in place
    cdef Py_ssize_t _frames_capacity
    cdef Py_ssize_t count       # events
    cdef const char* image      # the sealed frames, to be written; NULL before `seal`
    cdef Py_ssize_t image_bytes
    cdef public list waiters
    cdef public int64_t first_ticket
    cdef public double since_s  # when its first event came, by the loop's clock
    cdef public bint has_failed # a commit of it failed; the next one is the last

    cdef char* reserve(self, Py_ssize_t size) except NULL
    cdef int take(self, uint32_t source, Py_ssize_t length, int64_t received_ms) except -1
    cdef int _grow(self, Py_ssize_t bytes_needed) except -1
    cdef int _seal_in_place(
        self, bytes name, object seed_base, int64_t offset, int64_t first_number
    ) except -1
    cdef int _seal_apart(
        self, list names, object seed_base, int64_t offset, int64_t first_number, object compress
    ) except -1

    cdef inline Py_ssize_t gathered_bytes(self) noexcept:
        # Bytes of the events, and of a frame around each if they are of several sources.
        return self._size + self._is_mixed * self.count * max_overhead_bytes()
