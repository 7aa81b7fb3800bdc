# Decode the strings of a query or a header, write them as JSON, and trim them.

from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint32_t
from libc.string cimport memchr, memcpy

from pixelfast.event.slices cimport Slice

cdef extern from *:
    """
    /* The value of a hexadecimal digit plus one; 0 if it is not a digit. */
    CYTHON_UNUSED static const unsigned char pixelfast_hex[256] = {
        ['0'] = 1, ['1'] = 2, ['2'] = 3, ['3'] = 4, ['4'] = 5,
        ['5'] = 6, ['6'] = 7, ['7'] = 8, ['8'] = 9, ['9'] = 10,
        ['a'] = 11, ['b'] = 12, ['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16,
        ['A'] = 11, ['B'] = 12, ['C'] = 13, ['D'] = 14, ['E'] = 15, ['F'] = 16
    };
    /* ASCII that is the same in a query and in JSON: everything visible and DEL, but not ", %, + and
       the backslash. */
    CYTHON_UNUSED static const unsigned char pixelfast_plain[256] = {
        [0x20 ... 0x21] = 1, [0x23 ... 0x24] = 1, [0x26 ... 0x2A] = 1, [0x2C ... 0x5B] = 1,
        [0x5D ... 0x7F] = 1
    };
    /* Return how many of the next 8 bytes are plain before the first that is not. Each term sets
       the high bit of the bytes it looks for, and possibly of bytes after them. */
    static CYTHON_INLINE int pixelfast_plain_bytes(const char* at) {
        const uint64_t ones = 0x0101010101010101u, high = 0x8080808080808080u;
        uint64_t word, special;
        memcpy(&word, at, 8);
    #if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        word = __builtin_bswap64(word);
    #endif
    #define PIXELFAST_IS(c) (((word ^ ones * (c)) - ones) & ~(word ^ ones * (c)))
        special = word | ((word - ones * 0x20) & ~word) | PIXELFAST_IS('"') | PIXELFAST_IS('%')
            | PIXELFAST_IS('+') | PIXELFAST_IS('\\\\');
    #undef PIXELFAST_IS
        special &= high;
        return special ? __builtin_ctzll(special) >> 3 : 8;
    }
    /* White space and invisible characters: the general categories Cc, Cf, Zs, Zl and Zp of
       Unicode 16, as the first and the last character of each range. */
    CYTHON_UNUSED static const uint32_t pixelfast_invisible[][2] = {
        {0x00, 0x20}, {0x7F, 0xA0}, {0xAD, 0xAD}, {0x600, 0x605}, {0x61C, 0x61C},
        {0x6DD, 0x6DD}, {0x70F, 0x70F}, {0x890, 0x891}, {0x8E2, 0x8E2}, {0x1680, 0x1680},
        {0x180E, 0x180E}, {0x2000, 0x200F}, {0x2028, 0x202F}, {0x205F, 0x2064},
        {0x2066, 0x206F}, {0x3000, 0x3000}, {0xFEFF, 0xFEFF}, {0xFFF9, 0xFFFB},
        {0x110BD, 0x110BD}, {0x110CD, 0x110CD}, {0x13430, 0x1343F}, {0x1BCA0, 0x1BCA3},
        {0x1D173, 0x1D17A}, {0xE0001, 0xE0001}, {0xE0020, 0xE007F}
    };
    #define PIXELFAST_INVISIBLE_RANGES \
        ((int)(sizeof(pixelfast_invisible) / sizeof(pixelfast_invisible[0])))
    """
    const unsigned char HEX "pixelfast_hex" [256]
    const unsigned char PLAIN "pixelfast_plain" [256]
    int plain_bytes "pixelfast_plain_bytes" (const char* at) noexcept nogil
    const uint32_t INVISIBLE "pixelfast_invisible" [1][2]
    int INVISIBLE_RANGES "PIXELFAST_INVISIBLE_RANGES"


cdef inline str decode_string(Slice raw, char* scratch):
    # Decode percent-encoding and UTF-8. `scratch` has space for `raw.length` bytes: decoding never
    # makes a string longer.
    cdef:
        const char* at = raw.at
        const char* end = at + raw.length
        char* out = scratch
        bint has_nul = False
        str string
    if memchr(at, c'%', raw.length) == NULL and memchr(at, c'+', raw.length) == NULL:
        return PyUnicode_DecodeUTF8(at, raw.length, "replace")
    while at < end:
        has_nul = at[0] == c'%' or has_nul
        out[0] = <char>_next_byte(&at, end)
        out += 1
    string = PyUnicode_DecodeUTF8(scratch, out - scratch, "replace")
    return string.replace("\0", "") if has_nul else string


