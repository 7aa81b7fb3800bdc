"""Texts as they stand in a query or a header: decoded to a str, or straight into JSON."""

from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.string cimport memchr, memcpy

cdef signed char[256] _HEX
cdef unsigned char[256] _IS_PLAIN    # stands in a query and in JSON as itself
cdef const char* _DIGITS = b"0123456789abcdef"
cdef int _c
for _c in range(256):
    _HEX[_c] = -1
    _IS_PLAIN[_c] = 0x20 <= _c < 0x80 and _c not in b'"\\%+'
for _c in range(10):
    _HEX[c'0' + _c] = _c
for _c in range(6):
    _HEX[c'a' + _c] = _HEX[c'A' + _c] = 10 + _c


cdef str decode_text(const char* raw, Py_ssize_t length, char* scratch):
    # `scratch` holds at least `length` bytes: decoding never makes a text longer.
    cdef:
        const char* end = raw + length
        char* out = scratch
        bint has_nul = False
        str text
    if memchr(raw, c'%', length) == NULL and memchr(raw, c'+', length) == NULL:
        return PyUnicode_DecodeUTF8(raw, length, "replace")
    while raw < end:
        has_nul = raw[0] == c'%' or has_nul
        out[0] = <char>_next_byte(&raw, end)
        out += 1
    text = PyUnicode_DecodeUTF8(scratch, out - scratch, "replace")
    return text.replace("\0", "") if has_nul else text


cdef inline unsigned char _next_byte(const char** raw, const char* end) noexcept nogil:
    # The byte that stands at `raw`, decoded; goes past it.
    cdef const char* at = raw[0]
    cdef signed char high, low
    raw[0] += 1
    if at[0] == c'+':
        return c' '
    if at[0] == c'%' and end - at > 2:
        high = _HEX[<unsigned char>at[1]]
        low = _HEX[<unsigned char>at[2]]
        if high >= 0 and low >= 0:
            raw[0] += 2
            return <unsigned char>(high << 4 | low)
    return <unsigned char>at[0]


cdef Py_ssize_t write_text(
    char* out, const char* raw, Py_ssize_t length, bint is_query
) noexcept nogil:
    # The text as JSON's, byte for byte as orjson writes it, without the quotes around it; at most
    # twice as long as it was. -1: not UTF-8, or with characters that are left out or replaced.
    cdef:
        const char* end = raw + length
        char* start = out
        unsigned char c, least, most
        int more
    while raw < end:
        c = <unsigned char>raw[0]
        if _IS_PLAIN[c]:
            out[0] = <char>c
            out += 1
            raw += 1
            continue
        if is_query:
            if c < 0x20:
                return -1
            c = _next_byte(&raw, end)
        else:
            if c < 0x20 and c != c'\t':
                return -1
            raw += 1
        if c < 0x80:
            if c == 0:
                return -1
            out += _write_ascii(out, c)
            continue
        least, most = 0x80, 0xBF
        if 0xC2 <= c <= 0xDF:
            more = 1
        elif 0xE0 <= c <= 0xEF:
            more = 2
            least = 0xA0 if c == 0xE0 else 0x80
            most = 0x9F if c == 0xED else 0xBF
        elif 0xF0 <= c <= 0xF4:
            more = 3
            least = 0x90 if c == 0xF0 else 0x80
            most = 0x8F if c == 0xF4 else 0xBF
        else:
            return -1
        out[0] = <char>c
        out += 1
        while more > 0:
            if raw == end:
                return -1
            if is_query:
                c = _next_byte(&raw, end)
            else:
                c = <unsigned char>raw[0]
                raw += 1
            if not least <= c <= most:
                return -1
            out[0] = <char>c
            out += 1
            least, most = 0x80, 0xBF
            more -= 1
    return out - start


cdef inline Py_ssize_t _write_ascii(char* out, unsigned char c) noexcept nogil:
    if c == c'"' or c == c'\\':
        out[1] = <char>c
    elif c >= 0x20:
        out[0] = <char>c
        return 1
    elif c == c'\b':
        out[1] = c'b'
    elif c == c'\t':
        out[1] = c't'
    elif c == c'\n':
        out[1] = c'n'
    elif c == c'\f':
        out[1] = c'f'
    elif c == c'\r':
        out[1] = c'r'
    else:
        memcpy(out, b"\\u00", 4)
        out[4] = _DIGITS[c >> 4]
        out[5] = _DIGITS[c & 0x0F]
        return 6
    out[0] = c'\\'
    return 2


cdef Py_ssize_t decode_ascii(char* out, const char* raw, Py_ssize_t length) noexcept nogil:
    # The start of a text that may be a number or a word: up to 18 bytes of it, decoded.
    cdef const char* end = raw + length
    cdef Py_ssize_t used = 0
    while raw < end and used < 18:
        out[used] = <char>_next_byte(&raw, end)
        used += 1
    return used
