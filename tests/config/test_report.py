"""The documentation of settings says what the settings are."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from pixelfast.config import parse_address, parse_bytes
from pixelfast.config.reader import config_from_table
from pixelfast.config.report import reference

DOCS = Path(__file__).parents[2] / "docs"


def test_the_reference_in_the_docs_is_up_to_date() -> None:
    """If not: paste what `pixelfast.config.report.reference()` returns below "All settings"."""
    assert (DOCS / "configuration.md").read_text().endswith(reference())


@pytest.mark.parametrize("name", ["configuration.md", "destinations.md", "../README.md"])
def test_the_examples_in_the_docs_are_settings_that_are_taken(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RUDDER_WRITE_KEY", "k")
    (tmp_path / "token").write_text("t")
    blocks = re.findall(r"```toml\n(.*?)```", (DOCS / name).read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        text = block.replace("/etc/pixelfast/hook-token", str(tmp_path / "token"))
        config_from_table(tomllib.loads(text))


@pytest.mark.parametrize("text", ["", "5 apples", "KiB", "-1", "1e3", "1.5.2MB", "64mib"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        parse_bytes(text)


@pytest.mark.parametrize(
    "text",
    ["", "8080", ":8080", "host:", "host:port", "host:65536", "::1:80", "unix:relative", "h:٣"],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        parse_address(text)
