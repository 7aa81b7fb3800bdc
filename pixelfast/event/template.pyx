"""Templates: the JSON of all events of one shape, with slots for what differs.

Made once of an event whose values are slots, so the decoder alone says what a query means. Filling
one in takes a quarter of the time of building dicts and encoding them. What a template can't write
just as orjson would, byte for byte, it leaves to that: `fill` says so.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.string cimport memchr, memcmp, memcpy

from pixelfast.event.numbers cimport write_number
from pixelfast.event.query cimport Query, Slice
from pixelfast.event.text cimport decode_ascii, write_text

import orjson

__all__ = ["Slot", "Template"]

cdef object _dumps = orjson.dumps


cdef class Slot:
    pass


cdef Slot new_slot(
    SlotKind kind, int parameter=0, bint numbers=False, bint booleans=False
):
    cdef Slot slot = Slot.__new__(Slot)
    slot.kind = kind
    slot.parameter = parameter
    slot.numbers = numbers
    slot.booleans = booleans
    return slot


cdef Template template_of(dict event, list warnings):
    # `event` is JSON's, but for its slots.
    cdef Template template = Template.__new__(Template)
    cdef list text = []
    template.warnings = warnings
    template._literals = []
    template._add(event, text)
    template._end_piece(text, None)
    return template


cdef class Template:

    def __dealloc__(self):
        PyMem_Free(self._pieces)

    cdef int _add(self, object value, list text) except -1:
        # `text` is the literal so far.
        cdef bint is_first = True
        if type(value) is dict:
            text.append(b"{")
            for name, each in (<dict>value).items():
                if type(each) is Slot and _is_optional((<Slot>each).kind):
                    self._end_piece(text, None)
                if not is_first:
                    text.append(b",")
                text.append(_dumps(name))
                text.append(b":")
                self._add(each, text)
                is_first = False
            text.append(b"}")
        elif type(value) is list:
            text.append(b"[")
            for each in <list>value:
                if not is_first:
                    text.append(b",")
                self._add(each, text)
                is_first = False
            text.append(b"]")
        elif type(value) is Slot:
            self._end_piece(text, <Slot>value)
        else:
            text.append(_dumps(value))
        return 0

    cdef int _end_piece(self, list text, Slot slot) except -1:
        cdef bytes literal = b"".join(text)
        cdef Piece* piece
        cdef void* larger = PyMem_Realloc(self._pieces, (self._count + 1) * sizeof(Piece))
        if larger == NULL:
            raise MemoryError()
        self._pieces = <Piece*>larger
        piece = &self._pieces[self._count]
        self._count += 1
        self._literals.append(literal)  # keeps its bytes
        piece.literal = PyBytes_AS_STRING(literal)
        piece.literal_bytes = PyBytes_GET_SIZE(literal)
        self._literal_bytes += piece.literal_bytes
        if slot is not None:
            piece.kind = slot.kind
            piece.parameter = slot.parameter
            piece.numbers = slot.numbers
            piece.booleans = slot.booleans
        else:
            piece.kind = SlotKind.NO_SLOT
        text.clear()
        return 0

    cdef Py_ssize_t kept_bytes(self) noexcept:
        # How much memory it takes, about: a bytes object has 33 bytes more than it holds.
        return TEMPLATE_BYTES + self._literal_bytes + self._count * (sizeof(Piece) + 80)

    cdef Py_ssize_t most_bytes(self, Py_ssize_t query_bytes, Additions* additions) noexcept:
        # The longest event there can be: texts grow to twice their length, and get quotes.
        cdef Py_ssize_t texts = query_bytes + additions.address.length + additions.user_agent.length
        return self._literal_bytes + 2 * texts + 64 * self._count

    cdef Py_ssize_t fill(self, char* out, Query query, Additions* additions) noexcept nogil:
        # The event's length in bytes; -1 where the event must be built and encoded.
        cdef:
            char* start = out
            Piece* piece = self._pieces
            Piece* end = piece + self._count
            Slice text
            Py_ssize_t written
            bint has_identity = False
        while piece < end:
            memcpy(out, piece.literal, piece.literal_bytes)
            if piece.kind == SlotKind.NO_SLOT:
                out += piece.literal_bytes
                piece += 1
                continue
            if piece.kind == SlotKind.MESSAGE_ID_SLOT:
                text.at, text.length = &additions.message_id[0], 36
            elif piece.kind == SlotKind.RECEIVED_SLOT:
                text.at, text.length = additions.received, 24
            elif piece.kind == SlotKind.ADDRESS_SLOT:
                text = additions.address
            elif piece.kind == SlotKind.USER_AGENT_SLOT:
                text = additions.user_agent
            else:
                text = query.values[piece.parameter]
            if piece.kind == SlotKind.VALUE_SLOT:
                out += piece.literal_bytes
                written = _write_value(out, text, piece.numbers, piece.booleans)
                if written < 0:
                    return -1
                out += written
            elif text.length == 0 and _is_optional(piece.kind):
                pass  # and so is its name
            else:
                out += piece.literal_bytes
                out[0] = c'"'
                if piece.kind == SlotKind.MESSAGE_ID_SLOT or piece.kind == SlotKind.RECEIVED_SLOT:
                    memcpy(out + 1, text.at, text.length)
                    written = text.length
                else:
                    written = write_text(
                        out + 1, text.at, text.length, piece.kind <= SlotKind.PAGE_NAME_SLOT
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


cdef inline bint _is_visible(char c) noexcept nogil:
    return c'!' <= c <= c'~' and c != c'\\'


cdef inline bint _is_accepted(SlotKind kind, const char* text, Py_ssize_t length) noexcept nogil:
    # Whether the text may stand as it is; what is trimmed or refused is the encoder's.
    if kind == SlotKind.IDENTITY_SLOT:
        return (
            length > 0
            and _is_visible(text[0])
            and _is_visible(text[length - 1])
            and memchr(text, c'\\', length) == NULL
        )
    if kind == SlotKind.EVENT_NAME_SLOT:
        return length > 0 and _is_visible(text[0])
    return length > 0 or kind != SlotKind.PAGE_NAME_SLOT


cdef inline Py_ssize_t _write_value(
    char* out, Slice text, bint numbers, bint booleans
) noexcept nogil:
    cdef char start[18]
    cdef Py_ssize_t length, written
    if text.length and (numbers or booleans):
        # The first byte says of nearly all texts that they are no numbers.
        if numbers and text.at[0] <= c'9':
            length = decode_ascii(start, text.at, text.length)
            written = write_number(out, start, length)
            if written != 0:
                return written
        if booleans:
            length = decode_ascii(start, text.at, text.length)
            if length == 4 and memcmp(start, b"true", 4) == 0:
                memcpy(out, b"true", 4)
                return 4
            if length == 5 and memcmp(start, b"false", 5) == 0:
                memcpy(out, b"false", 5)
                return 5
    out[0] = c'"'
    written = write_text(out + 1, text.at, text.length, True)
    if written < 0:
        return -1
    out[written + 1] = c'"'
    return written + 2
