"""Times and identifiers: RFC 3339 texts, and UUIDs that sort by time.

Written out in C because each event has five of them: `datetime` and `uuid` took 6 µs an event.
Days are counted with the proleptic Gregorian calendar from 0000-01-01 to 9999-12-31.
"""

from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeASCII
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcpy

import os

__all__ = ["date_time_us", "message_id", "utc_text"]

cdef enum:
    RANDOM_BLOCK = 4000     # bytes taken from the kernel at once
    RANDOM_BYTES = 10       # for one identifier

cdef const char* _DIGITS = b"0123456789abcdef"
cdef int[12] _DAYS_OF_MONTH = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
cdef int64_t FIRST_MS = -62167219200000     # 0000-01-01T00:00:00Z
cdef int64_t LAST_MS = 253402300799999      # 9999-12-31T23:59:59.999Z

cdef bytes _random = b""
cdef int _random_used = 0
cdef int64_t _formatted_ms = FIRST_MS - 1
cdef char[24] _formatted


cdef inline bint _is_leap(int year) noexcept:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


cdef int64_t _days_from_civil(int64_t year, int month, int day) noexcept:
    # Days since 1970-01-01. Years begin in March, so that a leap day is the last of its year.
    cdef int64_t era, year_of_era, day_of_year
    if month <= 2:
        year -= 1
    era = (year if year >= 0 else year - 399) // 400
    year_of_era = year - era * 400
    day_of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return (
        era * 146097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year - 719468
    )


