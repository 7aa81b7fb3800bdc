"""Settings of destinations: what is taken, what is refused, and that no secret is shown."""

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


def mistakes_in(**settings: Any) -> str:
    with pytest.raises(ConfigErrors) as caught:
        config_of(**settings)
    return str(caught.value)


def test_one_or_two_signing_secrets_are_taken_and_masked() -> None:
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
def test_no_other_signing_secret_is_taken_and_none_is_shown(secrets: list[str]) -> None:
    text = mistakes_in(type="http", signing_secrets=secrets)
    assert "destinations[d].signing_secrets" in text
    assert "whsec_ and base64 of 24 to 64 bytes" in text
    assert "not base64" not in text
    assert SECRET[6:] not in text


def test_a_key_wants_its_certificate_and_a_certificate_wants_https() -> None:
    assert "tls_key: is the key of no tls_cert" in mistakes_in(type="http", tls_key="/k.pem")
    plain = {"type": "http", "url": "http://example.com/"}
    assert "tls_ca: is not used without https" in mistakes_in(**plain, tls_ca="/ca.pem")
    assert "tls_cert: is not used without https" in mistakes_in(**plain, tls_cert="/c.pem")
    config_of(type="http", tls_ca="/ca.pem", tls_cert="/c.pem", tls_key="/k.pem")
