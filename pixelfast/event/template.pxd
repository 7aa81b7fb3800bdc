from pixelfast.event.query cimport Query, Slice

cdef enum:
    MAX_EVENT_BYTES = 32768
    TEMPLATE_BYTES = 300        # of a template, beside its pieces

cdef enum SlotKind:
    TEXT_SLOT           # a text, whatever it looks like
    VALUE_SLOT          # a text, a number, or a boolean
    IDENTITY_SLOT       # left out where it is empty
    EVENT_NAME_SLOT     # must not be blank
    PAGE_NAME_SLOT      # must not be empty
    USER_AGENT_SLOT     # of the header
    MESSAGE_ID_SLOT
    RECEIVED_SLOT
    ADDRESS_SLOT        # left out where it is empty
    NO_SLOT             # only the literal

cdef class Slot:
    cdef SlotKind kind
    cdef int parameter          # whose value it takes
    cdef bint numbers
    cdef bint booleans

cdef Slot new_slot(SlotKind kind, int parameter=*, bint numbers=*, bint booleans=*)

cdef struct Additions:
    # What is not in the query. The header is without white space around it.
    const char* received        # 24 bytes
    Slice address
    Slice user_agent
    char message_id[36]

cdef struct Piece:
    const char* literal         # what stands before the slot; of one that is left out, its name
    Py_ssize_t literal_bytes
    SlotKind kind
    int parameter
    bint numbers
    bint booleans

cdef class Template:
    cdef readonly list warnings # [(reason, raw key)]: the same for every query of a shape
    cdef Piece* _pieces
    cdef int _count
    cdef list _literals
    cdef Py_ssize_t _literal_bytes

    cdef int _add(self, object value, list text) except -1
    cdef int _end_piece(self, list text, Slot slot) except -1
    cdef Py_ssize_t kept_bytes(self) noexcept
    cdef Py_ssize_t most_bytes(self, Py_ssize_t query_bytes, Additions* additions) noexcept
    cdef Py_ssize_t fill(self, char* out, Query query, Additions* additions) noexcept nogil

cdef Template template_of(dict event, list warnings)
