"""The settings in README and docs are ones that `pixelfast check` accepts."""

from __future__ import annotations

import tomllib

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
