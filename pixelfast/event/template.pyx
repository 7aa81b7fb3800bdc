"""Write events from templates: the JSON of all events of one shape, with slots for the values.

A template is made once from an event whose values are slots, so only the decoder defines what a
query means. Filling a template takes a quarter of the time of building dicts and encoding them. If
a value would not come out byte for byte as orjson writes it, `fill` returns -1 and the event is
encoded by orjson. """

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.stdint cimport int64_t
from libc.string cimport memcmp, memcpy

from pixelfast.event.limits cimport MAX_EVENT_BYTES
from pixelfast.event.numbers cimport MAX_NUMBER_BYTES, write_number
from pixelfast.event.placeholders cimport may_be_placeholder
from pixelfast.event.query cimport Query
from pixelfast.event.slices cimport Slice
from pixelfast.event.strings cimport decode_start, is_trimmed_json, write_json_string
from pixelfast.event.times cimport (
    MAX_TIME_BYTES,
    TIME_BYTES,
    rewrite_time,
    write_computed_time,
)

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
    template.given_id = -1
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
            if slot.kind == SlotKind.GIVEN_ID_SLOT:
                self.given_id = slot.parameter
        else:
            piece.kind = SlotKind.NO_SLOT
        json.clear()
        return 0

    cdef bint needs_message_id(self, Query* query) noexcept:
        # Return whether the event has the message id of the server.
        return self.given_id < 0 or query.values[self.given_id].length == 0

    cdef Py_ssize_t kept_bytes(self) noexcept:
        # Estimate the template's memory. A bytes object has an overhead of 33 bytes.
        return TEMPLATE_BYTES + self._literal_bytes + self._count * (sizeof(Piece) + 80)

    cdef Py_ssize_t max_bytes(self, Py_ssize_t query_bytes, ServerValues* server) noexcept:
        # The maximum size of the event: escaping at most doubles a string, and adds quotes. The
        # address may occur twice. A time has less than 64 bytes.
        cdef Py_ssize_t strings = (
            query_bytes
            + 2 * server.address.length
            + server.user_agent.length
            + server.referer.length
            + server.locale.length
        )
        return self._literal_bytes + 2 * strings + server.message_id.length + 64 * self._count

    cdef Py_ssize_t fill(self, char* out, Query* query, ServerValues* server) noexcept nogil:
        # Write the event; return its length in bytes, or -1 if it has to be decoded and encoded.
        cdef:
            char* start = out
            Piece* piece = self._pieces
            Piece* end = piece + self._count
            Slice value
            Py_ssize_t written
            int64_t received_us = server.received_ms * 1000
            int64_t original_us = received_us, sent_us = received_us, timestamp_us
            bint has_identity = False
        while piece < end:
            memcpy(out, piece.literal, piece.literal_bytes)
            value = _value_of(piece, query, server)
            if value.length == 0 and _is_optional(piece.kind):
                piece += 1  # without its literal, which is the name
                continue
            out += piece.literal_bytes
            if piece.kind == SlotKind.NO_SLOT:
                written = 0
            elif piece.kind == SlotKind.VALUE_SLOT:
                written = _write_value(out, value, piece.numbers, piece.booleans)
                if piece.is_filled and written > 0 and not _is_filled(out, written):
                    return -1
            elif piece.kind >= SlotKind.MESSAGE_ID_SLOT:
                if piece.kind == SlotKind.COMPUTED_TIME_SLOT:
                    write_computed_time(out + 1, received_us, original_us, sent_us)
                else:
                    memcpy(out + 1, value.at, value.length)
                written = _quote(out, value.length)
            elif piece.kind == SlotKind.ORIGINAL_TIME_SLOT:
                written = _write_time(out, value, &original_us)
            elif piece.kind == SlotKind.SENT_TIME_SLOT:
                written = _write_time(out, value, &sent_us)
            elif piece.kind == SlotKind.TIMESTAMP_SLOT:
                written = _write_time(out, value, &timestamp_us)
            elif piece.kind == SlotKind.GIVEN_ID_SLOT and value.length == 0:
                memcpy(out + 1, server.message_id.at, server.message_id.length)
                written = _quote(out, server.message_id.length)
            else:
                written = write_json_string(out + 1, value, piece.kind <= SlotKind.IDENTITY_SLOT)
                if written < 0 or not _is_accepted(piece.kind, out + 1, written):
                    return -1
                written = _quote(out, written)
                has_identity = has_identity or piece.kind == SlotKind.IDENTITY_SLOT
            if written < 0:
                return -1
            out += written
            piece += 1
        return out - start if has_identity and out - start <= MAX_EVENT_BYTES else -1


cdef inline Slice _value_of(Piece* piece, Query* query, ServerValues* server) noexcept nogil:
    if piece.kind < SlotKind.USER_AGENT_SLOT:
        return query.values[piece.parameter]
    if piece.kind == SlotKind.USER_AGENT_SLOT:
        return server.user_agent
    if piece.kind == SlotKind.ADDRESS_SLOT:
        return server.address
    if piece.kind == SlotKind.MESSAGE_ID_SLOT:
        return server.message_id
    if piece.kind == SlotKind.REFERER_SLOT:
        return server.referer
    if piece.kind == SlotKind.LOCALE_SLOT:
        return server.locale
    return Slice(server.received, TIME_BYTES)


cdef inline Py_ssize_t _quote(char* out, Py_ssize_t length) noexcept nogil:
    # Put quotes around a string at `out + 1`; return its length with them.
    out[0] = c'"'
    out[length + 1] = c'"'
    return length + 2


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


cdef inline Py_ssize_t _write_time(char* out, Slice value, int64_t* us) noexcept nogil:
    # Return -1 if the value is not a time: the decoder warns of it.
    cdef char string[MAX_TIME_BYTES + 2]
    cdef Py_ssize_t length = decode_start(string, value, MAX_TIME_BYTES + 1)
    if length > MAX_TIME_BYTES:
        return -1
    string[length] = 0
    length = rewrite_time(out + 1, string, length, us)
    return _quote(out, length) if length else -1


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
    written = write_json_string(out + 1, value, True)
    return -1 if written < 0 else _quote(out, written)
