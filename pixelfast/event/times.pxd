# Times as RFC 3339 strings, in C because each event has four of them: `datetime` took 5 us an event.
# Days are counted with the proleptic Gregorian calendar from 0000-01-01 to 9999-12-31.

from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport int64_t
from libc.string cimport memcpy

cdef extern from *:
    """
    CYTHON_UNUSED static const int pixelfast_days_of_month[12] = {
        31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31
    };
    """
    const int DAYS_OF_MONTH "pixelfast_days_of_month" [12]

cdef enum:
    TIME_BYTES = 24     # 2026-11-23T10:15:30.123Z

cdef struct TimeString:
    # The last time that was written: most events of one turn of the loop share it. Zeroed: none.
    int64_t ms
    char string[TIME_BYTES]


cdef inline const char* time_string(TimeString* last, int64_t ms) noexcept nogil:
    # TIME_BYTES bytes that are valid until the next call.
    if last.ms != ms or last.string[0] == 0:
        write_time(last.string, ms)
        last.ms = ms
    return last.string


cdef inline void write_time(char* out, int64_t ms) noexcept nogil:
    # TIME_BYTES bytes. `ms` since 1970; out of range, the nearest time of the years 0 to 9999.
    cdef:
        int64_t first_ms = -62167219200000  # 0000-01-01T00:00:00Z
        int64_t last_ms = 253402300799999   # 9999-12-31T23:59:59.999Z
        int64_t days, rest
        int year = 0, month = 0, day = 0
    ms = min(max(ms, first_ms), last_ms)
    days = ms // 86400000 if ms >= 0 else (ms - 86399999) // 86400000
    rest = ms - days * 86400000
    _civil_from_days(days, &year, &month, &day)
    memcpy(out, b"0000-00-00T00:00:00.000Z", TIME_BYTES)
    _put(out, year, 4)
    _put(out + 5, month, 2)
    _put(out + 8, day, 2)
    _put(out + 11, <int>(rest // 3600000), 2)
    _put(out + 14, <int>(rest // 60000 % 60), 2)
    _put(out + 17, <int>(rest // 1000 % 60), 2)
    _put(out + 20, <int>(rest % 1000), 3)


cdef inline int parse_date_time(str string, int64_t* us) except -1:
    # Read an RFC 3339 date-time (section 5.6) as microseconds since 1970; 0: it is not one. Digits
    # of a second after the sixth are cut off.
    cdef:
        Py_ssize_t length
        const char* at = PyUnicode_AsUTF8AndSize(string, &length)
        int year, month, day, hour, minute, second, fraction = 0, digits = 0
        int offset_hour, offset_minute, sign, days_of_month
        Py_ssize_t i
    if length < 20 or at[4] != c'-' or at[7] != c'-' or at[13] != c':' or at[16] != c':':
        return 0
    if at[10] != c'T' and at[10] != c't':
        return 0
    year, month, day = _number(at, 4), _number(at + 5, 2), _number(at + 8, 2)
    hour, minute, second = _number(at + 11, 2), _number(at + 14, 2), _number(at + 17, 2)
    if year < 0 or not 1 <= month <= 12:
        return 0
    days_of_month = DAYS_OF_MONTH[month - 1] + (1 if month == 2 and _is_leap(year) else 0)
    if not (1 <= day <= days_of_month and 0 <= hour <= 23 and 0 <= minute <= 59):
        return 0
    if not 0 <= second <= 60:  # 60: a leap second
        return 0
    i = 19
    if at[i] == c'.':
        i += 1
        while i < length and c'0' <= at[i] <= c'9':
            if digits < 6:
                fraction = fraction * 10 + (at[i] - c'0')
                digits += 1
            i += 1
        if digits == 0:
            return 0
        while digits < 6:
            fraction *= 10
            digits += 1
    us[0] = (
        _days_from_civil(year, month, day) * 86400 + hour * 3600 + minute * 60 + second
    ) * 1000000 + fraction
    if i < length and (at[i] == c'Z' or at[i] == c'z'):
        return i + 1 == length
    if i + 6 != length or at[i + 3] != c':' or (at[i] != c'+' and at[i] != c'-'):
        return 0
    sign = 1 if at[i] == c'+' else -1
    offset_hour, offset_minute = _number(at + i + 1, 2), _number(at + i + 4, 2)
    if not (0 <= offset_hour <= 23 and 0 <= offset_minute <= 59):
        return 0
    us[0] -= sign * (offset_hour * 3600 + offset_minute * 60) * <int64_t>1000000
    return 1


cdef inline bint _is_leap(int year) noexcept nogil:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


cdef inline int64_t _days_from_civil(int64_t year, int month, int day) noexcept nogil:
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


cdef inline void _civil_from_days(int64_t days, int* year, int* month, int* day) noexcept nogil:
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


cdef inline void _put(char* at, int value, int width) noexcept nogil:
    cdef int place
    for place in range(width - 1, -1, -1):
        at[place] = <char>(c'0' + value % 10)
        value //= 10


cdef inline int _number(const char* at, int width) noexcept nogil:
    # -1: not all of them are digits.
    cdef int place, value = 0
    for place in range(width):
        if not c'0' <= at[place] <= c'9':
            return -1
        value = value * 10 + (at[place] - c'0')
    return value