cdef void _civil_from_days(int64_t days, int* year, int* month, int* day) noexcept:
    cdef int64_t era, day_of_era, year_of_era, day_of_year, shifted
    days += 719468
    era = (days if days >= 0 else days - 146096) // 146097
    day_of_era = days - era * 146097
    year_of_era = (
        day_of_era - day_of_era // 1460 + day_of_era // 36524 - day_of_era // 146096
    ) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * day_of_year + 2) // 153
    day[0] = <int>(day_of_year - (153 * shifted + 2) // 5 + 1)
    month[0] = <int>(shifted + (3 if shifted < 10 else -9))
    year[0] = <int>(year_of_era + era * 400 + (1 if month[0] <= 2 else 0))


cdef inline void _put(char* at, int value, int width) noexcept:
    cdef int place
    for place in range(width - 1, -1, -1):
        at[place] = <char>(c'0' + value % 10)
        value //= 10


cdef str format_milliseconds(int64_t milliseconds):
    # `2026-11-23T10:15:30.123Z`. Out of range: the nearest end of it.
    return PyUnicode_DecodeASCII(milliseconds_text(milliseconds), 24, NULL)


cdef const char* milliseconds_text(int64_t milliseconds) noexcept:
    # As `format_milliseconds`: 24 bytes that stay until the next call.
    global _formatted_ms
    cdef:
        char* text = _formatted
        int year = 0, month = 0, day = 0
        int64_t days, rest
    if milliseconds == _formatted_ms:
        return text
    _formatted_ms = milliseconds
    milliseconds = min(max(milliseconds, FIRST_MS), LAST_MS)
    days = milliseconds // 86400000 if milliseconds >= 0 else (milliseconds - 86399999) // 86400000
    rest = milliseconds - days * 86400000
    _civil_from_days(days, &year, &month, &day)
    memcpy(text, b"0000-00-00T00:00:00.000Z", 24)
    _put(text, year, 4)
    _put(text + 5, month, 2)
    _put(text + 8, day, 2)
    _put(text + 11, <int>(rest // 3600000), 2)
    _put(text + 14, <int>(rest // 60000 % 60), 2)
    _put(text + 17, <int>(rest // 1000 % 60), 2)
    _put(text + 20, <int>(rest % 1000), 3)
    return text


cdef inline int _number(const char* at, int width) noexcept:
    # -1 where one of them is no digit.
    cdef int place, value = 0
    for place in range(width):
        if not c'0' <= at[place] <= c'9':
            return -1
        value = value * 10 + (at[place] - c'0')
    return value


cdef bint parse_date_time(str text, int64_t* microseconds):
    # RFC 3339 section 5.6, `date-time`; false where the text is none.
    cdef:
        Py_ssize_t length
        const char* at = PyUnicode_AsUTF8AndSize(text, &length)
        int year, month, day, hour, minute, second, fraction = 0, digits = 0
        int offset_hour, offset_minute, sign, days_of_month
        Py_ssize_t i
    if length < 20 or at[4] != c'-' or at[7] != c'-' or at[13] != c':' or at[16] != c':':
        return False
    if at[10] != c'T' and at[10] != c't':
        return False
    year, month, day = _number(at, 4), _number(at + 5, 2), _number(at + 8, 2)
    hour, minute, second = _number(at + 11, 2), _number(at + 14, 2), _number(at + 17, 2)
    if year < 0 or not 1 <= month <= 12:
        return False
    days_of_month = _DAYS_OF_MONTH[month - 1] + (1 if month == 2 and _is_leap(year) else 0)
    if not (1 <= day <= days_of_month and 0 <= hour <= 23 and 0 <= minute <= 59):
        return False
    if not 0 <= second <= 60:  # 60: a leap second
        return False
    i = 19
    if at[i] == c'.':
        i += 1
        while i < length and c'0' <= at[i] <= c'9':
            if digits < 6:
                fraction = fraction * 10 + (at[i] - c'0')
                digits += 1
            i += 1
        if digits == 0:
            return False
        while digits < 6:
            fraction *= 10
            digits += 1
    microseconds[0] = (
        _days_from_civil(year, month, day) * 86400 + hour * 3600 + minute * 60 + second
    ) * 1000000 + fraction
    if i < length and (at[i] == c'Z' or at[i] == c'z'):
        return i + 1 == length
    if i + 6 != length or at[i + 3] != c':' or (at[i] != c'+' and at[i] != c'-'):
        return False
    sign = 1 if at[i] == c'+' else -1
    offset_hour, offset_minute = _number(at + i + 1, 2), _number(at + i + 4, 2)
    if not (0 <= offset_hour <= 23 and 0 <= offset_minute <= 59):
        return False
    microseconds[0] -= sign * (offset_hour * 3600 + offset_minute * 60) * <int64_t>1000000
    return True


cdef str new_message_id(int64_t milliseconds):
    cdef char text[36]
    write_message_id(text, milliseconds)
    return PyUnicode_DecodeASCII(text, 36, NULL)


cdef int write_message_id(char* text, int64_t milliseconds) except -1:
    # A UUIDv7 (RFC 9562 section 5.7), 36 bytes: 48 bits of time, 74 random bits.
    global _random, _random_used
    cdef:
        uint8_t raw[16]
        const char* random
        int i, at = 0
    if _random_used + RANDOM_BYTES > len(_random):
        _random = os.urandom(RANDOM_BLOCK)
        _random_used = 0
    random = _random
    memcpy(raw + 6, random + _random_used, RANDOM_BYTES)
    _random_used += RANDOM_BYTES
    for i in range(6):
        raw[i] = <uint8_t>(milliseconds >> (40 - 8 * i) & 0xFF)
    raw[6] = 0x70 | (raw[6] & 0x0F)
    raw[8] = 0x80 | (raw[8] & 0x3F)
    for i in range(16):
        if i == 4 or i == 6 or i == 8 or i == 10:
            text[at] = c'-'
            at += 1
        text[at] = _DIGITS[raw[i] >> 4]
        text[at + 1] = _DIGITS[raw[i] & 0x0F]
        at += 2
    return 0


def forget_random():
    global _random
    _random = b""


def utc_text(milliseconds):
    return format_milliseconds(milliseconds)


def date_time_us(str text not None):
    cdef int64_t microseconds = 0
    return microseconds if parse_date_time(text, &microseconds) else None


def message_id(milliseconds):
    return new_message_id(milliseconds)


os.register_at_fork(after_in_child=forget_random)
