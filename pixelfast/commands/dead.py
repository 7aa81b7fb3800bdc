"""`pixelfast dead`: list, show, replay and drop dead letters."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Protocol, TypeVar

import click
import orjson

from pixelfast.commands.options import with_brokers
from pixelfast.commands.tables import print_table
from pixelfast.config import Config, Redactor
from pixelfast.deliver import dead_letter_topic
from pixelfast.deliver.bundles import DeadLetter
from pixelfast.deliver.dead import DeadLetterGroup, DeadLetters
from pixelfast.errors import PixelfastError
from pixelfast.printable import json_text, printable
from pixelfast.spool import DataDir

__all__ = ["dead"]

T = TypeVar("T")
_HEADERS = ("destination", "id", "died", "source", "status", "attempts", "event", "reason")
_GROUP_HEADERS = ("destination", "dead letters", "oldest", "newest", "source", "status", "reason")


@click.group()
def dead() -> None:
    """List, show, replay and drop dead letters.

    A dead letter is an event that a destination rejected, or that was retried for too long. It is
    kept with the reason. With `[cluster]`, the commands show and change the dead letters of all
    machines.

    \b
    Example:
      pixelfast dead ls -c pixelfast.toml
    """


@dead.command("ls")
@click.argument("destination", required=False)
@click.option(
    "--summary", "is_summary", is_flag=True, help="Count dead letters by source, status and reason."
)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=50,
    show_default=True,
    metavar="N",
    help="Maximum number to list for each destination; 0: no limit.",
)
@with_brokers
def list_letters(destination: str | None, is_summary: bool, limit: int, settings: Config) -> None:
    """List dead letters, oldest first.

    Without DESTINATION, the dead letters of all destinations are listed.

    \b
    Example:
      pixelfast dead ls --summary -c pixelfast.toml
    """
    redactor = Redactor(settings)
    names = [destination] if destination else _destinations(settings)
    rows: list[tuple[object, ...]] = []
    more: list[str] = []
    for name in names:
        if is_summary:
            groups = _with_letters(settings, name, lambda dead: dead.groups())
            rows += [(name, *_group(group, redactor)) for group in groups]
            continue
        count, found = _with_letters(
            settings, name, lambda dead: (dead.count(), dead.read(limit=limit or 2**62))
        )
        rows += [(name, *_summary(letter, redactor)) for letter in found]
        if count > len(found):
            more.append(f"{name}: listed {len(found):,} of {count:,}; use --limit 0 to list all")
    if not rows:
        click.echo("no dead letters", err=True)
        return
    print_table(_GROUP_HEADERS if is_summary else _HEADERS, rows, has_note=True)
    for line in more:
        click.echo(printable(line), err=True)


@dead.command()
@click.argument("destination")
@click.argument("ids", nargs=-1, type=int, required=True)
@with_brokers
def show(destination: str, ids: tuple[int, ...], settings: Config) -> None:
    """Print dead letters in full, one JSON object per line.

    `pixelfast dead ls` lists their IDS.

    \b
    Example:
      pixelfast dead show rudder 17 -c pixelfast.toml
    """
    redactor = Redactor(settings)
    found = _with_letters(settings, destination, lambda dead: dead.read(ids))
    for letter in found:
        click.echo(json_text(_whole(letter, redactor)))
    _reject_missing(destination, set(ids) - {letter.id for letter in found})


def _of_chosen(command: Callable[..., None]) -> Callable[..., None]:
    """Add the arguments that select dead letters: DESTINATION, and IDS or --all."""
    command = with_brokers(command)
    command = click.option(
        "--all", "is_all", is_flag=True, help="Select all dead letters of the destination."
    )(command)
    command = click.argument("ids", nargs=-1, type=int)(command)
    return click.argument("destination")(command)


@dead.command()
@_of_chosen
def replay(destination: str, ids: tuple[int, ...], is_all: bool, settings: Config) -> None:
    """Send dead letters again, with the same messageId.

    Select them by their IDS or with --all. Delivery sends them within seconds, or as soon as it
    runs and the destination accepts events. An event that is rejected again stays a dead letter.

    \b
    Example:
      pixelfast dead replay rudder --all -c pixelfast.toml
    """
    chosen = _chosen(ids, is_all)
    _change(
        settings, destination, chosen, lambda dead, of: dead.ask_for_replay(of), "will be replayed"
    )


@dead.command()
@_of_chosen
def drop(destination: str, ids: tuple[int, ...], is_all: bool, settings: Config) -> None:
    """Delete dead letters permanently.

    Select them by their IDS or with --all. Dead letters that will be replayed are not deleted.

    \b
    Example:
      pixelfast dead drop rudder 17 18 -c pixelfast.toml
    """
    chosen = _chosen(ids, is_all)
    _change(settings, destination, chosen, lambda dead, of: dead.drop(of), "deleted")


def _chosen(ids: tuple[int, ...], is_all: bool) -> tuple[int, ...] | None:
    if bool(ids) == is_all:
        raise click.UsageError("specify either IDS or --all")
    return None if is_all else ids


def _change(
    settings: Config,
    destination: str,
    ids: tuple[int, ...] | None,
    change: Callable[[_Letters, tuple[int, ...] | None], int],
    done: str,
) -> None:
    """Change dead letters, report how many, and then the ids that do not exist."""

    def use(dead: _Letters) -> tuple[int, set[int]]:
        found = dead.read(ids) if ids is not None else []
        return change(dead, ids), set(ids or ()) - {letter.id for letter in found}

    count, missing = _with_letters(settings, destination, use)
    if not ids or missing < set(ids):
        click.echo(f"{count} {'dead letter' if count == 1 else 'dead letters'} {done}")
    _reject_missing(destination, missing)


class _Letters(Protocol):
    """The dead letters of a destination, on the disk or in the topic of a cluster."""

    def count(self) -> int: ...
    def groups(self) -> list[DeadLetterGroup]: ...
    def read(self, ids: Iterable[int] | None = None, *, limit: int = 2**62) -> list[DeadLetter]: ...
    def ask_for_replay(self, ids: Iterable[int] | None = None) -> int: ...
    def drop(self, ids: Iterable[int] | None = None) -> int: ...


def _destinations(settings: Config) -> list[str]:
    """Return the destinations that may have dead letters."""
    if settings.cluster is not None:
        records = dead_letter_topic(settings.cluster).read()
        return sorted({each.destination for each in records})
    folder = DataDir.find(settings.data_dir).dead_dir("x").parent
    return sorted(each.parent.name for each in folder.glob("*/dead.db"))


def _with_letters(settings: Config, name: str, use: Callable[[_Letters], T]) -> T:
    if settings.cluster is not None:
        from pixelfast.deliver.cluster.dead_view import ClusterDeadLetters

        letters = ClusterDeadLetters(dead_letter_topic(settings.cluster), name)
        if not letters.count():
            raise _no_letters(name, _destinations(settings))
        return use(letters)
    path = DataDir.find(settings.data_dir).dead_dir(name) / "dead.db"
    if not path.exists():
        names = _destinations(settings)
        raise _no_letters(name, [each for each in names if _with_letters(settings, each, _has_any)])
    try:
        dead = DeadLetters(path)
        try:
            return use(dead)
        finally:
            dead.close()
    except sqlite3.Error as error:
        raise PixelfastError(f"{path}: {error}") from error


def _no_letters(name: str, known: list[str]) -> PixelfastError:
    return PixelfastError(
        f'destination "{name}" has no dead letters; destinations with dead letters:'
        f" {', '.join(known) or 'none'}"
    )


def _has_any(dead: _Letters) -> bool:
    return dead.count() > 0


def _summary(letter: DeadLetter, redactor: Redactor) -> tuple[object, ...]:
    event = _parsed(letter.event)
    name = event.get("event") or event.get("name") or event.get("type") or ""
    reason = "will be replayed" if letter.replay else redactor.text(letter.reason)
    return (
        letter.id,
        _time(letter.died_ms),
        letter.source,
        letter.status or "-",
        letter.attempts,
        str(name) or "-",
        " ".join(reason.split()),
    )


def _group(group: DeadLetterGroup, redactor: Redactor) -> tuple[object, ...]:
    return (
        group.letters,
        _time(group.oldest_ms),
        _time(group.newest_ms),
        group.source,
        group.status or "-",
        " ".join(redactor.text(group.reason).split()),
    )


def _whole(letter: DeadLetter, redactor: Redactor) -> dict[str, object]:
    return {
        "id": letter.id,
        "died": _time(letter.died_ms),
        "source": letter.source,
        "status": letter.status,
        "reason": redactor.text(letter.reason),
        "response": redactor.data(letter.response).decode("utf-8", "replace"),
        "attempts": letter.attempts,
        "batch": letter.batch,
        "number": letter.number,
        "event": _parsed(letter.event) or letter.event.decode("utf-8", "replace"),
    }


def _parsed(event: bytes) -> dict[str, object]:
    try:
        parsed = orjson.loads(event)
    except orjson.JSONDecodeError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _reject_missing(destination: str, ids: set[int]) -> None:
    if ids:
        numbers = ", ".join(map(str, sorted(ids)))
        raise PixelfastError(f'destination "{destination}" has no dead letter {numbers}')
