from libc.stdint cimport int64_t

from pixelfast.event.query cimport Query
from pixelfast.event.slices cimport Slice

cdef enum SlotKind:
    # values of parameters
    VALUE_SLOT          # a string, a number, or a boolean
    TRIMMED_SLOT        # a string that has no white space at its ends
    NAME_SLOT           # a TRIMMED_SLOT that is not empty
    GIVEN_ID_SLOT       # a TRIMMED_SLOT for the messageId; the server's id if it is empty
    IDENTITY_SLOT       # a TRIMMED_SLOT that is not a placeholder; omitted if empty
    ORIGINAL_TIME_SLOT  # a time; the following two as well
    SENT_TIME_SLOT
    TIMESTAMP_SLOT
    # values of headers and of the connection
    USER_AGENT_SLOT
    REFERER_SLOT
    LOCALE_SLOT
    ADDRESS_SLOT        # omitted if empty
    # values that the server generates
    MESSAGE_ID_SLOT
    RECEIVED_SLOT
    COMPUTED_TIME_SLOT  # the timestamp that follows from the other times
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
    int64_t received_ms
    const char* received        # the same as a string of TIME_BYTES
    Slice address
    Slice user_agent            # without white space at its ends
    Slice referer, locale       # empty unless the rules fill them in
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
    cdef int given_id           # the parameter of a GIVEN_ID_SLOT, or -1
    cdef Piece* _pieces
    cdef int _count
    cdef list _literals
    cdef Py_ssize_t _literal_bytes

    cdef int _add(self, object value, list json) except -1
    cdef int _end_piece(self, list json, TemplateSlot slot) except -1
    cdef bint needs_message_id(self, Query* query) noexcept
    cdef Py_ssize_t kept_bytes(self) noexcept
    cdef Py_ssize_t max_bytes(self, Py_ssize_t query_bytes, ServerValues* server) noexcept
    cdef Py_ssize_t fill(self, char* out, Query* query, ServerValues* server) noexcept nogil

cdef Template template_of(dict event, list warnings)
