"""Write events from templates: the JSON of all events of one shape, with slots for the values.

A template is made once from an event whose values are slots, so only the decoder defines what a
query means. Filling a template takes a quarter of the time of building dicts and encoding them. If
a value would not come out byte for byte as orjson writes it, `fill` returns -1 and the event is
encoded by orjson. """

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.string cimport memcmp, memcpy

from pixelfast.event.limits cimport MAX_EVENT_BYTES
from pixelfast.event.numbers cimport MAX_NUMBER_BYTES, write_number
from pixelfast.event.placeholders cimport may_be_placeholder
from pixelfast.event.query cimport Query
from pixelfast.event.slices cimport Slice
from pixelfast.event.strings cimport decode_start, is_trimmed_json, write_json_string
from pixelfast.event.times cimport TIME_BYTES

import orjson

__all__ = []

cdef enum:
    TEMPLATE_BYTES = 300        # memory of a template without its pieces

cdef object _dumps = orjson.dumps


cdef class TemplateSlot:
    pass


cdef TemplateSlot new_slot(
    SlotKind kind, int parameter=0, bint numbers=False, bint booleans=False
):
    cdef TemplateSlot slot = TemplateSlot.__new__(TemplateSlot)
    slot.kind = kind
    slot.parameter = parameter
    slot.numbers = numbers
    slot.booleans = booleans
    return slot


cdef Template template_of(dict event, list warnings):
    # Make a template of an event whose values are JSON or slots.
    cdef Template template = Template.__new__(Template)
    cdef list json = []
    template.warnings = warnings
    template._literals = []
    template._add(event, json)
    template._end_piece(json, None)
    return template


cdef class Template:

    def __dealloc__(self):
        PyMem_Free(self._pieces)

    cdef int _add(self, object value, list json) except -1:
        # Append `value` to `json`, the parts of the current literal.
        cdef bint is_first = True
        if type(value) is dict:
            json.append(b"{")
            for name, each in (<dict>value).items():
                if type(each) is TemplateSlot and _is_optional((<TemplateSlot>each).kind):
                    self._end_piece(json, None)
                if not is_first:
                    json.append(b",")
                json.append(_dumps(name))
                json.append(b":")
                self._add(each, json)
                is_first = False
            json.append(b"}")
        elif type(value) is list:
            json.append(b"[")
            for each in <list>value:
                if not is_first:
                    json.append(b",")
                self._add(each, json)
                is_first = False
            json.append(b"]")
        elif type(value) is TemplateSlot:
            self._end_piece(json, <TemplateSlot>value)
        else:
            json.append(_dumps(value))
        return 0

    cdef int _end_piece(self, list json, TemplateSlot slot) except -1:
        cdef bytes literal = b"".join(json)
        cdef Piece* piece
        cdef void* larger = PyMem_Realloc(self._pieces, (self._count + 1) * sizeof(Piece))
        if larger == NULL:
            raise MemoryError()
        self._pieces = <Piece*>larger
        piece = &self._pieces[self._count]
        self._count += 1
        self._literals.append(literal)  # keeps the bytes alive
        piece.literal = PyBytes_AS_STRING(literal)
        piece.literal_bytes = PyBytes_GET_SIZE(literal)
        self._literal_bytes += piece.literal_bytes
        if slot is not None:
            piece.kind = slot.kind
            piece.parameter = slot.parameter
            piece.numbers = slot.numbers
            piece.booleans = slot.booleans
            piece.is_filled = slot.is_filled
        else:
            piece.kind = SlotKind.NO_SLOT
        json.clear()
        return 0

    cdef Py_ssize_t kept_bytes(self) noexcept:
        # Estimate the template's memory. A bytes object has an overhead of 33 bytes.
        return TEMPLATE_BYTES + self._literal_bytes + self._count * (sizeof(Piece) + 80)

    cdef Py_ssize_t max_bytes(self, Py_ssize_t query_bytes, ServerValues* server) noexcept:
        # The maximum size of the event: escaping at most doubles a string, and adds quotes.
        cdef Py_ssize_t strings = query_bytes + server.address.length + server.user_agent.length
        return self._literal_bytes + 2 * strings + server.message_id.length + 64 * self._count

    cdef Py_ssize_t fill(self, char* out, Query* query, ServerValues* server) noexcept nogil:
        # Write the event; return its length in bytes, or -1 if it has to be decoded and encoded.
        cdef:
            char* start = out
            Piece* piece = self._pieces
            Piece* end = piece + self._count
            Slice value
            Py_ssize_t written
            bint has_identity = False
        while piece < end:
            memcpy(out, piece.literal, piece.literal_bytes)
            if piece.kind == SlotKind.NO_SLOT:
                out += piece.literal_bytes
                piece += 1
                continue
            if piece.kind == SlotKind.MESSAGE_ID_SLOT:
                value = server.message_id
            elif piece.kind == SlotKind.RECEIVED_SLOT:
                value = Slice(server.received, TIME_BYTES)
            elif piece.kind == SlotKind.ADDRESS_SLOT:
                value = server.address
            elif piece.kind == SlotKind.USER_AGENT_SLOT:
                value = server.user_agent
            else:
                value = query.values[piece.parameter]
            if piece.kind == SlotKind.VALUE_SLOT:
                out += piece.literal_bytes
                written = _write_value(out, value, piece.numbers, piece.booleans)
                if written < 0 or (piece.is_filled and not _is_filled(out, written)):
                    return -1
                out += written
            elif value.length == 0 and _is_optional(piece.kind):
                pass  # its literal, the name, is omitted as well
            else:
                out += piece.literal_bytes
                out[0] = c'"'
                if piece.kind == SlotKind.MESSAGE_ID_SLOT or piece.kind == SlotKind.RECEIVED_SLOT:
                    memcpy(out + 1, value.at, value.length)
                    written = value.length
                else:
                    written = write_json_string(
                        out + 1, value, piece.kind <= SlotKind.IDENTITY_SLOT
                    )
                    if written < 0 or not _is_accepted(piece.kind, out + 1, written):
                        return -1
                out[written + 1] = c'"'
                out += written + 2
                has_identity = has_identity or piece.kind == SlotKind.IDENTITY_SLOT
            piece += 1
        return out - start if has_identity and out - start <= MAX_EVENT_BYTES else -1


