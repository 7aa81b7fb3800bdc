from libc.stdint cimport int64_t, uint32_t

from pixelfast.spool.frames cimport max_overhead_bytes

cdef struct Entry:
    # One event of a batch.
    uint32_t end                # in the batch's data
    uint32_t source             # its index in the names passed to `seal`
    uint32_t next               # the next event of the same source, set by `_group`
    int64_t received_ms

cdef struct Group:
    # The events of one source in a batch, linked by `Entry.next`.
    uint32_t source
    uint32_t first
    uint32_t last
    uint32_t count

cdef class CommitBatch:
    cdef char* _data            # the events in order of arrival, behind max_head_bytes()
    cdef Py_ssize_t _size
    cdef Py_ssize_t _capacity
    cdef Entry* _entries
    cdef Py_ssize_t _entries_capacity
    cdef bint _is_mixed         # events of more than one source
    cdef Group* _groups         # by their first events
    cdef uint32_t* _group_of    # a hash table by source: the index in `_groups` plus one, or 0
    cdef Py_ssize_t _groups_capacity
    cdef char* _frames          # the frames of a batch that is not sealed in place
    cdef Py_ssize_t _frames_capacity
    cdef Py_ssize_t count       # events
    cdef const char* image      # the sealed frames, to be written; NULL before `seal`
    cdef Py_ssize_t image_bytes
    cdef Py_ssize_t written_bytes # the image and the zeros after it
    cdef public list waiters
    cdef public int64_t first_ticket
    cdef public double since_s  # when its first event came, by the loop's clock
    cdef public bint has_failed # a commit of it failed; the next one is the last

    cdef char* reserve(self, Py_ssize_t size) except NULL
    cdef int take(self, uint32_t source, Py_ssize_t length, int64_t received_ms) except -1
    cdef int _grow(self, Py_ssize_t bytes_needed) except -1
    cdef Py_ssize_t _group(self) except -1
    cdef int _seal_in_place(
        self, bytes name, object segment, int64_t offset, int64_t first_number
    ) except -1
    cdef int _seal_apart(
        self, list names, object segment, int64_t offset, int64_t first_number, object compress
    ) except -1

    cdef inline Py_ssize_t gathered_bytes(self) noexcept:
        # Bytes of the events, and of a frame around each if they are of several sources.
        return self._size + self._is_mixed * self.count * max_overhead_bytes()
