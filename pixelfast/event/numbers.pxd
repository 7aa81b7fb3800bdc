# Strings that are numbers: those that a double represents exactly.

from cpython.long cimport PyLong_FromLongLong
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.string cimport memcpy

cdef extern from *:
    """
    CYTHON_UNUSED static const double pixelfast_powers_of_ten[16] = {
        1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15
    };
    """
    const double POWERS_OF_TEN "pixelfast_powers_of_ten" [16]

cdef enum:
    MAX_NUMBER_BYTES = 17       # a longer string is not a number
    MAX_DECIMAL_DIGITS = 15

cdef struct Number:
    bint is_negative
    int before                  # digits before the decimal point
    int after                   # digits after it; 0: there is no point
    long long digits            # all digits as one integer


cdef inline object number_of(str string):
    # Return the number that a string represents, or None.
    cdef:
        Number number
        Py_ssize_t length
        const char* at = PyUnicode_AsUTF8AndSize(string, &length)
    if not _parse_number(at, length, &number):
        return None
    if number.after == 0:
        return PyLong_FromLongLong(-number.digits if number.is_negative else number.digits)
    # A double holds both operands exactly, so one division rounds correctly (Clinger 1990, the fast
    # path).
    return (-1.0 if number.is_negative else 1.0) * (
        <double>number.digits / POWERS_OF_TEN[number.after]
    )


cdef inline Py_ssize_t write_number(char* out, const char* string, Py_ssize_t length) noexcept nogil:
    # Write the number that a string represents as orjson does. Return its length, 0 if the string
    # is not a number, or -1 if orjson uses another notation. With at most 15 digits, the shortest
    # string for the same double is the string that was sent, without trailing zeros.
    cdef Number number
    cdef Py_ssize_t point
    if not _parse_number(string, length, &number):
        return 0
    if number.after:
        point = length - number.after - 1
        if number.after > 4 and number.digits < POWERS_OF_TEN[number.after - 4]:
            return -1  # below 0.0001, which orjson writes with an exponent
        while length > point + 2 and string[length - 1] == c'0':
            length -= 1
    memcpy(out, string, length)
    return length


cdef inline bint _parse_number(
    const char* string, Py_ssize_t length, Number* number
) noexcept nogil:
    cdef long long max_safe_integer = 9007199254740991  # 2^53 - 1
    cdef Py_ssize_t i = 0, start
    if length == 0 or length > MAX_NUMBER_BYTES or string[0] > c'9':
        return False
    number.is_negative = string[0] == c'-'
    number.digits = 0
    number.after = 0
    start = i = 1 if number.is_negative else 0
    while i < length and c'0' <= string[i] <= c'9':
        number.digits = number.digits * 10 + (string[i] - c'0')
        i += 1
    number.before = <int>(i - start)
    if number.before == 0 or (number.before > 1 and string[start] == c'0'):
        return False
    if i == length:
        return number.digits <= max_safe_integer and (number.digits or not number.is_negative)
    if string[i] != c'.':
        return False
    i += 1
    start = i
    while i < length and c'0' <= string[i] <= c'9':
        number.digits = number.digits * 10 + (string[i] - c'0')
        i += 1
    number.after = <int>(i - start)
    return i == length and number.after > 0 and number.before + number.after <= MAX_DECIMAL_DIGITS