cdef inline Py_ssize_t decode_start(
    char* out, Slice raw, Py_ssize_t limit
) noexcept nogil:
    # Decode at most `limit` bytes from the start of a string; return their number.
    cdef const char* at = raw.at
    cdef const char* end = at + raw.length
    cdef Py_ssize_t used = 0
    while at < end and used < limit:
        out[used] = <char>_next_byte(&at, end)
        used += 1
    return used


cdef inline Py_ssize_t write_json_string(char* out, Slice string, bint is_query) noexcept nogil:
    # Write the JSON string without its quotes, byte for byte as orjson does. Return its length,
    # which is at most twice that of `string`, or -1 if the string is not UTF-8 or has characters
    # that decoding removes or replaces. `out` has space for 8 bytes beyond that.
    cdef:
        const char* raw = string.at
        const char* end = raw + string.length
        char* start = out
        unsigned char c, least, most
        int more, plain
    while raw < end:
        c = <unsigned char>raw[0]
        if PLAIN[c]:
            if end - raw >= 8:
                plain = plain_bytes(raw)
                memcpy(out, raw, 8)
                out += plain
                raw += plain
            else:
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


cdef inline str trim(str string):
    # Remove white space and invisible characters at both ends.
    cdef Py_ssize_t length = len(string), start = 0, end = length
    while start < end and is_invisible(string[start]):
        start += 1
    while end > start and is_invisible(string[end - 1]):
        end -= 1
    return string if end - start == length else string[start:end]


cdef inline bint is_trimmed_json(const char* json, Py_ssize_t length) noexcept nogil:
    # Return whether `trim` would leave the string behind this JSON unchanged. False if unsure: an
    # escape at either end may stand for a control character.
    cdef char first, last
    if length == 0:
        return True
    first, last = json[0], json[length - 1]
    if (
        first == c'\\'
        or (length >= 2 and json[length - 2] == c'\\')
        or (length >= 6 and json[length - 6] == c'\\')
    ):
        return False
    if c'!' <= first <= c'~' and c'!' <= last <= c'~':
        return True  # nearly always
    return _has_visible_ends(json, length)


cdef inline bint _has_visible_ends(const char* string, Py_ssize_t length) noexcept nogil:
    cdef const char* last = string + length - 1
    while (last[0] & 0xC0) == 0x80:
        last -= 1
    return not is_invisible(_code_point(string)) and not is_invisible(_code_point(last))


cdef inline bint is_invisible(Py_UCS4 c) noexcept nogil:
    # Return whether `trim` removes this character: white space, control and format characters.
    cdef int i
    if 0x20 < c < 0x7F:
        return False  # nearly always
    for i in range(INVISIBLE_RANGES):
        if c <= INVISIBLE[i][1]:
            return c >= INVISIBLE[i][0]
    return False


cdef inline Py_UCS4 _code_point(const char* at) noexcept nogil:
    # Return the character at `at`, which must be valid UTF-8.
    cdef const unsigned char* utf8 = <const unsigned char*>at
    cdef uint32_t c = utf8[0]
    if c < 0x80:
        return c
    if c < 0xE0:
        return (c & 0x1F) << 6 | (utf8[1] & 0x3F)
    if c < 0xF0:
        return (c & 0x0F) << 12 | (utf8[1] & 0x3F) << 6 | (utf8[2] & 0x3F)
    return (
        (c & 0x07) << 18
        | (utf8[1] & 0x3F) << 12
        | (utf8[2] & 0x3F) << 6
        | (utf8[3] & 0x3F)
    )


cdef inline unsigned char _next_byte(const char** raw, const char* end) noexcept nogil:
    # Decode the byte at `raw` and advance past it.
    cdef const char* at = raw[0]
    cdef unsigned char high, low
    raw[0] += 1
    if at[0] == c'+':
        return c' '
    if at[0] == c'%' and end - at > 2:
        high = HEX[<unsigned char>at[1]]
        low = HEX[<unsigned char>at[2]]
        if high and low:
            raw[0] += 2
            return <unsigned char>((high - 1) << 4 | (low - 1))
    return <unsigned char>at[0]


cdef inline Py_ssize_t _write_ascii(char* out, unsigned char c) noexcept nogil:
    cdef const char* digits = b"0123456789abcdef"
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
        out[4] = digits[c >> 4]
        out[5] = digits[c & 0x0F]
        return 6
    out[0] = c'\\'
    return 2
