"""Masking the secrets of the settings in whatever comes back from outside.

A destination may repeat our request in its answer, and with it a token; an error may quote a URL.
Answers and errors are logged, stored with dead letters and shown as figures, so they are masked
where they come in, and once more where the log goes out.
"""

from __future__ import annotations

import base64
import contextlib
import html
import json
import re
from bisect import bisect
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

import msgspec

from pixelfast.config.prefixes import Prefixes
from pixelfast.config.schema import Config, WriteKey, unwrap

__all__ = ["MASK", "Redactor"]

MASK = "…"
_MASK_BYTES = MASK.encode()
_SHORT_BYTES = 6  # a secret shorter than this is masked where it stands alone
_LEAST_TAIL_BYTES = 4  # of a secret that was cut at the end; less of it tells nothing
# In URLs and headers: words of every API, which many answers have for reasons of their own.
_NO_SECRETS = {
    *("api", "v1", "v2", "v3", "v4", "http", "https", "services", "in", "input", "ingest"),
    *("collect", "collector", "capture", "event", "events", "track", "batch", "bulk"),
    *("hook", "hooks", "webhook", "webhooks", "json", "ndjson", "gzip", "true", "false", "0", "1"),
}
_WORD = rb"[0-9a-z_]"


class Redactor:
    """Masks the secrets of a configuration, in the forms in which servers give them back.

    >>> from pixelfast.config import Config, HttpDestination
    >>> hook = HttpDestination(
    ...     name="h", url="https://h.example/in/path-token?k=key-in-query", bearer_token="s3cr3t/t"
    ... )
    >>> redactor = Redactor(Config(destinations=(hook,)))
    >>> redactor.text('no: Bearer s3cr3t\\\\/t for /in/path-token?k=key%2Din%2Dquery')
    'no: Bearer … for /in/…?k=…'

    A secret is found as it is, percent-encoded, as JSON and HTML escape it, in base64 and in
    hexadecimal digits, in any letter case. So is the beginning of a secret at the end of a string
    that was cut. Secrets of less than six bytes are masked only where no letter or digit stands
    beside them.
    """

    def __init__(self, config: Config | None = None) -> None:
        forms: set[bytes] = set()
        for secret, is_sent in _secrets(config) if config else ():
            forms |= _forms(secret, is_sent)
        ordered = sorted(forms, key=lambda form: (-len(form), form))
        long = [form for form in ordered if len(form) >= _SHORT_BYTES]
        self._longest = len(long[0]) if long else 0
        self._long = _Starts(long, _SHORT_BYTES)
        self._cut = _Starts(long, _LEAST_TAIL_BYTES)
        short = [re.escape(form) for form in ordered if len(form) < _SHORT_BYTES]
        self._short = None
        if short:
            pattern = rb"(?<!%s)(?:%s)(?!%s)" % (_WORD, b"|".join(short), _WORD)
            self._short = re.compile(pattern)

    def text(self, text: str) -> str:
        """The text with every secret masked."""
        encoded = text.encode("utf-8", "surrogatepass")
        masked = self.data(encoded)
        return text if masked is encoded else masked.decode("utf-8", "surrogatepass")

    def data(self, data: bytes) -> bytes:
        """The bytes with every secret masked; the same object where there was none."""
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

    def all_data(self, parts: Sequence[bytes]) -> list[bytes]:
        """Each of the byte strings as `data` returns it.

        Most have nothing that begins as a secret does: one search in all of them together tells.
        """
        lowered = b"\n".join(parts).lower()
        ends = list(accumulate(len(each) + 1 for each in parts))
        suspects = {bisect(ends, at) for at, _ in self._cut.found_in(lowered)}
        if self._short is not None:
            for match in self._short.finditer(lowered):
                suspects |= {bisect(ends, match.start()), bisect(ends, match.end() - 1)}
        found = list(parts)
        for number in suspects:
            found[number] = self.data(parts[number])
        return found

    def _cut_secret(self, lowered: bytes) -> int:
        """Where the beginning of a secret stands at the end: answers are kept in part."""
        end = len(lowered)
        for at, forms in self._cut.found_in(lowered, max(0, end - self._longest)):
            if any(form.startswith(lowered[at:]) for form in forms):
                return at
        return end


