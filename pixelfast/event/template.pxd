from pixelfast.event.query cimport Query
from pixelfast.event.slices cimport Slice

cdef enum SlotKind:
    VALUE_SLOT          # a string, a number, or a boolean
    TRIMMED_SLOT        # a string without white space around it
    NAME_SLOT           # such a string that is not empty
    IDENTITY_SLOT       # such a string that is not a placeholder; left out if it is empty
    USER_AGENT_SLOT     # of the header
    MESSAGE_ID_SLOT
    RECEIVED_SLOT
    ADDRESS_SLOT        # left out if it is empty
    NO_SLOT             # only the literal

cdef class TemplateSlot:
    # Where the value of a parameter, or an addition of the server, goes.
    cdef SlotKind kind
    cdef int parameter          # whose value it takes
    cdef bint numbers
    cdef bint booleans
    cdef bint is_filled         # of a VALUE_SLOT: if it is blank, something else takes its place

cdef TemplateSlot new_slot(SlotKind kind, int parameter=*, bint numbers=*, bint booleans=*)

cdef struct ServerValues:
    # What is not in the query.
    const char* received        # TIME_BYTES
    Slice address
    Slice user_agent            # without white space around it
    Slice message_id            # JSON holds it as it is

cdef struct Piece:
    const char* literal         # what stands before the slot; of one that is left out, its name
    Py_ssize_t literal_bytes
    SlotKind kind
    int parameter
    bint numbers
    bint booleans
    bint is_filled

cdef class Template:
    # The JSON of all events of one shape, with slots for what differs.
    cdef list warnings          # [(reason, raw key)]: the same for every query of a shape
    cdef Piece* _pieces
    cdef int _count
    cdef list _literals
    cdef Py_ssize_t _literal_bytes

    cdef int _add(self, object value, list json) except -1
    cdef int _end_piece(self, list json, TemplateSlot slot) except -1
    cdef Py_ssize_t kept_bytes(self) noexcept
    cdef Py_ssize_t most_bytes(self, Py_ssize_t query_bytes, ServerValues* server) noexcept
    cdef Py_ssize_t fill(self, char* out, Query* query, ServerValues* server) noexcept nogil

cdef Template template_of(dict event, list warnings)
