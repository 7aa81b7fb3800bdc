"""Writes the generated reference: docs/commands.md, and the tables of docs/settings.md.

`make reference` runs it; tests fail if a page differs from what it would write.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from pixelfast.cli import cli
from pixelfast.config.report import reference

DOCS = Path(__file__).parents[2] / "docs"
SETTINGS, COMMANDS = DOCS / "settings.md", DOCS / "commands.md"
_FIRST_TABLE = "### (top level)"
_INTRO = """# Commands

`pixelfast --help` lists the commands, and `pixelfast COMMAND --help` describes one.
`python -m pixelfast` is the same program.

The exit status is 0 if a command succeeds, 2 if its arguments or the settings have errors, and 1
for all other errors. Results are printed to standard output, and errors and warnings to standard
error.

`make reference` generates this page.
"""


def settings_page() -> str:
    """Return docs/settings.md with current tables."""
    return SETTINGS.read_text("utf-8").partition(_FIRST_TABLE)[0] + reference()


def commands_page() -> str:
    """Return docs/commands.md."""
    return "\n".join([_INTRO, *_sections(cli, "pixelfast")])


def _sections(group: click.Group, path: str) -> Iterator[str]:
    context = click.Context(group, info_name=path)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        whole = f"{path} {name}"
        if isinstance(command, click.Group):
            yield f"## {whole}\n\n{_prose(command)}\n"
            yield from _sections(command, whole)
        else:
            yield from _section(command, whole)


def _section(command: click.Command, path: str) -> Iterator[str]:
    level = "##" if path.count(" ") == 1 else "###"
    context = click.Context(command, info_name=path)
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"{level} {path}\n\n```text\n{path} {usage}\n```\n\n{_prose(command)}\n"
    options = [each for each in command.params if isinstance(each, click.Option)]
    if shown := [each for each in options if not each.hidden]:
        rows = ["| option | meaning | default |", "|---|---|---|", *map(_row, shown)]
        yield "\n".join(rows) + "\n"


def _row(option: click.Option) -> str:
    names = ", ".join(f"`{each}`" for each in (*option.opts, *option.secondary_opts))
    metavar = f" `{option.metavar}`" if option.metavar else ""
    default = f"`{option.default}`" if option.show_default else ""
    if option.show_default and isinstance(option.default, bool):
        default = f"`{(option.opts if option.default else option.secondary_opts)[0]}`"
    return f"| {names}{metavar} | {_escaped(option.help or '')} | {default} |"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "\\<").replace("*", "\\*")


def _prose(command: click.Command) -> str:
    """Return the help of a command as Markdown; its blocks become code."""
    help_text = inspect.cleandoc(command.help or "")
    parts = []
    for paragraph in help_text.split("\n\n"):
        if not paragraph.startswith("\b\n"):
            parts.append(_escaped(paragraph))
            continue
        title, _, block = paragraph.removeprefix("\b\n").partition("\n")
        lines = "\n".join(line.removeprefix("  ") for line in block.splitlines())
        kind = "sh" if title == "Example:" else "text"
        parts.append(f"{title}\n\n```{kind}\n{lines}\n```")
    return "\n\n".join(parts)


def main() -> None:
    """Write the pages."""
    SETTINGS.write_text(settings_page(), "utf-8")
    COMMANDS.write_text(commands_page(), "utf-8")


if __name__ == "__main__":
    main()
