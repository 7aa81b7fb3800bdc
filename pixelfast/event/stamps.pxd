from libc.stdint cimport int64_t

cdef enum:
    NOT_A_TIME = 0

cdef bint parse_date_time(str text, int64_t* microseconds)
cdef str format_milliseconds(int64_t milliseconds)
cdef const char* milliseconds_text(int64_t milliseconds) noexcept
cdef str new_message_id(int64_t milliseconds)
cdef int write_message_id(char* text, int64_t milliseconds) except -1
