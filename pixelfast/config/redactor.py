"""Masks the secrets of the settings in data from outside.

A destination may repeat a request in its response, with the token in it; an error may quote a URL.
Responses and errors are logged, stored with dead letters and shown at the admin address. Therefore
they are masked when they arrive, and again when they are logged.
"""

from __future__ import annotations

import base64
import contextlib
import html
import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

import msgspec

from pixelfast.config.prefixes import Prefixes
from pixelfast.config.schema import Config, WriteKey, unwrap

__all__ = ["MASK", "Redactor"]

MASK = "…"
_MASK_BYTES = MASK.encode()
_SHORT_BYTES = 6  # a shorter secret is masked only as a separate word
_MIN_TAIL_BYTES = 4  # of a secret that is truncated; fewer bytes reveal nothing
# Common words of APIs in URLs and headers, which many responses contain for other reasons.
_COMMON_WORDS = {
    *("api", "v1", "v2", "v3", "v4", "http", "https", "services", "in", "input", "ingest"),
    *("collect", "collector", "capture", "event", "events", "track", "batch", "bulk"),
    *("hook", "hooks", "webhook", "webhooks", "json", "ndjson", "gzip", "true", "false", "0", "1"),
}
_WORD = rb"[0-9a-z_]"


class Redactor:
    """Masks the secrets of the settings, in the encodings in which servers return them.

    >>> from pixelfast.config import Config, HttpDestination
    >>> hook = HttpDestination(
    ...     name="h", url="https://h.example/in/path-token?k=key-in-query", bearer_token="s3cr3t/t"
    ... )
    >>> redactor = Redactor(Config(destinations=(hook,)))
    >>> redactor.text('no: Bearer s3cr3t\\\\/t for /in/path-token?k=key%2Din%2Dquery')
    'no: Bearer … for /in/…?k=…'

    Secrets are found verbatim, percent-encoded, escaped as in JSON and HTML, in base64 and in
    hexadecimal digits, in upper and lower case. The beginning of a secret at the end of a truncated
    string is found as well. A secret of fewer than six bytes is masked only if no letter or digit
    is next to it.
    """

    def __init__(self, config: Config | None = None) -> None:
        forms: set[bytes] = set()
        for secret, is_sent in _secrets(config) if config else ():
            forms |= _forms(secret, is_sent)
        ordered = sorted(forms, key=lambda form: (-len(form), form))
        long = [form for form in ordered if len(form) >= _SHORT_BYTES]
        self._longest = len(long[0]) if long else 0
        self._long = _Starts(long, _SHORT_BYTES)
        self._cut = _Starts(long, _MIN_TAIL_BYTES)
        short = [re.escape(form) for form in ordered if len(form) < _SHORT_BYTES]
        self._short = None
        if short:
            pattern = rb"(?<!%s)(?:%s)(?!%s)" % (_WORD, b"|".join(short), _WORD)
            self._short = re.compile(pattern)

    def text(self, text: str) -> str:
        """Return a string with every secret masked."""
        encoded = text.encode("utf-8", "surrogatepass")
        masked = self.data(encoded)
        return text if masked is encoded else masked.decode("utf-8", "surrogatepass")

    def data(self, data: bytes) -> bytes:
        """Return bytes with every secret masked; return the same object if there is none."""
        lowered = data.lower()
        spans: list[tuple[int, int]] = []
        for at, forms in self._long.found_in(lowered):
            form = next((each for each in forms if lowered.startswith(each, at)), b"")
            if form:
                spans.append((at, at + len(form)))
        if self._short is not None:
            spans += [match.span() for match in self._short.finditer(lowered)]
        tail = self._cut_secret(lowered)
        if tail < len(data):
            spans.append((tail, len(data)))
        return _masked(data, spans) if spans else data

    def suspects(self, data: bytes, end_of: Callable[[int], int]) -> set[int]:
        """Return positions at which a secret may begin, in data that consists of several parts.

        `data` returns all parts without such a position unchanged. One search of all parts is
        faster than a call of `data` for each of them. `end_of` returns where the part at a position
        ends; each search continues there, because one position in a part is enough.
        """
        lowered = data.lower()
        found: set[int] = set()
        for search in (self._cut.first_in, self._first_short_in):
            start = 0
            while (at := search(lowered, start)) >= 0:
                found.add(at)
                start = end_of(at)
        return found

    def _first_short_in(self, lowered: bytes, start: int) -> int:
        match = self._short.search(lowered, start) if self._short is not None else None
        return match.start() if match else -1

    def _cut_secret(self, lowered: bytes) -> int:
        """Return where a truncated secret begins at the end of the data, or the data's length."""
        end = len(lowered)
        for at, forms in self._cut.found_in(lowered, max(0, end - self._longest)):
            if any(form.startswith(lowered[at:]) for form in forms):
                return at
        return end


class _Starts:
    """Finds where one of many byte strings may begin, by their first `length` bytes.

    A separate search for each byte string would take too long.
    """

    def __init__(self, forms: list[bytes], length: int) -> None:
        self._forms: dict[bytes, list[bytes]] = {}
        for form in forms:
            self._forms.setdefault(form[:length], []).append(form)
        self._prefixes = Prefixes(self._forms)
        self._length = length

    def found_in(self, data: bytes, start: int = 0) -> Iterator[tuple[int, list[bytes]]]:
        """Yield each place, and the strings that begin with the bytes there, longest first."""
        while (at := self._prefixes.find(data, start)) >= 0:
            start = at + 1
            if forms := self._forms.get(data[at : at + self._length]):
                yield at, forms

    def first_in(self, data: bytes, start: int) -> int:
        """Return the first such position, or -1."""
        return next((at for at, _ in self.found_in(data, start)), -1)


