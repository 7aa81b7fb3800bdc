"""Secrets of the settings are masked in every encoding in which a server may return them."""

from __future__ import annotations

import base64
import html
import json
from bisect import bisect
from collections.abc import Callable
from itertools import accumulate
from typing import Any
from urllib.parse import quote, quote_plus

import pytest

from pixelfast.config import Redactor
from pixelfast.config.reader import config_from_table

SECRET = "Tok3n/with+specials=&<x>'\"~"
SIGNING = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
HOOK = {"name": "h", "type": "http", "url": "https://h.example/"}


def redactor_of(**fields: Any) -> Redactor:
    return Redactor(config_from_table({"destinations": [{**HOOK, **fields}]}))


FORMS: dict[str, Callable[[str], str]] = {
    "as it is": lambda text: text,
    "percent-encoded": lambda text: quote(text, safe=""),
    "percent-encoded, small": lambda text: quote(text, safe="").lower(),
    "percent-encoded except for slashes": quote,
    "as a form": quote_plus,
    "JSON": lambda text: json.dumps(text)[1:-1],
    "JSON with escaped slashes": lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    "JSON in JSON": lambda text: json.dumps(json.dumps(text)[1:-1])[1:-1],
    "HTML": html.escape,
    "HTML with decimal numbers": lambda text: html.escape(text).replace("&#x27;", "&#39;"),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 of more": lambda text: base64.b64encode(f"Authorization: {text}\r\n".encode()).decode(),
    "base64 for URLs": lambda text: base64.urlsafe_b64encode(f"a{text}".encode()).decode(),
    "hexadecimal": lambda text: text.encode().hex(),
    "hexadecimal, large": lambda text: text.encode().hex().upper(),
    "small letters": str.lower,
    "capitals": str.upper,
    "Python": lambda text: repr(text)[1:-1],
}


@pytest.mark.parametrize("form", FORMS)
def test_a_secret_is_masked_in_every_encoding(form: str) -> None:
    redactor = redactor_of(headers={"X-Key": SECRET})
    given_back = FORMS[form](SECRET)
    masked = redactor.text(f"before {given_back} behind")
    assert masked.startswith("before ")
    assert masked.endswith(" behind")
    left = masked.removeprefix("before ").removesuffix(" behind")
    # The first and last base64 digits depend on the neighboring bytes.
    assert len(left.replace("…", "")) <= (24 if form.startswith("base64 of") else 4)
    assert "…" in left


FIELDS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "bearer token": ({"bearer_token": "tok-1234567"}, ["tok-1234567"]),
    "password": ({"username": "u", "password": "pass word"}, ["pass word", "dTpwYXNzIHdvcmQ="]),
    "header": ({"headers": {"Authorization": "Bearer tok-12345"}}, ["tok-12345"]),
    "cookie": ({"headers": {"Cookie": "sid=cookie-12345; a=b"}}, ["cookie-12345"]),
    "basic in a header": ({"headers": {"Authorization": "Basic dTpwYXNzd29yZA=="}}, ["password"]),
    "signing secret": ({"signing_secrets": [SIGNING]}, [SIGNING, SIGNING[6:]]),
    "query": ({"url": "https://h.example/in?token=qu-ery&x=%2Fab%2Fcd"}, ["qu-ery", "/ab/cd"]),
    "query without a name": ({"url": "https://h.example/in?qu-ery-tok"}, ["qu-ery-tok"]),
    "path": (
        {"url": "https://h.example/services/T00000/B%20123/x"},
        ["T00000", "B 123", "B%20123"],
    ),
    "write key": (
        {"type": "rudderstack", "write_key": "rudder-key"},
        ["rudder-key", base64.b64encode(b"rudder-key:").decode()],
    ),
    "PostHog": ({"type": "posthog", "api_key": "phc_12345"}, ["phc_12345"]),
    "Elasticsearch": (
        {"type": "elasticsearch", "index": "i", "api_key": "aWQ6c2VjcmV0LWtleQ=="},
        ["aWQ6c2VjcmV0LWtleQ==", "secret-key"],
    ),
    "ClickHouse": ({"type": "clickhouse", "table": "t", "password": "ch-pass"}, ["ch-pass"]),
}


