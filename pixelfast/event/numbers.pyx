"""Which texts are numbers: those that a double carries without loss."""

from cpython.long cimport PyLong_FromLongLong
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.string cimport memcpy

cdef enum:
    MAX_CHARACTERS = 17
    MAX_DECIMAL_DIGITS = 15

cdef long long MAX_SAFE_INTEGER = 9007199254740991  # 2^53 - 1
cdef double[16] _POWERS_OF_TEN
cdef int _i
for _i in range(16):
    _POWERS_OF_TEN[_i] = 10.0 ** _i

cdef struct Number:
    bint is_negative
    int before              # digits before the point
    int after               # and behind it; 0 where there is no point
    long long digits        # all of them, as one integer


cdef bint _parse(const char* text, Py_ssize_t length, Number* number) noexcept nogil:
    cdef Py_ssize_t i = 0, start
    if length == 0 or length > MAX_CHARACTERS or text[0] > c'9':
        return False
    number.is_negative = text[0] == c'-'
    number.digits = 0
    number.after = 0
    start = i = 1 if number.is_negative else 0
    while i < length and c'0' <= text[i] <= c'9':
        number.digits = number.digits * 10 + (text[i] - c'0')
        i += 1
    number.before = <int>(i - start)
    if number.before == 0 or (number.before > 1 and text[start] == c'0'):
        return False
    if i == length:
        return number.digits <= MAX_SAFE_INTEGER and (number.digits or not number.is_negative)
    if text[i] != c'.':
        return False
    i += 1
    start = i
    while i < length and c'0' <= text[i] <= c'9':
        number.digits = number.digits * 10 + (text[i] - c'0')
        i += 1
    number.after = <int>(i - start)
    return i == length and number.after > 0 and number.before + number.after <= MAX_DECIMAL_DIGITS


cdef object number_of(str text):
    # The number a text stands for, or None.
    cdef:
        Number number
        Py_ssize_t length
        const char* characters = PyUnicode_AsUTF8AndSize(text, &length)
    if not _parse(characters, length, &number):
        return None
    if number.after == 0:
        return PyLong_FromLongLong(-number.digits if number.is_negative else number.digits)
    # Both fit a double exactly, so one division rounds correctly (Clinger 1990, the fast path).
    return (-1.0 if number.is_negative else 1.0) * (
        <double>number.digits / _POWERS_OF_TEN[number.after]
    )


cdef Py_ssize_t write_number(char* out, const char* text, Py_ssize_t length) noexcept nogil:
    # As orjson writes the number that a text stands for; 0 where it is none, -1 where another
    # notation would be written. With 15 digits or less, the shortest text that gives the same
    # double is the one that came, without zeros at its end.
    cdef Number number
    cdef Py_ssize_t point
    if not _parse(text, length, &number):
        return 0
    if number.after:
        point = length - number.after - 1
        if number.after > 4 and number.digits < _POWERS_OF_TEN[number.after - 4]:
            return -1  # less than 0.0001: with an exponent
        while length > point + 2 and text[length - 1] == c'0':
            length -= 1
    memcpy(out, text, length)
    return length
