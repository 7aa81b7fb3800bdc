"""Settings of destinations: accepted and rejected values, and hidden secrets."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from pixelfast.config import Config, describe
from pixelfast.config.reader import config_from_table
from pixelfast.errors import ConfigErrors

URL = "https://example.com/hook"
SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()


def config_of(**settings: Any) -> Config:
    return config_from_table({"destinations": [{"name": "d", "url": URL, **settings}]})


def errors_of(**settings: Any) -> str:
    with pytest.raises(ConfigErrors) as caught:
        config_of(**settings)
    return str(caught.value)


def test_one_or_two_signing_secrets_are_accepted_and_masked() -> None:
    for secrets in ([SECRET], [SECRET, SECRET[:-4] + "AAAA"]):
        text = describe(config_of(type="http", signing_secrets=secrets))
        assert "signing_secrets = [" in text
        assert SECRET[8:] not in text


@pytest.mark.parametrize(
    "secrets",
    [
        [SECRET] * 3,
        [SECRET.removeprefix("whsec_")],
        ["whsec_" + base64.b64encode(b"x" * 23).decode()],
        ["whsec_" + base64.b64encode(b"x" * 65).decode()],
        ["whsec_not base64 not base64 not base64 not"],
        [""],
    ],
)
def test_an_invalid_signing_secret_is_rejected_and_not_shown(secrets: list[str]) -> None:
    text = errors_of(type="http", signing_secrets=secrets)
    assert "destinations[d].signing_secrets" in text
    assert "a string of whsec_ and 24 to 64 bytes in base64" in text
    assert "not base64" not in text
    assert SECRET[6:] not in text


@pytest.mark.parametrize(
    ("settings", "secret"),
    [
        ({"type": "segment", "write_key": "segment-s3cret-key"}, "s3cret"),
        ({"type": "posthog", "api_key": "phc_12345-s3cret"}, "s3cret"),
        ({"type": "clickhouse", "table": "t", "password": "passwd12s3cret"}, "s3cret"),
        ({"type": "elasticsearch", "index": "i", "api_key": "a2V5MTIzs3cret"}, "s3cret"),
    ],
)
def test_each_product_has_a_type_and_its_secret_is_masked(
    settings: dict[str, str], secret: str
) -> None:
    text = describe(config_of(**settings))
    assert f'type = "{settings["type"]}"' in text
    assert secret not in text


def test_an_unknown_type_is_rejected_with_the_most_similar_type() -> None:
    assert 'did you mean "elasticsearch"?' in errors_of(type="elasticserch")
    assert '"posthog"' in errors_of(type="nonsense")


@pytest.mark.parametrize("table", ["", "a.b", "a`b", "1a", "a b", "a;b", "ä", "a" * 129, "a\n"])
def test_an_invalid_table_name_is_rejected(table: str) -> None:
    assert "destinations[d].table" in errors_of(type="clickhouse", table=table)
    assert "destinations[d].database" in errors_of(type="clickhouse", table="t", database=table)


@pytest.mark.parametrize(
    "index",
    ["", ".", "..", "_a", "-a", "A", "a/b", "a?b", "a#b", "a,b", "a*", "ä", "a" * 201, "a\n"],
)
def test_an_invalid_index_name_is_rejected(index: str) -> None:
    assert "destinations[d].index" in errors_of(type="elasticsearch", index=index)


def test_two_kinds_of_credentials_are_rejected() -> None:
    both = {"type": "elasticsearch", "index": "i", "username": "u", "api_key": "k"}
    assert "api_key: cannot be combined with username" in errors_of(**both)


def test_a_client_key_requires_a_certificate_and_a_certificate_requires_https() -> None:
    assert "tls_key: requires tls_cert" in errors_of(type="http", tls_key="/k.pem")
    plain = {"type": "http", "url": "http://example.com/"}
    assert "tls_ca: requires a URL that begins with https:" in errors_of(**plain, tls_ca="/ca.pem")
    assert "tls_cert: requires a URL that begins with https:" in errors_of(
        **plain, tls_cert="/c.pem"
    )
    config_of(type="http", tls_ca="/ca.pem", tls_cert="/c.pem", tls_key="/k.pem")
