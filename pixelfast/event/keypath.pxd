cdef enum KeyKind:
    PLACE = 0           # names a place in the event
    WRITE_KEY = 1       # names the source
    WARNED = 2          # left out, `warning` says why
    TOO_DEEP = 3        # more segments than MAX_SEGMENTS

cdef enum RootField:
    ANONYMOUS_ID = 0
    USER_ID = 1
    EVENT = 2
    NAME = 3
    PROPERTIES = 4
    CONTEXT = 5
    MESSAGE_ID = 6
    CHANNEL = 7
    ORIGINAL_TIMESTAMP = 8
    SENT_AT = 9
    TIMESTAMP = 10
    FIELD_COUNT = 11
    TRAITS = 12         # an object that stands among the others
    OTHER = 13          # any other name at the root

cdef enum:
    NAME_SEGMENT = -2   # a segment that is no index
    APPEND_SEGMENT = -1
    MAX_SEGMENTS = 32
    MAX_INDEX = 63

cdef class KeyPath:
    cdef readonly bytes raw
    cdef readonly tuple names
    cdef readonly str dotted
    cdef readonly str warning
    cdef readonly int kind
    cdef readonly int root
    cdef readonly int depth
    cdef signed char index[32]
    cdef bint is_textual[32]

cdef KeyPath key_path(const char* raw, Py_ssize_t length)