class _Starts:
    """Finds where one of many byte strings may begin, by their first `length` bytes.

    A search for each of them would take longer than the answer took to come.
    """

    def __init__(self, forms: list[bytes], length: int) -> None:
        self._forms: dict[bytes, list[bytes]] = {}
        for form in forms:
            self._forms.setdefault(form[:length], []).append(form)
        self._prefixes = Prefixes(self._forms)
        self._length = length

    def found_in(self, data: bytes, start: int = 0) -> Iterator[tuple[int, list[bytes]]]:
        """Each place, and the strings that begin with the bytes there, the longest first."""
        while (at := self._prefixes.find(data, start)) >= 0:
            start = at + 1
            if forms := self._forms.get(data[at : at + self._length]):
                yield at, forms


def _masked(data: bytes, spans: list[tuple[int, int]]) -> bytes:
    """The data with a mask in the place of each span; those that touch get one together."""
    parts: list[bytes] = []
    end = 0
    for start, stop in sorted(spans):
        if start > end or not parts:
            parts += (data[end:start], _MASK_BYTES)
        end = max(end, stop)
    return b"".join((*parts, data[end:]))


def _secrets(config: Config) -> Iterator[tuple[str, bool]]:
    """Every secret, and whether it is one that we send to somebody who may give it back."""
    for source in config.sources:
        yield from ((each, False) for each in _of_struct_items(source.write_keys))
    for destination in config.destinations:
        yield from ((each, True) for each in _of_struct(destination))


def _of_struct_items(keys: tuple[WriteKey, ...]) -> Iterator[str]:
    for key in keys:
        yield key.key


def _of_struct(struct: msgspec.Struct) -> Iterator[str]:
    for field in msgspec.structs.fields(type(struct)):
        value: Any = getattr(struct, field.name)
        _, extra = unwrap(msgspec.inspect.type_info(field.type))
        if "url" in extra.get("kind", ""):
            yield from _of_url(value)
        elif extra.get("secret"):
            for each in _strings(value):
                if each.lower() not in _NO_SECRETS:
                    yield from _of_value(each)
    # Authorization of RFC 7617: user and password in base64, whichever field is the user.
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
    """A secret, and what it consists of: "Bearer …", "name=…; name=…", "whsec_…"."""
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
    """User, values of the query, and all of the path behind its first segment."""
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
        if each.lower() not in _NO_SECRETS:
            yield each


def _forms(secret: str, is_sent: bool) -> set[bytes]:
    """How a secret may come back, in small letters. An empty one has no form."""
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
        forms.add(secret.encode("latin-1"))  # as HTTP sends headers
    if is_sent:
        forms |= _in_base64(secret.encode("utf-8", "surrogatepass"))
        forms.add(secret.encode("utf-8", "surrogatepass").hex().encode())
    return {form.lower() for form in forms if form}


def _percent_encoded(secret: str) -> str:
    """Every character but letters and digits: some encode `-`, `.` and `_`, too."""
    return "".join(
        char
        if char.isascii() and char.isalnum()
        else quote(char, safe="").replace(char, f"%{ord(char):02X}")
        for char in secret
    )


def _in_base64(secret: bytes) -> set[bytes]:
    """Base64 of a secret wherever it stands in what is encoded, without what its neighbours set."""
    forms = {base64.b64encode(secret), base64.urlsafe_b64encode(secret)}
    if len(secret) >= _SHORT_BYTES:
        for before in range(3):
            encoded = base64.b64encode(b"\0" * before + secret)
            first = (before * 8 + 5) // 6
            last = (before + len(secret)) * 8 // 6
            forms |= {encoded[first:last], encoded[first:last].translate(_URL_SAFE)}
    return forms


_URL_SAFE = bytes.maketrans(b"+/", b"-_")
