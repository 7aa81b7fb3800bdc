from libc.stdint cimport int64_t

cdef enum ChunkState:
    SIZE_START
    SIZE
    EXTENSION
    SIZE_LF
    DATA
    DATA_CR
    DATA_LF
    TRAILER_START
    TRAILER_NAME
    TRAILER_VALUE
    TRAILER_LF
    END_LF
    # the ends
    WHOLE
    MALFORMED
    TOO_LARGE

cdef struct Chunks:
    ChunkState state
    int64_t size                # of the chunk under way; of its data, what is left
    int64_t data_bytes          # of all chunks
    int64_t framing_bytes       # of everything else

cdef Chunks no_chunks() noexcept
cdef Py_ssize_t skip_chunks(Chunks* chunks, const char* data, Py_ssize_t length) noexcept
