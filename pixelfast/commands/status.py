"""`pixelfast status`: show the state of the server and its destinations."""

from __future__ import annotations

import http.client
import os
import sys
from typing import Any

import click

from pixelfast.commands.options import with_stored_data
from pixelfast.commands.running import get_json
from pixelfast.commands.tables import print_table
from pixelfast.config import Config, Log, Redactor
from pixelfast.errors import PixelfastError
from pixelfast.operate.logging import set_up_logging
from pixelfast.printable import json_text, printable
from pixelfast.spool import DataDir

__all__ = ["status"]

_PROCESS_HEADERS = ("process", "state", "starts", "last report")
_BACKLOG_HEADERS = ("slot", "not replicated", "bytes")
_HEADERS = ("destination", "process", "state", "pending", "lag", "delivered", "dead", "last error")


@click.command()
@click.option("--admin", "server__admin", metavar="ADDRESS", help="Admin address of the server.")
@click.option("--json", "is_json", is_flag=True, help="Print the figures as one JSON object.")
@with_stored_data
def status(is_json: bool, settings: Config) -> None:
    """Show the state of the server and its destinations.

    The figures come from the server's admin address or, if no server is running, from the data
    directory. The exit status is 0 if the server is ready, otherwise 1.

    With `[cluster]`, the figures of destinations are those of the partitions of this machine.
    Without a running server, events that are not replicated are listed.

    \b
    States of a destination:
      starting     its state is being read
      healthy      requests are sent
      backing_off  five attempts in a row failed; one request at a time
      held         a setting is wrong, or it rejects everything; see last error
      waiting      a file destination needs disk space
      disabled     it responded with 410; nothing is sent until a restart
      failing      its state or files cannot be used; it is restarted
      unusable     it cannot be opened
      unknown      delivery is not running or does not report

    \b
    Example:
      pixelfast status -c pixelfast.toml
    """
    found = _of_server(settings) or _of_disk(settings)
    if is_json:
        click.echo(json_text(found))
    else:
        _print(found)
    sys.exit(0 if found["is_ready"] else 1)


def _of_server(settings: Config) -> dict[str, Any]:
    """Return the figures of a running server, or {} if there is none."""
    admin = settings.server.admin
    if not admin:
        return {}
    try:
        found = get_json(admin, "/health/ready")
        processes, destinations = dict(found["processes"]), dict(found["destinations"])
    except OSError:
        return {}
    except (http.client.HTTPException, ValueError, KeyError, TypeError):
        raise PixelfastError(
            f"the server at {admin} is not the admin address of pixelfast"
        ) from None
    data_dir = str(found.get("data_dir", ""))
    if _is_data_dir_chosen() and data_dir and not _is_same(data_dir, settings.data_dir):
        raise PixelfastError(
            f"the server at {admin} uses the data directory {data_dir}, not {settings.data_dir};"
            " specify its settings file with --config, or the right admin address with --admin"
        )
    return {
        "is_running": True,
        "is_ready": found.get("is_ready") is True,
        "is_stopping": found.get("is_stopping") is True,
        "admin": admin,
        "data_dir": data_dir,
        "processes": processes,
        "destinations": destinations,
        "backlog": [],
    }


def _is_data_dir_chosen() -> bool:
    given = click.get_current_context().params
    return given["config"] is not None or given["data_dir"] is not None


def _is_same(path: str, other: str) -> bool:
    return os.path.realpath(path) == os.path.realpath(other)


def _of_disk(settings: Config) -> dict[str, Any]:
    # Imported here because they are not needed if a server is running.
    from pixelfast.deliver.progress import figures_on_disk
    from pixelfast.deliver.reclaimer import log_ends
    from pixelfast.deliver.timing import DeliveryClock

    set_up_logging(Log(level="error"), redactor=Redactor(settings))
    data = DataDir.find(settings.data_dir)
    ends = {slot: number for slot, (_, number) in log_ends(data).items()}
    clock = DeliveryClock()
    names = sorted(path.parent.name for path in (data.path / "dest").glob("*/state.db"))
    if settings.cluster is not None:
        names = []  # the state of destinations is in the cluster
    return {
        "is_running": False,
        "is_ready": False,
        "is_stopping": False,
        "admin": settings.server.admin,
        "data_dir": str(data.path),
        "processes": {},
        "destinations": {
            name: {"state": "unknown", **figures_on_disk(data, name, ends, clock)} for name in names
        },
        "backlog": _backlog_on_disk(settings, data),
    }


