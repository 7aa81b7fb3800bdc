from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    FRAME_HEADER = 48

cdef packed struct RawHeader:
    # What a frame starts with, on the disk; `format` says what it means.
    char magic[4]
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
