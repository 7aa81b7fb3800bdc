"""Sphinx settings of the documentation site; `make docs` builds it in build/docs."""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util import logging

ROOT = Path(__file__).parents[1]
REPOSITORY = "https://github.com/pixelfast/pixelfast"

project = "pixelfast"
extensions = ["myst_parser", "sphinx_copybutton"]

# Anchors of headings are those of GitHub, so that a link works in both places.
myst_heading_anchors = 4
nitpicky = True
smartquotes = False  # they would turn `--all` in prose into a dash, and quotes in headings into “”

html_theme = "furo"
html_title = "pixelfast"
html_logo = "_static/logo.svg"
html_favicon = "_static/logo.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_copyright = False
html_theme_options = {
    "source_repository": REPOSITORY,
    "source_branch": "main",
    "source_directory": "docs/",
    "light_css_variables": {"color-brand-primary": "#c2410c", "color-brand-content": "#c2410c"},
    "dark_css_variables": {"color-brand-primary": "#fb923c", "color-brand-content": "#fb923c"},
}

copybutton_exclude = ".linenos, .gp, .go"  # of a console block, only the commands are copied

linkcheck_ignore = [re.escape(REPOSITORY)]  # these files are checked in the checkout

_OUTSIDE_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\./[^)#\s]+)(#[^)\s]*)?\)")


def link_to_repository(app: Sphinx, page: str, source: list[str]) -> None:
    """Replace links to files outside docs/, which are not on the site, by links to GitHub."""

    def replace(link: re.Match[str]) -> str:
        text, path, anchor = link.groups(default="")
        target = (app.srcdir / page).parent.joinpath(path).resolve()
        if not target.is_relative_to(ROOT) or not target.exists():
            logging.getLogger(__name__).warning("link to a missing file: %s", path, location=page)
            return link[0]
        kind = "tree" if target.is_dir() else "blob"
        return f"[{text}]({REPOSITORY}/{kind}/main/{target.relative_to(ROOT)}{anchor})"

    source[0] = _OUTSIDE_LINK.sub(replace, source[0])


def setup(app: Sphinx) -> None:
    app.connect("source-read", link_to_repository)
