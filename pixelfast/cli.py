"""The commands people type."""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Callable
from typing import Any

import click

from pixelfast import __version__
from pixelfast.commands.options import clear_answers, settings_of, with_settings
from pixelfast.config import describe, read_config
from pixelfast.printable import printable_lines

__all__ = ["main"]

_GROUPS = ("dead", "spool")  # modules of `pixelfast.commands`


def _with_listen(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--listen",
        multiple=True,
        metavar="ADDRESS",
        help='Take pixels at "HOST:PORT" or "unix:/PATH"; may be given several times.',
    )(command)


class _Commands(click.Group):
    """The commands here, and groups that are imported when they are asked for."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run a command; what an error quotes of the command line is made printable."""
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

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *_GROUPS])

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _GROUPS:
            return super().get_command(ctx, name)
        command = getattr(importlib.import_module(f"pixelfast.commands.{name}"), name)
        assert isinstance(command, click.Command)
        return command


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


@cli.command()
@with_settings
@_with_listen
@click.option("--admin", metavar="ADDRESS", help='Health and metrics; "" for none.')
@click.option("--workers", type=int, metavar="N", help="Collectors; 0: one a core.")
def serve(
    config: str | None,
    data_dir: str | None,
    listen: tuple[str, ...],
    admin: str | None,
    workers: int | None,
) -> None:
    """Collect and deliver, in the foreground.

    \b
    Example:
      pixelfast serve -c pixelfast.toml --workers 4
    """
    from pixelfast.operate.serve import serve as run

    with clear_answers():
        settings = settings_of(
            config,
            data_dir=data_dir,
            server__listen=listen,
            server__admin=admin,
            server__workers=workers,
        )
        run(settings, admin_is_chosen=admin is not None or config is not None)


@cli.command()
@with_settings
@_with_listen
@click.option("--slot", type=int, default=0, metavar="N", help="The slot to write into.")
def collect(config: str | None, data_dir: str | None, listen: tuple[str, ...], slot: int) -> None:
    """Collect only, in one process; `pixelfast deliver` delivers.

    \b
    Example:
      pixelfast collect -c pixelfast.toml --slot 0
    """
    from pixelfast.operate.alone import collect_alone

    with clear_answers():
        collect_alone(settings_of(config, data_dir=data_dir, server__listen=listen), slot)


@cli.command()
@with_settings
def deliver(config: str | None, data_dir: str | None) -> None:
    """Deliver only, in one process; `pixelfast collect` collects.

    \b
    Example:
      pixelfast deliver -c pixelfast.toml
    """
    from pixelfast.operate.alone import deliver_alone

    with clear_answers():
        deliver_alone(settings_of(config, data_dir=data_dir))


@cli.command()
@click.argument("file")
def check(file: str) -> None:
    """Check a settings FILE and print what it amounts to, secrets masked.

    All mistakes are shown at once; the exit code is 2 if there is any.

    \b
    Example:
      pixelfast check pixelfast.toml
    """
    with clear_answers():
        click.echo(describe(read_config(file)), nl=False)


@cli.command()
@click.argument("call", type=click.Choice(["track", "page"]))
@click.option("--event", metavar="NAME", help="What happened; a track call needs it.")
@click.option("--name", metavar="NAME", help="The page's name.")
@click.option("--user-id", metavar="ID", help="Who, if known.")
@click.option("--anonymous-id", metavar="ID", help="Who, if not; made up without either.")
@click.option(
    "-p", "--property", "properties", multiple=True, metavar="NAME=VALUE", help="A property."
)
@click.option(
    "--set", "fields", multiple=True, metavar="NAME=VALUE", help="Any other, such as context.ip=…"
)
@click.option(
    "--write-key", metavar="KEY", help="Without: the first of the settings that is taken."
)
@click.option("--base", metavar="URL", help="Where the pixels are; without: where it listens.")
@click.option("--img", is_flag=True, help="A whole <img> tag instead of the URL.")
@with_settings
def url(img: bool, config: str | None, data_dir: str | None, **parts: Any) -> None:
    """Build a pixel URL, or an <img> tag with it.

    \b
    Example:
      pixelfast url track --event "Email Opened" --user-id 42 -p campaign=may --img
    """
    from pixelfast.urls import img_tag, pixel_url

    with clear_answers():
        settings = settings_of(config, data_dir=data_dir)
        if not (parts["user_id"] or parts["anonymous_id"]):
            click.echo("neither --user-id nor --anonymous-id: one is made up", err=True)
        built = pixel_url(settings, **parts)
        click.echo(img_tag(built) if img else built)


@cli.command()
@click.argument("targets", nargs=-1, metavar="[TARGET]...", required=True)
@click.option("--full", is_flag=True, help="With what the server adds.")
@click.option("-c", "--config", metavar="FILE", help="Settings, for write keys and sources.")
def decode(targets: tuple[str, ...], full: bool, config: str | None) -> None:
    """Show what pixels become: a JSON line for each TARGET; "-" reads one a line from stdin.

    Without settings any write key is known.

    \b
    Example:
      pixelfast decode '/pixel/v1/page?writeKey=k&anonymousId=a&context.screen.width=1920'
    """
    from pixelfast.explain import Explainer

    with clear_answers():
        explainer = Explainer(read_config(config) if config else None, full=full)
        output = sys.stdout.buffer
        for target in targets:
            lines = sys.stdin.buffer if target == "-" else [os.fsencode(target)]
            for line in lines:
                output.write(explainer.line(line.rstrip(b"\r\n")))
                output.flush()


@cli.group()
def key() -> None:
    """Write keys.

    \b
    Example:
      pixelfast key new
    """


@key.command()
def new() -> None:
    """Make a write key for the settings.

    \b
    Example:
      pixelfast key new
    """
    from pixelfast.operate.demo import new_write_key

    click.echo(new_write_key())


@cli.command()
def version() -> None:
    """Print the versions of pixelfast and of what it runs on.

    \b
    Example:
      pixelfast version
    """
    import platform
    import sqlite3
    from importlib.metadata import version as version_of

    click.echo(f"pixelfast {__version__}")
    libraries = [f"{name} {version_of(name)}" for name in ("uvloop", "httptools", "orjson")]
    runtime = [
        f"Python {platform.python_version()}",
        *libraries,
        f"SQLite {sqlite3.sqlite_version}",
    ]
    click.echo(", ".join(runtime))


def main() -> None:
    """Run the command that was typed."""
    os.umask(0o077)  # all that is made, by libraries as well, is for this user alone
    cli(prog_name="pixelfast")
