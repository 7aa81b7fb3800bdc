"""Links between the files of the project lead to a file and to a heading in it."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

import pytest

from tests.house.pages import PAGES, ROOT, anchors, links


@pytest.mark.parametrize("page", PAGES)
def test_each_relative_link_of_a_page_leads_somewhere(page: str) -> None:
    broken = []
    for line, link in links(page):
        target = urlsplit(link)
        if target.scheme or target.netloc:
            continue
        path = (ROOT / page).parent / unquote(target.path) if target.path else ROOT / page
        if not path.exists():
            broken.append(f"{page}:{line}: {link}: no such file")
        elif target.fragment and path.suffix == ".md":
            name = path.resolve().relative_to(ROOT).as_posix()
            if target.fragment not in anchors(name):
                broken.append(f"{page}:{line}: {link}: no such heading")
    assert [] == broken