cdef inline bint _is_optional(SlotKind kind) noexcept nogil:
    return kind == SlotKind.IDENTITY_SLOT or kind == SlotKind.ADDRESS_SLOT


cdef inline bint _is_filled(const char* json, Py_ssize_t length) noexcept nogil:
    # Return whether a value is not a blank string. False if unsure.
    return json[0] != c'"' or (length > 2 and is_trimmed_json(json + 1, length - 2))


cdef inline bint _is_accepted(SlotKind kind, const char* string, Py_ssize_t length) noexcept nogil:
    # Return whether the string is final. The decoder handles strings that are trimmed or rejected.
    if kind > SlotKind.IDENTITY_SLOT:
        return True
    if not is_trimmed_json(string, length):
        return False
    if kind == SlotKind.IDENTITY_SLOT:
        # `may_be_placeholder` is also True for a backslash, which may escape a quote that is
        # removed.
        return length > 0 and not may_be_placeholder(string, length)
    return length > 0 or kind == SlotKind.TRIMMED_SLOT


cdef inline Py_ssize_t _write_value(
    char* out, Slice value, bint numbers, bint booleans
) noexcept nogil:
    cdef char start[MAX_NUMBER_BYTES + 1]
    cdef Py_ssize_t length, written
    if value.length and (numbers or booleans):
        # The first byte rules out nearly all strings that are not numbers.
        if numbers and value.at[0] <= c'9':
            length = decode_start(start, value, MAX_NUMBER_BYTES + 1)
            written = write_number(out, start, length)
            if written != 0:
                return written
        if booleans:
            length = decode_start(start, value, MAX_NUMBER_BYTES + 1)
            if length == 4 and memcmp(start, b"true", 4) == 0:
                memcpy(out, b"true", 4)
                return 4
            if length == 5 and memcmp(start, b"false", 5) == 0:
                memcpy(out, b"false", 5)
                return 5
    out[0] = c'"'
    written = write_json_string(out + 1, value, True)
    if written < 0:
        return -1
    out[written + 1] = c'"'
    return written + 2
