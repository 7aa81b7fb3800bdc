# Times as RFC 3339 strings. They are written in C because each event has four of them: `datetime`
# took 5 µs per event.
#
# Days are counted in the proleptic Gregorian calendar from 0000-01-01 to 9999-12-31.

from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeASCII
from libc.stdint cimport int64_t
from libc.string cimport memcpy

cdef extern from *:
    """
    CYTHON_UNUSED static const int pixelfast_days_of_month[12] = {
        31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31
    };
    /* 0000-01-01T00:00:00Z and 9999-12-31T23:59:59.999Z */
    #define PIXELFAST_FIRST_MS (-62167219200000LL)
    #define PIXELFAST_LAST_MS 253402300799999LL
    """
    const int DAYS_OF_MONTH "pixelfast_days_of_month" [12]
    const int64_t FIRST_MS "PIXELFAST_FIRST_MS"
    const int64_t LAST_MS "PIXELFAST_LAST_MS"

cdef enum:
    TIME_BYTES = 24             # 2026-11-23T10:15:30.123Z
    MAX_TIME_BYTES = 35         # 2026-11-23T10:15:30.123456789+01:00
    MAX_KEPT_OFFSET_M = 1080    # 18 hours; Elasticsearch rejects larger offsets

cdef struct TimeString:
    # The last time written, which most events of one iteration of the event loop share. Initially all
    # zeros.
    int64_t ms
    char string[TIME_BYTES]


cdef inline const char* time_string(TimeString* last, int64_t ms) noexcept nogil:
    # Return TIME_BYTES bytes, valid until the next call.
    if last.ms != ms or last.string[0] == 0:
        write_time(last.string, ms)
        last.ms = ms
    return last.string


cdef inline void write_time(char* out, int64_t ms) noexcept nogil:
    # Write TIME_BYTES bytes. `ms` counts from 1970 and is clamped to the years 0 to 9999.
    cdef:
        int64_t days, rest
        int year = 0, month = 0, day = 0
    ms = min(max(ms, FIRST_MS), LAST_MS)
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


cdef inline str read_time(str string, int64_t* us):
    # Return the time as the event holds it, and set `us` to microseconds since 1970; None if
    # `string` is not a time.
    cdef:
        Py_ssize_t length
        const char* at = PyUnicode_AsUTF8AndSize(string, &length)
        char written[MAX_TIME_BYTES]
    length = rewrite_time(written, at, length, us)
    return PyUnicode_DecodeASCII(written, length, NULL) if length else None


cdef inline Py_ssize_t rewrite_time(
    char* out, const char* at, Py_ssize_t length, int64_t* us
) noexcept nogil:
    # Write the time at `at` as the event holds it, and set `us` to microseconds since 1970. Return
    # its length, at most MAX_TIME_BYTES, or 0 if it is not a time. `at` is NUL-terminated. The form
    # that every destination accepts is kept (RFC 3339 section 5.6 with `T`, with `Z` or an offset
    # up to ±18:00, at most 9 fractional digits and no leap second); other forms are rewritten in
    # UTC.
    cdef bint is_common = False
    cdef int64_t ms
    if length == 10 or length == 13:
        us[0] = _digits(at, length) * (1000000 if length == 10 else 1000)
        if us[0] < 0:
            return 0
    elif not _parse_date_time(at, length, us, &is_common):
        return 0
    if is_common:
        memcpy(out, at, length)
        return length
    ms = us[0] // 1000 if us[0] >= 0 else (us[0] - 999) // 1000
    if not FIRST_MS <= ms <= LAST_MS:
        return 0
    us[0] = ms * 1000
    write_time(out, ms)
    return TIME_BYTES