@pytest.mark.parametrize("field", FIELDS)
def test_every_secret_of_a_destination_is_masked(field: str) -> None:
    fields, secrets = FIELDS[field]
    redactor = redactor_of(**fields)
    for secret in secrets:
        assert "a … b" == redactor.text(f"a {secret} b"), secret


def test_the_write_keys_of_sources_are_masked() -> None:
    redactor = Redactor(
        config_from_table(
            {"sources": [{"name": "s", "write_keys": ["wk_a1", {"key": "wk-other"}]}]}
        )
    )
    assert "writeKey=…&k=…" == redactor.text("writeKey=wk_a1&k=wk-other")


def test_a_secret_that_is_truncated_at_the_end_is_masked() -> None:
    redactor = redactor_of(bearer_token="tok-1234567890")
    for length in range(4, 14):
        response = b"x" * (1024 - length) + b"tok-1234567890"[:length]
        assert b"x" * (1024 - length) + "…".encode() == redactor.data(response), length
    assert b"the tok-12 of" == redactor.data(b"the tok-12 of")


def test_a_short_secret_is_masked_only_as_a_separate_word() -> None:
    redactor = redactor_of(bearer_token="ab1")
    assert "Bearer … lab1 ab12 (…)" == redactor.text("Bearer ab1 lab1 ab12 (AB1)")


def test_overlapping_secrets_are_masked_completely() -> None:
    redactor = redactor_of(headers={"A": "first-and", "B": "and-second"})
    assert "…" == redactor.text("first-and-second")


def test_data_without_a_secret_is_returned_as_the_same_object() -> None:
    redactor = redactor_of(bearer_token="tok-1234567", url="https://h.example/api/v1/events")
    response = b'{"error":"too many events for /api/v1/events"}\x80'
    assert redactor.data(response) is response
    text = "lone \udc80 surrogate"
    assert redactor.text(text) is text


def test_without_settings_nothing_is_masked() -> None:
    assert "Bearer x" == Redactor().text("Bearer x")


PARTS = [
    b"",
    b"nothing of interest",
    b"a " + SECRET.encode() + b" in the middle",
    SECRET.encode() * 3,
    b"cut at the end: " + SECRET.encode()[:-4],
    SECRET.encode()[4:] + b" is not a secret",
    b"no pin: 12345, but 1234",
    b"1234",
    b"Tok",
    b"3n/with+specials begins in the part before",
]


def suspects_of(redactor: Redactor, parts: list[bytes]) -> list[int]:
    """Return the indexes of the parts in which a secret may begin."""
    ends = list(accumulate(len(each) + 1 for each in parts))
    found = redactor.suspects(b"\n".join(parts), lambda at: ends[bisect(ends, at)])
    return sorted(bisect(ends, at) for at in found)


@pytest.mark.parametrize("fields", [{}, {"X-Key": SECRET}, {"X-Pin": "1234", "X-Key": SECRET}])
@pytest.mark.parametrize("order", [1, -1])
def test_all_parts_with_a_secret_are_suspects(fields: dict[str, str], order: int) -> None:
    redactor = redactor_of(headers=fields)
    parts = PARTS[::order]
    suspects = suspects_of(redactor, parts)
    changed = [n for n, each in enumerate(parts) if redactor.data(each) is not each]
    assert set(changed) <= set(suspects) < set(range(len(parts)))
    assert bool(changed) == bool(fields)


def test_without_data_there_are_no_suspects() -> None:
    assert [] == suspects_of(redactor_of(headers={"X-Key": SECRET}), [])


def test_parts_full_of_secrets_are_searched_only_once() -> None:
    redactor = redactor_of(headers={"X-Key": SECRET})
    parts = [SECRET.encode() * 9, b"none", SECRET.encode() * 9]
    assert [0, 2] == suspects_of(redactor, parts)
