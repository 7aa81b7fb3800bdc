"""The console blocks of README and docs do what they show; CONTRIBUTING tells how to mark them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.house.console import Session, commands, is_possible, session
from tests.house.pages import PAGES, Block, blocks

needs_namespace = pytest.mark.skipif(not is_possible(), reason="needs unshare --net, and curl")


def wrong_in(block: Block, folder: Path, shell: Session) -> list[str]:
    """Do what a block and its markers say; return what is wrong with it."""
    if (setup := block.marker("setup")) is not None:
        printed, code = shell.run(setup)
        if code:
            return [f"{block.place}: setup: exit code {code}: {printed}"]
    if (name := block.marker("file")) is not None:
        (folder / name).write_text(block.text, "utf-8")
    if (name := block.marker("printed")) is not None:
        wrong = [shell.printed(name, block.text)]
        return [f"{block.place}: {each}" for each in wrong if each is not None]
    if block.language != "console" or block.marker("not run") is not None:
        return []
    *steps, last = commands(block.text)
    wrong = [shell.check(step) for step in steps]
    if (name := block.marker("keep running")) is not None:
        wrong.append(shell.keep_running(last, name or "server"))
    else:
        wrong.append(shell.check(last))
    return [f"{block.place}: {each}" for each in wrong if each is not None]


def is_run(page: str) -> bool:
    return any(b.language == "console" and b.marker("not run") is None for b in blocks(page))


@needs_namespace
@pytest.mark.parametrize("page", [page for page in PAGES if is_run(page)])
def test_the_console_blocks_of_a_page_do_what_they_show(page: str, tmp_path: Path) -> None:
    wrong: list[str] = []
    with session(tmp_path) as shell:
        for block in blocks(page):
            wrong += wrong_in(block, tmp_path, shell)
    assert not wrong, "\n\n".join(wrong)


@pytest.mark.parametrize("page", PAGES)
def test_a_block_that_is_not_tested_says_why(page: str) -> None:
    reasons = [(b.place, b.marker(n)) for b in blocks(page) for n in ("not run", "not valid")]
    assert [] == [place for place, reason in reasons if reason == ""]
