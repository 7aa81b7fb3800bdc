"""What single texts are, for the oracle: numbers, names, times, and what is trimmed."""

from __future__ import annotations

import re
import unicodedata

MAX_INTEGER = 2**53 - 1  # §3.2
MAX_DECIMAL_DIGITS = 15  # §3.2

# §3.2: names that never hold a number; the list is compared with case ignored, the endings exactly.
NEVER_NUMBERS = (
    "id version name title path url referrer search locale timezone ip useragent sku zip zipcode "
    "postalcode postal_code phone email token coupon"
)
NEVER_NUMBERS_ENDINGS = ("Id", "ID", "_id", "_ID")


def is_never_number(name: str) -> bool:
    return name.lower() in NEVER_NUMBERS.split() or name.endswith(NEVER_NUMBERS_ENDINGS)


def to_number(text: str) -> int | float | None:
    """The number that `text` is, if a double carries it without loss."""
    digits = sum(char in "0123456789" for char in text)
    if re.fullmatch(r"-?(0|[1-9][0-9]*)", text):
        if text == "-0" or digits > len(str(MAX_INTEGER)) or abs(int(text)) > MAX_INTEGER:
            return None
        return int(text)
    if re.fullmatch(r"-?(0|[1-9][0-9]*)\.[0-9]+", text) and digits <= MAX_DECIMAL_DIGITS:
        return float(text)
    return None


def trim(text: str) -> str:
    """§3.3: without white space and invisible characters at both ends."""
    while text and is_invisible(text[0]):
        text = text[1:]
    while text and is_invisible(text[-1]):
        text = text[:-1]
    return text


def is_invisible(char: str) -> bool:
    if "\U00013430" <= char <= "\U0001343f":
        return True  # since Unicode 15, which not every interpreter has
    return unicodedata.category(char) in ("Cc", "Cf", "Zs", "Zl", "Zp")


def without_quotes(text: str) -> str:
    """§3.3: without one pair of surrounding double quotes."""
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return text[1:-1]
    return text


def is_date_time(text: str) -> bool:
    """§4: an RFC 3339 date-time (its section 5.6)."""
    match = re.fullmatch(
        r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
        r"[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.[0-9]+)?"
        r"(?:[Zz]|[+-]([0-9]{2}):([0-9]{2}))",
        text,
    )
    if match is None:
        return False
    year, month, day, hour, minute, second, *offset = (int(part or "0") for part in match.groups())
    is_date = 1 <= month <= 12 and 1 <= day <= days_of(year, month)
    is_time = hour <= 23 and minute <= 59 and second <= 60
    return is_date and is_time and offset[0] <= 23 and offset[1] <= 59


def days_of(year: int, month: int) -> int:
    if month == 2:
        is_leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
        return 29 if is_leap else 28
    return 30 if month in (4, 6, 9, 11) else 31
