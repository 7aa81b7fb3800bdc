# Find the end of a chunked body (RFC 9112 section 7.1) byte by byte, without keeping any of it.
#
#     state           next byte                   next state
#     SIZE_START      hex digit                   SIZE
#     SIZE            hex digit                   SIZE
#                     ;                           EXTENSION
#                     CR                          SIZE_LF
#     EXTENSION       no control character        EXTENSION
#                     CR                          SIZE_LF
#     SIZE_LF         LF                          DATA, or TRAILER_START after a size of 0
#     DATA            any                         DATA, or DATA_CR after the last byte
#     DATA_CR         CR                          DATA_LF
#     DATA_LF         LF                          SIZE_START
#     TRAILER_START   character of a token        TRAILER_NAME
#                     CR                          END_LF
#     TRAILER_NAME    character of a token        TRAILER_NAME
#                     :                           TRAILER_VALUE
#     TRAILER_VALUE   no control character        TRAILER_VALUE
#                     CR                          TRAILER_LF
#     TRAILER_LF      LF                          TRAILER_START
#     END_LF          LF                          WHOLE
#
# A tab does not count as a control character. Any other byte leads to MALFORMED. The parser finds
# the same ends, but it collects the trailer and cannot be stopped at the end.

from libc.stdint cimport int64_t

from pixelfast.collect.headers cimport IS_TOKEN
from pixelfast.collect.limits cimport MAX_BODY_BYTES, MAX_FRAMING_BYTES

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
    # final states
    WHOLE
    MALFORMED
    TOO_LARGE

cdef struct Chunks:
    ChunkState state
    int64_t size                # of the current chunk; in DATA, the bytes left of it
    int64_t data_bytes          # of all chunks
    int64_t framing_bytes       # of all other bytes


cdef inline Chunks no_chunks() noexcept:
    return Chunks(ChunkState.SIZE_START, 0, 0, 0)


cdef inline Py_ssize_t skip_chunks(Chunks* chunks, const char* data, Py_ssize_t length) noexcept:
    # Skip bytes up to the end of the body and return their number. `chunks.state` says whether the
    # end is reached.
    cdef Py_ssize_t i = 0, skipped
    while i < length and chunks.state < ChunkState.WHOLE:
        if chunks.state == ChunkState.DATA:
            skipped = min(length - i, chunks.size)
            chunks.size -= skipped
            i += skipped
            if chunks.size == 0:
                chunks.state = ChunkState.DATA_CR
            continue
        if chunks.framing_bytes == MAX_FRAMING_BYTES:
            chunks.state = ChunkState.TOO_LARGE
            break
        chunks.framing_bytes += 1
        chunks.state = next_chunk_state(chunks, <unsigned char>data[i])
        i += 1
    return i


cdef inline ChunkState next_chunk_state(Chunks* chunks, unsigned char c) noexcept:
    cdef ChunkState state = chunks.state
    cdef int digit
    if state == ChunkState.SIZE_START or state == ChunkState.SIZE:
        digit = hex_digit(c)
        if digit >= 0:
            if chunks.size >> 59:
                return ChunkState.MALFORMED
            chunks.size = chunks.size << 4 | digit
            return ChunkState.SIZE
        if state == ChunkState.SIZE and c == c';':
            return ChunkState.EXTENSION
        if state == ChunkState.SIZE and c == c'\r':
            return ChunkState.SIZE_LF
    elif state == ChunkState.EXTENSION:
        if c == c'\r':
            return ChunkState.SIZE_LF
        if is_visible(c):
            return state
    elif state == ChunkState.SIZE_LF:
        if c == c'\n':
            chunks.data_bytes += chunks.size
            if chunks.data_bytes > MAX_BODY_BYTES:
                return ChunkState.TOO_LARGE
            return ChunkState.DATA if chunks.size else ChunkState.TRAILER_START
    elif state == ChunkState.DATA_CR:
        if c == c'\r':
            return ChunkState.DATA_LF
    elif state == ChunkState.DATA_LF:
        if c == c'\n':
            return ChunkState.SIZE_START
    elif state == ChunkState.TRAILER_START or state == ChunkState.TRAILER_NAME:
        if IS_TOKEN[c]:
            return ChunkState.TRAILER_NAME
        if state == ChunkState.TRAILER_START and c == c'\r':
            return ChunkState.END_LF
        if state == ChunkState.TRAILER_NAME and c == c':':
            return ChunkState.TRAILER_VALUE
    elif state == ChunkState.TRAILER_VALUE:
        if c == c'\r':
            return ChunkState.TRAILER_LF
        if is_visible(c):
            return state
    elif state == ChunkState.TRAILER_LF:
        if c == c'\n':
            return ChunkState.TRAILER_START
    elif c == c'\n':  # END_LF
        return ChunkState.WHOLE
    return ChunkState.MALFORMED


cdef inline bint is_visible(unsigned char c) noexcept:
    return c == c'\t' or (c >= 0x20 and c != 0x7F)


cdef inline int hex_digit(unsigned char c) noexcept nogil:
    if c'0' <= c <= c'9':
        return c - c'0'
    c |= 0x20
    return c - c'a' + 10 if c'a' <= c <= c'f' else -1
