# Message ids: check the ids that a proxy sends, and generate UUIDs of version 7 (RFC 9562 section
# 5.7), which sort by time.
#
# Random bytes come from the kernel in blocks. The kernel zeroes the page of the block in a forked
# process, so two processes never share ids. If the kernel does not support that (Linux before
# 4.14), each id reads its own random bytes.

from cpython.exc cimport PyErr_SetFromErrno
from libc.errno cimport EINTR, errno
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcpy
from posix.mman cimport (
    MAP_ANONYMOUS,
    MAP_FAILED,
    MAP_PRIVATE,
    PROT_READ,
    PROT_WRITE,
    mmap,
    munmap,
)

from pixelfast.event.slices cimport Slice

cdef extern from "<sys/mman.h>" nogil:
    enum: MADV_WIPEONFORK
    int madvise(void* address, size_t length, int advice)

cdef extern from "<sys/random.h>" nogil:
    Py_ssize_t getrandom(void* out, size_t length, unsigned int flags)

cdef enum:
    MESSAGE_ID_BYTES = 36
    MAX_MESSAGE_ID_BYTES = 128  # of an id that a proxy sends
    RANDOM_BYTES = 10       # per id
    IDS_OF_A_BLOCK = 400

cdef struct RandomBlock:
    int unused_ids          # 0 in a forked process
    uint8_t bytes[4000]     # RANDOM_BYTES * IDS_OF_A_BLOCK

cdef struct MessageIds:
    RandomBlock* block
    int ids_of_a_block      # 1 if a forked process would inherit the block


cdef inline bint is_message_id(Slice given) noexcept nogil:
    # Return whether a string from a proxy is a valid message id: visible ASCII that JSON does not
    # escape.
    cdef Py_ssize_t i
    if not 0 < given.length <= MAX_MESSAGE_ID_BYTES:
        return False
    for i in range(given.length):
        if not c'!' <= given.at[i] <= c'~' or given.at[i] == c'"' or given.at[i] == c'\\':
            return False
    return True


cdef inline int open_message_ids(MessageIds* ids) except -1:
    cdef void* page = mmap(
        NULL, sizeof(RandomBlock), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0
    )
    if page == MAP_FAILED:
        PyErr_SetFromErrno(OSError)
    ids.block = <RandomBlock*>page
    is_wiped = madvise(page, sizeof(RandomBlock), MADV_WIPEONFORK) == 0
    ids.ids_of_a_block = IDS_OF_A_BLOCK if is_wiped else 1
    return 0


cdef inline void close_message_ids(MessageIds* ids) noexcept:
    if ids.block != NULL:
        munmap(ids.block, sizeof(RandomBlock))
        ids.block = NULL


cdef inline int write_message_id(MessageIds* ids, char* out, int64_t ms) except -1:
    # Write MESSAGE_ID_BYTES bytes: 48 bits of milliseconds since 1970 and 74 random bits.
    cdef:
        const char* digits = b"0123456789abcdef"
        RandomBlock* block = ids.block
        uint8_t raw[16]
        int i, at = 0
    if block.unused_ids == 0:
        _take_random(block.bytes, ids.ids_of_a_block * RANDOM_BYTES)
        block.unused_ids = ids.ids_of_a_block
    block.unused_ids -= 1
    memcpy(raw + 6, block.bytes + block.unused_ids * RANDOM_BYTES, RANDOM_BYTES)
    for i in range(6):
        raw[i] = <uint8_t>(ms >> (40 - 8 * i) & 0xFF)
    raw[6] = 0x70 | (raw[6] & 0x0F)
    raw[8] = 0x80 | (raw[8] & 0x3F)
    for i in range(16):
        if i == 4 or i == 6 or i == 8 or i == 10:
            out[at] = c'-'
            at += 1
        out[at] = digits[raw[i] >> 4]
        out[at + 1] = digits[raw[i] & 0x0F]
        at += 2
    return 0


cdef inline int _take_random(uint8_t* out, Py_ssize_t length) except -1:
    cdef Py_ssize_t taken
    while length > 0:
        taken = getrandom(out, length, 0)
        if taken < 0:
            if errno != EINTR:
                PyErr_SetFromErrno(OSError)
            continue
        out += taken
        length -= taken
    return 0
