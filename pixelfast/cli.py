"""The command line: assembles the commands of `pixelfast.commands`."""

from __future__ import annotations

import importlib
import io
import os
import sys
from typing import Any

import click

from pixelfast import __version__
from pixelfast.errors import ConfigError, operator_error
from pixelfast.printable import printable, printable_lines

__all__ = ["main"]

# Each command is an attribute of the module with the same name. The summaries are here so that
# `pixelfast --help` does not have to import the modules.
_COMMANDS = {
    "check": "Check a settings file and print the effective settings.",
    "collect": "Run one collector without a supervisor.",
    "dead": "List, show, replay and drop dead letters.",
    "decode": "Show the events that pixels would become.",
    "deliver": "Run a delivery process without a supervisor.",
    "drain": "Wait until no event is only on this machine.",
    "key": "Create write keys and show their fingerprints.",
    "reload": "Reload the settings of the running server.",
    "schema": "Print the statements that create a table for events.",
    "serve": "Run the server in the foreground.",
    "spool": "List, check and print the stored events.",
    "status": "Show the state of the server and its destinations.",
    "tail": "Print new events as they are stored.",
    "upgrade": "Replace the running server with the installed version.",
    "url": "Build the URL of a pixel, or an <img> tag.",
    "version": "Print the versions of pixelfast and its dependencies.",
}


class _Commands(click.Group):
    """Imports a command when it is used, and prints errors without a traceback, except for bugs."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run a command and exit with 0, or 2 for an error in its arguments or settings, or 1.

        Control characters in error messages are escaped.
        """
        try:
            return super().main(*arguments, **{**options, "standalone_mode": False})
        except click.ClickException as error:
            text = io.StringIO()
            error.show(text)
            click.echo(printable_lines(text.getvalue()), err=True, nl=False)
            sys.exit(error.exit_code)
        except click.Abort:
            click.echo("Aborted!", err=True)
            sys.exit(1)
        except ConfigError as error:
            click.echo(str(error), err=True)  # already printable; may have several lines
            sys.exit(2)
        except Exception as error:
            if not (line := operator_error(error)):
                raise  # a bug: show the traceback
            click.echo(printable(f"pixelfast: {line}"), err=True)
            sys.exit(1)

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        command = getattr(importlib.import_module(f"pixelfast.commands.{name}"), name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(_COMMANDS.items()))


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="pixelfast %(version)s")
def cli() -> None:
    """A pixel collector that responds with 200 once the event is on disk.

    \b
    Example:
      pixelfast serve
    """


def main() -> None:
    """Run the command given on the command line."""
    os.umask(0o077)  # all files, including those that libraries create, are for this user only
    cli(prog_name="pixelfast")
