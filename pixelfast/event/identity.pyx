"""Who an event is about: identifiers without the invisible characters around them."""

__all__ = ["trim", "trim_anonymous_id"]

# White space and invisible characters: the general categories Cc, Cf, Zs, Zl and Zp of Unicode 16.
# Written down: to ask `unicodedata` of each character takes a quarter of a second at each start.
cdef tuple _RANGES = (
    (0x00, 0x20), (0x7F, 0xA0), (0xAD, 0xAD), (0x600, 0x605), (0x61C, 0x61C), (0x6DD, 0x6DD),
    (0x70F, 0x70F), (0x890, 0x891), (0x8E2, 0x8E2), (0x1680, 0x1680), (0x180E, 0x180E),
    (0x2000, 0x200F), (0x2028, 0x202F), (0x205F, 0x2064), (0x2066, 0x206F), (0x3000, 0x3000),
    (0xFEFF, 0xFEFF), (0xFFF9, 0xFFFB), (0x110BD, 0x110BD), (0x110CD, 0x110CD),
    (0x13430, 0x1343F), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0001, 0xE0001),
    (0xE0020, 0xE007F),
)
cdef str _INVISIBLE = "".join(
    [chr(code) for first, last in _RANGES for code in range(first, last + 1)]
)


cpdef str trim(str text):
    cdef Py_ssize_t length = len(text)
    cdef Py_UCS4 first, last
    if length == 0:
        return text
    first, last = text[0], text[length - 1]
    if 0x20 < first < 0x7F and 0x20 < last < 0x7F:
        return text  # nearly all of them; `strip` with 234 characters costs ten times as much
    return text.strip(_INVISIBLE)


cpdef str trim_anonymous_id(str text):
    cdef str trimmed = trim(text)
    cdef Py_ssize_t last = len(trimmed) - 1
    if last >= 1 and trimmed[0] == '"' and trimmed[last] == '"':
        return trim(trimmed[1:last])
    return trimmed