def _backlog_on_disk(settings: Config, data: DataDir) -> list[dict[str, int]]:
    """Return what is not replicated to `[cluster]`, by slot."""
    if settings.cluster is None:
        return []
    # Imported here so that nothing of it is loaded without the setting.
    from pixelfast.cluster.backlog import backlogs

    return [
        {"slot": each.slot, "events": each.events, "bytes": each.size_bytes}
        for each in backlogs(data)
    ]


def _print(found: dict[str, Any]) -> None:
    admin = found["admin"]
    if not found["is_running"]:
        state = f"not reachable at {admin}" if admin else "the admin address is disabled"
        state += "; figures are from the data directory"
    elif found["is_stopping"]:
        state = f"stopping, {admin}"
    else:
        state = f"{'ready' if found['is_ready'] else 'not ready'}, {admin}"
    click.echo(printable(f"server          {state}"))
    click.echo(printable(f"data directory  {found['data_dir']}"))
    if found["processes"]:
        click.echo()
        _print_processes(found["processes"])
    if found["backlog"]:
        click.echo()
        rows = [(each["slot"], each["events"], each["bytes"]) for each in found["backlog"]]
        print_table(_BACKLOG_HEADERS, rows)
    if found["destinations"]:
        click.echo()
        _print_destinations(found["destinations"])


def _print_processes(processes: dict[str, dict[str, Any]]) -> None:
    rows = [_process(name, each) for name, each in processes.items()]
    if not any("replication" in each for each in processes.values()):
        print_table(_PROCESS_HEADERS, rows)
        return
    states = [_replication(each.get("replication")) for each in processes.values()]
    headers = *_PROCESS_HEADERS, "replication"
    replicating = [(*row, state) for row, state in zip(rows, states, strict=True)]
    print_table(headers, replicating, has_note=True)


def _replication(state: dict[str, Any] | None) -> str:
    """Describe the replication of a collector to the brokers of `[cluster]`."""
    if state is None:
        return "-"
    if state.get("is_replicated"):
        return "complete"
    words = [f"{state.get('backlog_s', 0):.1f} s behind"]
    if not state.get("are_brokers_available"):
        words.insert(0, "brokers unavailable")
    error = " ".join(str(state.get("error", "")).split())
    return ", ".join(words) + (f": {error}" if error else "")


def _print_destinations(destinations: dict[str, dict[str, Any]]) -> None:
    rows = [_destination(name, each) for name, each in destinations.items()]
    # With one delivery process, all destinations would have the same one.
    left_out = {"process"} if len({row["process"] for row in rows}) == 1 else set()
    headers = [each for each in _HEADERS if each not in left_out]
    print_table(headers, [tuple(row[each] for each in headers) for row in rows], has_note=True)


def _process(name: str, process: dict[str, Any]) -> tuple[object, ...]:
    state = "ready" if process.get("is_ready") else "not ready"
    if process.get("rejection"):
        state += f": {process['rejection']}"
    return name, state, process.get("starts", "-"), f"{process.get('silent_s', 0):g} s ago"


def _destination(name: str, figures: dict[str, Any]) -> dict[str, object]:
    """Return the cells of a destination by their headers."""
    found = {header: figures.get(header, "-") for header in _HEADERS}
    lag_s = figures.get("lag_s")
    return found | {
        "destination": name,
        "lag": "-" if lag_s is None else f"{lag_s:.1f} s",
        "last error": " ".join(str(figures.get("last_error") or "-").split()),
    }