def _masked(data: bytes, spans: list[tuple[int, int]]) -> bytes:
    """Replace each span by a mask; adjacent spans share one."""
    parts: list[bytes] = []
    end = 0
    for start, stop in sorted(spans):
        if start > end or not parts:
            parts += (data[end:start], _MASK_BYTES)
        end = max(end, stop)
    return b"".join((*parts, data[end:]))


def _secrets(config: Config) -> Iterator[tuple[str, bool]]:
    """Yield every secret, and whether it is sent to a destination, which may return it."""
    for source in config.sources:
        yield from ((each, False) for each in _of_struct_items(source.write_keys))
    for destination in config.destinations:
        yield from ((each, True) for each in _of_struct(destination))
    if config.cluster is not None:
        yield from ((each, True) for each in _of_struct(config.cluster))


def _of_struct_items(keys: tuple[WriteKey, ...]) -> Iterator[str]:
    for key in keys:
        yield key.key


def _of_struct(struct: msgspec.Struct) -> Iterator[str]:
    for field in msgspec.structs.fields(type(struct)):
        value: Any = getattr(struct, field.name)
        _, extra = unwrap(field.type)
        if "url" in extra.get("kind", ""):
            yield from _of_url(value)
        elif extra.get("secret"):
            for each in _strings(value):
                if each.lower() not in _COMMON_WORDS:
                    yield from _of_value(each)
    # RFC 7617: user and password are encoded together, whichever field has the user.
    user = getattr(struct, "username", "") or getattr(struct, "write_key", "")
    password = getattr(struct, "password", None) or ""
    if user and (password or hasattr(struct, "write_key")):
        yield f"{user}:{password}"


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, tuple):
        yield from value


def _of_value(value: str) -> Iterator[str]:
    """Yield a secret and its parts: those of "Bearer …", "name=…; name=…" and "whsec_…"."""
    yield value
    if value.startswith("whsec_"):
        yield value.removeprefix("whsec_")
    for part in re.split(r"[\s;,]+", value):
        for piece in {part, part.partition("=")[2]}:
            if len(piece) > _SHORT_BYTES:
                yield piece
        with contextlib.suppress(ValueError):  # basic authentication in `headers`
            user, colon, password = base64.b64decode(part, validate=True).decode().partition(":")
            if colon and user.isprintable() and password.isprintable():
                yield password


def _of_url(url: str) -> Iterator[str]:
    """Yield the user, the values of the query, and the path segments after the first."""
    try:
        parts = urlsplit(url)
    except ValueError:
        yield url
        return
    user, at, _ = parts.netloc.rpartition("@")
    if at:
        yield user
        yield user.partition(":")[2]
    behind = [each for each in parts.path.split("/") if each][1:]
    values = [value for _, value in parse_qsl(parts.query, keep_blank_values=True)]
    raw = [each.partition("=")[2] or each for each in parts.query.split("&")]
    for each in (*behind, *map(unquote, behind), *values, *raw):
        if each.lower() not in _COMMON_WORDS:
            yield each


def _forms(secret: str, is_sent: bool) -> set[bytes]:
    """Return a secret in the encodings in which it may be returned, in lower case."""
    if not secret:
        return set()
    in_json = json.dumps(secret, ensure_ascii=False)[1:-1]
    in_html = html.escape(secret)
    written = {
        secret,
        quote(secret, safe=""),
        quote(secret),
        quote_plus(secret),
        _percent_encoded(secret),
        in_json,
        json.dumps(secret)[1:-1],
        in_json.replace("/", "\\/"),
        json.dumps(in_json)[1:-1],
        re.sub(r"[<>&=+'/]", lambda match: f"\\u{ord(match[0]):04x}", in_json),
        re.sub(r"[<>&]", lambda match: f"\\u{ord(match[0]):04x}", in_json),
        in_html,
        html.escape(secret, quote=False),
        in_html.replace("&#x27;", "&#39;"),
        in_html.replace("&#x27;", "&#39;").replace("&quot;", "&#34;"),
        re.sub(r"[^0-9A-Za-z]", lambda match: f"&#{ord(match[0])};", secret),
        re.sub(r"[^0-9A-Za-z]", lambda match: f"&#x{ord(match[0]):x};", secret),
        repr(secret)[1:-1],
    }
    forms = {form.encode("utf-8", "surrogatepass") for form in written}
    with contextlib.suppress(UnicodeEncodeError):
        forms.add(secret.encode("latin-1"))  # the encoding of HTTP headers
    if is_sent:
        forms |= _in_base64(secret.encode("utf-8", "surrogatepass"))
        forms.add(secret.encode("utf-8", "surrogatepass").hex().encode())
    return {form.lower() for form in forms if form}


def _percent_encoded(secret: str) -> str:
    """Encode everything except letters and digits, because some encode `-`, `.` and `_`."""
    return "".join(
        char
        if char.isascii() and char.isalnum()
        else quote(char, safe="").replace(char, f"%{ord(char):02X}")
        for char in secret
    )


def _in_base64(secret: bytes) -> set[bytes]:
    """Return the base64 of a secret at any offset, without the digits that its neighbors change."""
    forms = {base64.b64encode(secret), base64.urlsafe_b64encode(secret)}
    if len(secret) >= _SHORT_BYTES:
        for before in range(3):
            encoded = base64.b64encode(b"\0" * before + secret)
            first = (before * 8 + 5) // 6
            last = (before + len(secret)) * 8 // 6
            forms |= {encoded[first:last], encoded[first:last].translate(_URL_SAFE)}
    return forms


_URL_SAFE = bytes.maketrans(b"+/", b"-_")
