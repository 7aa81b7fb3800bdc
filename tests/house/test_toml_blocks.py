"""The settings in README and docs are ones that `pixelfast check` accepts."""

from __future__ import annotations

import tomllib
from pathlib import PurePath

import pytest

from pixelfast.config.reader import config_from_table
from tests.house.pages import PAGES, Block, blocks

BLOCKS = [
    block
    for page in PAGES
    for block in blocks(page)
    if block.language == "toml" and block.marker("not valid") is None
]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.place)
def test_a_block_of_settings_is_valid(block: Block) -> None:
    may_lack = ("destinations", "sources", "server.tls")
    config_from_table(tomllib.loads(block.text), may_lack=may_lack)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.place)
def test_the_file_of_a_secret_is_named_after_its_destination(block: Block) -> None:
    for destination in tomllib.loads(block.text).get("destinations", ()):
        names = {destination["name"], destination["type"]}
        for value in destination.values():
            if isinstance(value, dict) and "file" in value:
                assert PurePath(value["file"]).name.partition("-")[0] in names