cdef inline void write_computed_time(
    char* out, int64_t received_us, int64_t original_us, int64_t sent_us
) noexcept nogil:
    # Write TIME_BYTES bytes: when the event occurred by the server's clock. The client's clock may
    # be wrong, but the time between two of its readings is right.
    cdef int64_t us = received_us - (sent_us - original_us)
    # Round down to a millisecond, also before 1970.
    us -= ((us % 1000) + 1000) % 1000
    write_time(out, us // 1000)


cdef inline bint _parse_date_time(
    const char* at, Py_ssize_t length, int64_t* us, bint* is_common
) noexcept nogil:
    # Fractional digits after the sixth are ignored. `at` is NUL-terminated.
    cdef:
        int year, month, day, hour, minute, second = 0, fraction = 0
        int offset_hour, offset_minute, days_of_month
        Py_ssize_t digits = 0, i = 16
        char sign
    if length < 16 or at[4] != c'-' or at[7] != c'-' or at[13] != c':':
        return False
    if at[10] != c'T' and at[10] != c't' and at[10] != c' ':
        return False
    is_common[0] = at[10] == c'T' and at[16] == c':'
    year, month, day = _number(at, 4), _number(at + 5, 2), _number(at + 8, 2)
    hour, minute = _number(at + 11, 2), _number(at + 14, 2)
    if year < 0 or not 1 <= month <= 12:
        return False
    days_of_month = DAYS_OF_MONTH[month - 1] + (1 if month == 2 and _is_leap(year) else 0)
    if not (1 <= day <= days_of_month and 0 <= hour <= 23 and 0 <= minute <= 59):
        return False
    if at[i] == c':':
        second = _number(at + 17, 2)
        if not 0 <= second <= 60:
            return False
        i = 19
        if at[i] == c'.' or at[i] == c',':
            is_common[0] = is_common[0] and at[i] == c'.'
            i += 1
            while c'0' <= at[i] <= c'9':
                if digits < 6:
                    fraction = fraction * 10 + (at[i] - c'0')
                digits += 1
                i += 1
            if digits == 0:
                return False
            is_common[0] = is_common[0] and digits <= 9
            while digits < 6:
                fraction *= 10
                digits += 1
    if second == 60:  # a leap second
        is_common[0] = False
        second, fraction = 59, 999000
    us[0] = (
        _days_from_civil(year, month, day) * 86400 + hour * 3600 + minute * 60 + second
    ) * 1000000 + fraction
    sign = at[i]
    if i == length:
        is_common[0] = False
        return True
    i += 1
    if sign == c'Z' or sign == c'z':
        is_common[0] = is_common[0] and sign == c'Z'
        return i == length
    if sign != c'+' and sign != c'-' and sign != c' ':
        return False  # a space was a `+`, which a query must percent-encode
    offset_hour = _number(at + i, 2)
    if not 0 <= offset_hour <= 23:
        return False
    i += 2
    is_common[0] = is_common[0] and sign != c' ' and at[i] == c':'
    if at[i] == c':':
        i += 1
    offset_minute = _number(at + i, 2)
    if not (0 <= offset_minute <= 59 and i + 2 == length):
        return False
    if offset_hour * 60 + offset_minute > MAX_KEPT_OFFSET_M:
        is_common[0] = False
    us[0] += (1 if sign == c'-' else -1) * (offset_hour * 3600 + offset_minute * 60) * <int64_t>1000000
    return True


cdef inline int64_t _digits(const char* at, Py_ssize_t width) noexcept nogil:
    # Return the value of `width` digits, or -1 if one is not a digit.
    cdef int64_t value = 0
    cdef Py_ssize_t place
    for place in range(width):
        if not c'0' <= at[place] <= c'9':
            return -1
        value = value * 10 + (at[place] - c'0')
    return value


cdef inline bint _is_leap(int year) noexcept nogil:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


cdef inline int64_t _days_from_civil(int64_t year, int month, int day) noexcept nogil:
    # Return the days since 1970-01-01. Years begin in March, so that a leap day is the last day of
    # its year.
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
    # Return the value of `width` digits, or -1 if one is not a digit.
    cdef int place, value = 0
    for place in range(width):
        if not c'0' <= at[place] <= c'9':
            return -1
        value = value * 10 + (at[place] - c'0')
    return value
