"""The oracle's rules for single strings: numbers, names, times, placeholders and trimming."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime, timedelta

MAX_INTEGER = 2**53 - 1  # §3.2
MAX_DECIMAL_DIGITS = 15  # §3.2
MAX_KEPT_OFFSET = timedelta(hours=18)  # §4: Elasticsearch rejects larger offsets

# §3.2: names that never hold a number. The list is compared ignoring case, the endings exactly.
NEVER_NUMBERS = (
    "id version name title path url referrer search locale timezone ip useragent sku zip zipcode "
    "postalcode postal_code phone email token coupon build"
)
NEVER_NUMBERS_ENDINGS = (
    *("Id", "ID", "_id", "_ID"),
    *("_version", "-version", "Version", "appversion", "osversion"),
)

# §3.3: values that a template should have replaced. The first are compared as a whole.
PLACEHOLDERS = frozenset(
    {"undefined", "null", "NULL", "none", "None", "NaN", "(null)", "[object Object]"}
)
MERGE_TAGS = (
    r"\{\{.*\}\}",
    r"\{%.*%\}",
    r"<%.*%>",
    r"\$\{.*\}",
    r"\*\|.*\|\*",
    r"\[\[.*\]\]",
)
PERCENT_TAG = r"%%=?[A-Za-z_][^%]*%%"  # also searched in the undecoded value
AMP_VARIABLE = r"(CLIENT_ID|QUERY_PARAM)\(.*\)|PAGE_VIEW_ID(_64)?|SESSION_ID"


def is_never_number(name: str) -> bool:
    return name.lower() in NEVER_NUMBERS.split() or name.endswith(NEVER_NUMBERS_ENDINGS)


def to_number(string: str) -> int | float | None:
    """Return the number that a string represents, if a double represents it exactly."""
    digits = sum(char in "0123456789" for char in string)
    if re.fullmatch(r"-?(0|[1-9][0-9]*)", string):
        if string == "-0" or digits > len(str(MAX_INTEGER)) or abs(int(string)) > MAX_INTEGER:
            return None
        return int(string)
    if re.fullmatch(r"-?(0|[1-9][0-9]*)\.[0-9]+", string) and digits <= MAX_DECIMAL_DIGITS:
        return float(string)
    return None


def trim(string: str) -> str:
    """Remove white space and invisible characters at both ends (§3.3)."""
    while string and is_invisible(string[0]):
        string = string[1:]
    while string and is_invisible(string[-1]):
        string = string[:-1]
    return string


def is_invisible(char: str) -> bool:
    if "\U00013430" <= char <= "\U0001343f":
        return True  # since Unicode 15, which some interpreters lack
    return unicodedata.category(char) in ("Cc", "Cf", "Zs", "Zl", "Zp")


def without_quotes(string: str) -> str:
    """Remove one pair of surrounding double quotes (§3.3)."""
    if len(string) >= 2 and string[0] == string[-1] == '"':
        return string[1:-1]
    return string


def is_placeholder(string: str, sent: str) -> bool:
    """Return whether a trimmed id is a placeholder; `sent` is its undecoded value (§3.3)."""
    if string in PLACEHOLDERS or re.fullmatch(AMP_VARIABLE, string, re.DOTALL):
        return True
    if any(re.search(pattern, string, re.DOTALL) for pattern in MERGE_TAGS):
        return True
    return any(re.search(PERCENT_TAG, each) for each in (string, sent))


def date_time(string: str) -> str | None:
    """Return a time as the event holds it, or None if the string is not a time (§4).

    The form that every destination accepts is kept as sent; other forms are converted to UTC with
    milliseconds, like `receivedAt`.
    """
    string = trim(string)
    if re.fullmatch(r"[0-9]{10}", string):
        return milliseconds(int(string) * 1000)
    if re.fullmatch(r"[0-9]{13}", string):
        return milliseconds(int(string))
    match = re.fullmatch(
        r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
        r"([Tt ])([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:([.,])([0-9]+))?)?"
        r"(?:([Zz])|([+ -])([0-9]{2})(:?)([0-9]{2}))?",
        string,
    )
    if match is None:
        return None
    year, month, day = (int(match[n]) for n in (1, 2, 3))
    hour, minute, second = int(match[5]), int(match[6]), int(match[7] or 0)
    point, fraction, zulu, sign, colon = match[8], match[9] or "", match[10], match[11], match[13]
    offset_hour, offset_minute = int(match[12] or 0), int(match[14] or 0)
    if not (1 <= month <= 12 and 1 <= day <= days_of(year, month)):
        return None
    if hour > 23 or minute > 59 or second > 60 or offset_hour > 23 or offset_minute > 59:
        return None
    is_common = match[4] == "T" and match[7] and point != "," and len(fraction) <= 9
    has_offset = zulu == "Z" or (sign in ("+", "-") and colon)
    offset = timedelta(hours=offset_hour, minutes=offset_minute)
    if is_common and has_offset and second < 60 and offset <= MAX_KEPT_OFFSET:
        return string
    if second == 60:
        second, fraction = 59, "999"
    # `datetime` begins with the year 1: 400 years later is the same day of the week.
    moment = (
        datetime(year + 400, month, day, hour, minute, second, tzinfo=UTC) if year < 9600 else None
    )
    shifted = 400 if moment else -400
    moment = moment or datetime(year - 400, month, day, hour, minute, second, tzinfo=UTC)
    moment += offset if sign == "-" else -offset
    year = moment.year - shifted
    if not 0 <= year <= 9999:
        return None
    return f"{year:04}-{moment:%m-%dT%H:%M:%S}.{(fraction + '000')[:3]}Z"


def milliseconds(since_1970: int) -> str:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=since_1970)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{since_1970 % 1000:03}Z"


def days_of(year: int, month: int) -> int:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in (4, 6, 9, 11) else 31
