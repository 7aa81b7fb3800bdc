from pixelfast.event.query cimport Query
from pixelfast.event.slices cimport Slice

cdef enum SlotKind:
    VALUE_SLOT          # a string, a number, or a boolean
    TRIMMED_SLOT        # a string that has no white space at its ends
    NAME_SLOT           # a TRIMMED_SLOT that is not empty
    IDENTITY_SLOT       # a TRIMMED_SLOT that is not a placeholder; omitted if empty
    USER_AGENT_SLOT     # from the User-Agent header
    MESSAGE_ID_SLOT
    RECEIVED_SLOT
    ADDRESS_SLOT        # omitted if empty
    NO_SLOT             # only a literal

cdef class TemplateSlot:
    # The place of a parameter's value or of a value that the server adds.
    cdef SlotKind kind
    cdef int parameter          # whose value it holds
    cdef bint numbers
    cdef bint booleans
    cdef bint is_filled         # a VALUE_SLOT whose value the server replaces if it is blank

cdef TemplateSlot new_slot(SlotKind kind, int parameter=*, bint numbers=*, bint booleans=*)

cdef struct ServerValues:
    # The values that are not in the query.
    const char* received        # TIME_BYTES
    Slice address
    Slice user_agent            # without white space at its ends
    Slice message_id            # needs no escaping in JSON

cdef struct Piece:
    const char* literal         # before the slot; of an optional slot only its name
    Py_ssize_t literal_bytes
    SlotKind kind
    int parameter
    bint numbers
    bint booleans
    bint is_filled

cdef class Template:
    # The JSON of all events of one shape, with slots for the values.
    cdef list warnings          # [(reason, raw key)], the same for every query of the shape
    cdef Piece* _pieces
    cdef int _count
    cdef list _literals
    cdef Py_ssize_t _literal_bytes

    cdef int _add(self, object value, list json) except -1
    cdef int _end_piece(self, list json, TemplateSlot slot) except -1
    cdef Py_ssize_t kept_bytes(self) noexcept
    cdef Py_ssize_t max_bytes(self, Py_ssize_t query_bytes, ServerValues* server) noexcept
    cdef Py_ssize_t fill(self, char* out, Query* query, ServerValues* server) noexcept nogil

cdef Template template_of(dict event, list warnings)
