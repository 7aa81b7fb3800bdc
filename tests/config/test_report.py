"""The effective settings, and the documentation of settings."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from pixelfast.config import describe, parse_address, parse_bytes
from pixelfast.config.reader import config_from_table
from pixelfast.errors import ConfigErrors

DOCS = Path(__file__).parents[2] / "docs"
URL = "https://h.example/hook?token=abc"


def hook(**fields: Any) -> dict[str, Any]:
    return {"destinations": [{"name": "h", "type": "http", "url": URL, **fields}]}


@pytest.mark.parametrize("name", ["settings.md", "destinations.md"])
def test_the_examples_in_the_documentation_are_valid_settings(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RUDDER_WRITE_KEY", "k")
    (tmp_path / "token").write_text("t")
    blocks = re.findall(r"```toml\n(.*?)```", (DOCS / name).read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        text = re.sub(r"/etc/pixelfast/[\w-]+(?=\")", str(tmp_path / "token"), block)
        config_from_table(tomllib.loads(text))


@pytest.mark.parametrize("text", ["", "5 apples", "KiB", "-1", "1e3", "1.5.2MB", "64mib"])
def test_an_invalid_size_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        parse_bytes(text)


@pytest.mark.parametrize(
    "text",
    ["", "8080", ":8080", "host:", "host:port", "host:65536", "::1:80", "unix:relative", "h:٣"],
)
def test_an_invalid_address_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        parse_address(text)


SECRETS = {
    "url with a user": {
        "destinations": [{"name": "h", "type": "http", "url": "https://u:s3cret@h"}]
    },
    "token in a table": hook(bearer_token={"value": "s3cret"}),
    "token beside a variable": hook(bearer_token="s3cret${NOT_SET_ANYWHERE}"),
    "token with a space": hook(bearer_token="s3cret x"),
    "token in an array": hook(bearer_token=["s3cret"]),
    "keys without brackets": {"sources": [{"name": "a", "write_keys": "s3cret"}]},
    "key in an array": {"sources": [{"name": "a", "write_keys": [["s3cret"]]}]},
    "one source without an array": {"sources": {"name": "a", "write_keys": ["s3cret"]}},
    "empty header": hook(headers={"X": "s3cret\n"}),
}


@pytest.mark.parametrize("name", SECRETS)
def test_an_error_does_not_show_secrets(name: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        config_from_table(SECRETS[name])
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("number", [12345, 1.5, True])
def test_a_key_that_is_not_a_string_is_not_shown(number: object) -> None:
    with pytest.raises(ConfigErrors) as caught:
        config_from_table({"sources": [{"name": "a", "write_keys": [number]}]})
    (problem,) = caught.value.problems
    assert "sources[a].write_keys[0] = (hidden): expected a string, or a table { key = … }" == str(
        problem
    )


def test_the_effective_settings_do_not_show_secrets() -> None:
    shown = describe(config_from_table(hook(bearer_token="123456789012345", url=URL)))
    assert 'bearer_token = "…"' in shown
    assert 'url = "https://h.example/hook?…"' in shown
