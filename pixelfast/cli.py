"""The command `pixelfast`: assembles the commands of `pixelfast.commands`."""

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

# Each is the attribute of that name of the module of that name. What the list of commands says
# about them stands here, so that `pixelfast --help` imports none of them.
_COMMANDS = {
    "check": "Check a settings FILE and print the effective settings, with secrets masked.",
    "collect": "Collect only, in one process; `pixelfast deliver` delivers.",
    "dead": "Inspect, resend and drop dead letters.",
    "decode": "Show the event that each TARGET becomes.",
    "deliver": "Deliver only, in one process; `pixelfast collect` collects.",
    "key": "Make write keys, and find the key of a fingerprint in the log.",
    "reload": "Have the running server read its settings file again; no request or event is lost.",
    "serve": "Collect and deliver, in the foreground.",
    "spool": "Inspect the stored events; nothing is changed.",
    "status": "Show the states of the processes and destinations, and what is pending.",
    "tail": "Write new events to stdout as they are stored, one JSON object per line.",
    "upgrade": "Replace the running server by the installed version; no request or event is lost.",
    "url": "Build a pixel URL, or an <img> tag with it.",
    "version": "Print the versions of pixelfast and its dependencies.",
}


class _Commands(click.Group):
    """Imports a command when it is used, and reports what the operator can mend in one line."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run a command and exit: 2 for a mistake in its arguments or settings, 1 for other errors.

        Whatever an error quotes is made printable.
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
            click.echo(str(error), err=True)  # printable, and may have several lines
            sys.exit(2)
        except Exception as error:
            if not (line := operator_error(error)):
                raise  # a mistake of ours: the traceback says where
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
    """pixelfast: a pixel collector that answers 200 when the event is on the disk.

    \b
    Try it:
      pixelfast serve
    """


def main() -> None:
    """Run the command given on the command line."""
    os.umask(0o077)  # every file, also one that a library makes, is for this user alone
    cli(prog_name="pixelfast")
