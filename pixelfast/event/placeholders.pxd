# Placeholders: ids that a template should have replaced. An event store would merge all visitors
# that share such an id.

from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.string cimport memcmp

from pixelfast.event.slices cimport Slice


cdef extern from *:
    """
    /* Return whether one of 8 bytes is {, [, |, a backslash, % or (, or a control character. Setting
       bit 0x20 first lets one comparison find two characters. */
    static CYTHON_INLINE int pixelfast_has_tag_byte(const char* at) {
        const uint64_t ones = 0x0101010101010101u, high = 0x8080808080808080u;
        uint64_t word;
        memcpy(&word, at, 8);
        word |= ones * 0x20;
    #define PIXELFAST_IS(c) (((word ^ ones * (c)) - ones) & ~(word ^ ones * (c)))
        return ((PIXELFAST_IS('{') | PIXELFAST_IS('|') | PIXELFAST_IS('%') | PIXELFAST_IS('(')) & high)
            != 0;
    #undef PIXELFAST_IS
    }
    """
    bint has_tag_byte "pixelfast_has_tag_byte" (const char* at) noexcept nogil


cdef inline bint is_placeholder(str string, Slice sent) except -1:
    # `string` is trimmed and unquoted; `sent` is the undecoded value. `%%DEVICE_ID%%` contains a
    # valid escape (`%DE`), so decoding destroys the name.
    cdef Py_ssize_t length
    cdef const char* at = PyUnicode_AsUTF8AndSize(string, &length)
    if at == NULL:
        return False
    if not may_be_placeholder(at, length):
        return False
    return (
        _is_unset(at, length)
        or (string.endswith(")") and string.startswith(("CLIENT_ID(", "QUERY_PARAM(")))
        or string == "[object Object]"
        or string == "(null)"
        or _holds(string, "{{", "}}")
        or _holds(string, "{%", "%}")
        or _holds(string, "<%", "%>")
        or _holds(string, "${", "}")
        or _holds(string, "*|", "|*")
        or _holds(string, "[[", "]]")
        or _holds_percent_tag(at, length)
        or _holds_percent_tag(sent.at, sent.length)
    )


cdef inline bint may_be_placeholder(const char* string, Py_ssize_t length) noexcept nogil:
    # Return False for nearly all real ids, cheaply. `string` may also be JSON; the result is True
    # if it has a backslash. A `%%` in the query leaves a `%` in the decoded string.
    cdef Py_ssize_t i
    if length >= 8:
        for i in range(0, length - 7, 8):
            if has_tag_byte(string + i):
                return True
        return has_tag_byte(string + length - 8) or _is_unset(string, length)
    for i in range(length):
        if 0x7B <= (string[i] | 0x20) <= 0x7C or string[i] == c'%' or string[i] == c'(':
            return True
    return _is_unset(string, length)


cdef inline bint _is_unset(const char* at, Py_ssize_t length) noexcept nogil:
    # The strings that JavaScript, Python and others write for an unset variable, and the names of
    # AMP variables.
    if length == 4:
        return (
            memcmp(at, b"null", 4) == 0
            or memcmp(at, b"NULL", 4) == 0
            or memcmp(at, b"none", 4) == 0
            or memcmp(at, b"None", 4) == 0
        )
    if length == 9:
        return memcmp(at, b"undefined", 9) == 0
    if length == 3:
        return memcmp(at, b"NaN", 3) == 0
    if length == 12:
        return memcmp(at, b"PAGE_VIEW_ID", 12) == 0
    if length == 15:
        return memcmp(at, b"PAGE_VIEW_ID_64", 15) == 0
    if length == 10:
        return memcmp(at, b"SESSION_ID", 10) == 0
    return False


cdef inline bint _holds(str string, str before, str after) except -1:
    # `str.find` takes linear time for any input.
    cdef Py_ssize_t start = string.find(before)
    return start >= 0 and string.find(after, start + len(before)) >= 0


cdef inline bint _holds_percent_tag(const char* at, Py_ssize_t length) noexcept nogil:
    # Return whether the string contains `%%NAME%%` or AMPscript's `%%=NAME%%`.
    cdef Py_ssize_t start, i
    for start in range(length - 4):
        if at[start] != c'%' or at[start + 1] != c'%':
            continue
        i = start + 2
        if at[i] == c'=':
            i += 1
        if i == length or not (c'a' <= (at[i] | 0x20) <= c'z' or at[i] == c'_'):
            continue
        while i < length and at[i] != c'%':
            i += 1
        if i + 1 < length and at[i + 1] == c'%':
            return True
    return False
