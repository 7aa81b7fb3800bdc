"""`pixelfast drain`: wait until no event is only on this machine."""

from __future__ import annotations

import asyncio
import http.client
import os
import sys
import time
from pathlib import Path
from typing import Any

import click

from pixelfast.commands.options import with_brokers
from pixelfast.commands.running import get_json
from pixelfast.commands.tables import print_table
from pixelfast.config import Cluster, Config, FileDestination, Log, Redactor
from pixelfast.errors import PixelfastError
from pixelfast.operate.logging import set_up_logging
from pixelfast.printable import printable
from pixelfast.spool import DataDir

__all__ = ["drain"]

_LOOK_S = 0.2
_SLOT_HEADERS = ("slot", "events", "bytes", "oldest")
_DESTINATION_HEADERS = ("destination", "pending", "oldest")


@click.command()
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Maximum time to wait; 0: only look.",
)
@with_brokers
def drain(timeout_s: float, settings: Config) -> None:
    """Wait until no event is only on this machine.

    Run it before you remove a machine, after it has stopped receiving pixels. The exit status is 0
    if nothing is left, and 1 if something is left after --timeout; then it is listed, with the
    reason if it is known.

    With `[cluster]`, nothing is left when the brokers have all events. A running server replicates
    them itself; if none is running, this command does it. Without `[cluster]`, nothing is left when
    all destinations have received their events, which requires a running server.

    \b
    Example:
      pixelfast drain -c pixelfast.toml --timeout 300
    """
    set_up_logging(Log(level="error"), redactor=Redactor(settings))
    data = DataDir.find(settings.data_dir)
    if settings.cluster is None:
        is_complete = _drain_spool(settings, data, timeout_s)
    else:
        is_complete = _drain_cluster(settings, settings.cluster, data, timeout_s)
    if not is_complete:
        sys.exit(1)
    if data.owner():
        what = "a server is running with this data directory: stop it before you remove the machine"
        click.echo(printable(f"warning: {what}"), err=True)
    for folder in _archives(settings, data):
        what = f"the files in {folder} may be only on this machine"
        click.echo(printable(f"warning: {what}"), err=True)


# --- with a cluster ---------------------------------------------------------------------------


def _drain_cluster(settings: Config, cluster: Cluster, data: DataDir, timeout_s: float) -> bool:
    from pixelfast.cluster.backlog import backlogs

    reason = asyncio.run(_replicate(cluster, data, timeout_s)) if backlogs(data) else ""
    left = backlogs(data)
    if not left:
        click.echo("all events are replicated")
        return True
    click.echo("not all events are replicated:")
    now_s = time.time()
    rows = [(each.slot, each.events, each.size_bytes, _age(now_s, each.oldest_ms)) for each in left]
    print_table(_SLOT_HEADERS, rows)
    for each in dict.fromkeys(filter(None, [reason, *_errors_of_server(settings, data)])):
        click.echo(printable(f"last error: {each}"), err=True)
    return False


def _errors_of_server(settings: Config, data: DataDir) -> list[str]:
    """Return why the collectors of a running server do not replicate."""
    try:
        found = get_json(settings.server.admin, "/health/ready") if settings.server.admin else {}
        if os.path.realpath(found.get("data_dir", "")) != os.path.realpath(data.path):
            return []
        states = [each.get("replication", {}) for each in found["processes"].values()]
        return [str(each.get("error", "")) for each in states]
    except (OSError, http.client.HTTPException, ValueError, AttributeError, KeyError):
        return []


async def _replicate(cluster: Cluster, data: DataDir, timeout_s: float) -> str:
    """Wait until everything is replicated; replicate the slots that no collector has.

    Return the last error.
    """
    # Imported here so that nothing of it is loaded without the setting.
    from pixelfast.cluster.backlog import backlogs
    from pixelfast.cluster.orphans import Orphans

    orphans = Orphans(data, None, cluster, round_s=_LOOK_S)
    deadline_s = time.monotonic() + timeout_s
    if timeout_s:
        orphans.start()
    try:
        while time.monotonic() < deadline_s:
            if not await asyncio.to_thread(backlogs, data):
                break
            await asyncio.sleep(_LOOK_S)
        return orphans.last_error
    finally:
        await orphans.close()


# --- without a cluster ------------------------------------------------------------------------


def _drain_spool(settings: Config, data: DataDir, timeout_s: float) -> bool:
    from pixelfast.cluster.backlog import was_replicated

    if was_replicated(data) and click.get_current_context().params["config"] is None:
        raise PixelfastError(
            f"the events in {data.path} are replicated to a cluster; specify its settings file with"
            " --config"
        )
    deadline_s = time.monotonic() + timeout_s
    while (left := _undelivered(settings, data)) and time.monotonic() < deadline_s:
        time.sleep(_LOOK_S)
    if not left:
        click.echo("all events are delivered")
        for name, count in _dead_letters(data):
            what = (
                f'destination "{name}" has {count:,} dead letters, which are only on this machine'
            )
            click.echo(printable(f"warning: {what}"), err=True)
        return True
    click.echo("not all events are delivered:")
    print_table(_DESTINATION_HEADERS, left)
    if not data.owner():
        click.echo("no server is running with this data directory; start it", err=True)
    return False


def _undelivered(settings: Config, data: DataDir) -> list[tuple[object, ...]]:
    """Return the rows of the destinations with undelivered events.

    Destinations that were removed from the settings file do not count.
    """
    from pixelfast.deliver.progress import figures_on_disk
    from pixelfast.deliver.reclaimer import log_ends
    from pixelfast.deliver.timing import DeliveryClock

    ends = {slot: number for slot, (_, number) in log_ends(data).items()}
    clock = DeliveryClock()
    found: list[tuple[object, ...]] = []
    has_file = click.get_current_context().params["config"] is not None
    known = {each.name for each in settings.destinations}
    for path in sorted((data.path / "dest").glob("*/state.db")):
        name = path.parent.name
        if has_file and name not in known:
            continue
        figures: dict[str, Any] = figures_on_disk(data, name, ends, clock)
        if not figures:
            found.append((name, "unknown", "-"))
        elif figures["pending"]:
            found.append((name, int(figures["pending"]), f"{figures['lag_s']:.0f} s"))
    return found


def _dead_letters(data: DataDir) -> list[tuple[str, int]]:
    from pixelfast.deliver.dead import DeadLetters

    found = []
    for path in sorted(data.dead_dir("x").parent.glob("*/dead.db")):
        dead = DeadLetters(path)
        if count := dead.count():
            found.append((path.parent.name, count))
        dead.close()
    return found


# --- both ---------------------------------------------------------------------------------------


def _archives(settings: Config, data: DataDir) -> list[Path]:
    """Return the directories of file destinations that have files."""
    folders = [
        Path(each.path or data.events_dir(each.name))
        for each in settings.destinations
        if isinstance(each, FileDestination)
    ]
    return [each for each in folders if each.is_dir() and any(each.glob("*.ndjson*"))]


def _age(now_s: float, ms: int) -> str:
    return f"{max(0.0, now_s - ms / 1000):.0f} s" if ms else "-"
