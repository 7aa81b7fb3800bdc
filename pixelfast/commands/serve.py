"""`pixelfast serve`: run the server in the foreground."""

from __future__ import annotations

import functools
import os
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import click
import msgspec
import structlog
import uvloop

from pixelfast import __version__
from pixelfast.commands.options import settings_file, with_admin, with_listen, with_settings
from pixelfast.commands.startup import (
    adopt_reloaded,
    check_certificate,
    cluster_membership,
    open_admin,
    prepare,
)
from pixelfast.config import (
    Config,
    FileDestination,
    KafkaDestination,
    PostgresDestination,
    S3Destination,
    parse_address,
    without_secrets,
)
from pixelfast.errors import PixelfastError
from pixelfast.operate.admin import Admin
from pixelfast.operate.handover import Handover, SocketGroup, check_handover, take_handover
from pixelfast.operate.limits import Limits, apply_limits
from pixelfast.operate.listeners import Listening, open_listening
from pixelfast.operate.reload import errors_in
from pixelfast.operate.signals import hold_signals
from pixelfast.operate.supervisor import Supervisor
from pixelfast.operate.systemd import Notifier, passed_sockets
from pixelfast.printable import printable
from pixelfast.spool import DataDir

__all__ = ["serve"]


@click.command()
@with_settings
@with_listen
@with_admin
@click.option(
    "--workers",
    "server__workers",
    type=int,
    metavar="N",
    help="Number of collectors; 0: one for each core.",
)
@click.option("--check-upgrade", type=int, default=0, hidden=True)
def serve(settings: Config, check_upgrade: int) -> None:
    """Run the server in the foreground.

    Options override the settings file. Without a settings file, the defaults apply, with a source
    named demo. SIGTERM and Ctrl-C stop the server, SIGHUP reloads the settings, and SIGUSR2
    upgrades it.

    \b
    Example:
      pixelfast serve -c pixelfast.toml --workers 4
    """
    if check_upgrade:  # run by a server that is to be replaced with this version
        check_handover(check_upgrade, sys.stdin.buffer.read())
        check_certificate(settings)
        return
    hold_signals()  # until the supervisor handles them; by default they end the process
    handover = take_handover(os.environ)
    file = settings_file()
    failure = list(file.failure)
    if handover is None:
        start = _prepare(settings, passed_sockets(os.environ))
    else:
        handed = [(each, [socket.socket(fileno=fd) for fd in each.fds]) for each in handover.groups]
        wanted = msgspec.structs.replace(settings, data_dir=handover.data_dir)
        try:
            start = _prepare(handover.config if failure else wanted, ([], []), handed, handover)
        except (PixelfastError, OSError) as error:
            failure = errors_in(error)
            start = _prepare(handover.config, ([], []), handed, handover)
    config, data = start.config, start.data
    is_demo = not settings.sources and not failure
    is_clustered = config.cluster is not None

    supervisor = functools.partial(
        Supervisor,
        config,
        str(data.path),
        start.listening,
        Notifier(os.environ),
        file,
        lambda reloaded: adopt_reloaded(reloaded, data, is_demo=is_demo, is_clustered=is_clustered),
        lock_fd=data.lock_fd,
        handover=handover,
        failure=failure,
    )
    with start.membership as join_cluster:
        join_cluster()
        uvloop.run(_run(supervisor, start, handover, is_demo=is_demo))


class _Start(NamedTuple):
    config: Config
    data: DataDir
    limits: Limits
    listening: Listening
    membership: AbstractContextManager[Callable[[], None]]


def _prepare(
    settings: Config,
    passed: tuple[list[socket.socket], list[socket.socket]],
    handed: Sequence[tuple[SocketGroup, list[socket.socket]]] = (),
    handover: Handover | None = None,
) -> _Start:
    config, data = prepare(settings, is_exclusive=handover is None)
    if handover is not None:
        data.lock_fd = handover.lock_fd
    workers = config.server.workers or len(os.sched_getaffinity(0))
    limits = apply_limits(config, workers)
    check_certificate(config)
    member = cluster_membership(config, data, "server", is_checked=handover is None)
    listening = open_listening(config, workers, passed, handed)
    _warn_of_unix_sockets(config, data, [*listening.addresses, *listening.tls_addresses])
    return _Start(config, data, limits, listening, member)


def _warn_of_unix_sockets(config: Config, data: DataDir, addresses: list[str]) -> None:
    """Warn of sockets that other users cannot reach, and of sockets without trusted peers."""
    log = structlog.get_logger("supervisor")
    for text in addresses:
        path = parse_address(text).path
        if not path:
            continue
        if data.path.resolve() in Path(path).resolve().parents:
            log.warning("socket_in_data_dir", path=path)
        if "unix:" not in config.server.trusted_proxies:
            hint = 'add "unix:" to server.trusted_proxies; otherwise events have no request_ip'
            log.warning("unix_peers_not_trusted", path=path, hint=hint)


async def _run(
    make_supervisor: Callable[[], Supervisor],
    start: _Start,
    handover: Handover | None,
    *,
    is_demo: bool,
) -> None:
    config, data, limits, listening, _ = start
    supervisor = make_supervisor()
    supervisor.admin = admin = Admin(supervisor)
    admin_address = await _start_admin(admin, config.server.admin, handover)
    log = structlog.get_logger("supervisor")
    log.info(
        "server_started",
        version=__version__,
        listen=listening.addresses,
        tls_listen=listening.tls_addresses,
        admin=admin_address,
        data_dir=str(data.path),
        workers=len(listening.by_worker),
        max_connections=limits.connections,
        open_files=limits.open_files,
        ack=config.cluster.ack if config.cluster is not None else config.spool.ack,
        spool_max_bytes=config.spool.max_bytes,
        spool_min_free=config.spool.min_free,
        destinations=[destination.name for destination in config.destinations],
    )

    def say_welcome() -> None:
        log.info("server_ready")
        click.echo(_welcome(config, data, listening, admin_address, is_demo=is_demo))

    try:
        await supervisor.run(say_welcome)
    finally:
        await admin.stop()


async def _start_admin(admin: Admin, address: str, handover: Handover | None) -> str:
    """Start the admin address. If the default address is in use, continue without it."""
    if handover is not None and handover.admin_fds:
        if handover.config.server.admin == address:
            return await admin.start(handover.admin_address, handover.admin_fds)
        for fd in handover.admin_fds:
            os.close(fd)
    given = click.get_current_context().params
    is_chosen = given["server__admin"] is not None or given["config"] is not None
    return await open_admin(admin, address, is_required=is_chosen and handover is None)


def _welcome(
    config: Config, data: DataDir, listening: Listening, admin_address: str, *, is_demo: bool
) -> str:
    """Return the message that is printed once the server is ready.

    It shows a write key only of the demo source.
    """
    source = config.sources[0]
    key = source.write_keys[0].key if is_demo else f"<write key of {source.name}>"
    addresses = listening.addresses
    tcp = [address for address in addresses if not address.startswith("unix:")]
    base = f"http://{tcp[0]}" if tcp else "http://localhost"
    over_unix = "" if tcp else f"--unix-socket {addresses[0].removeprefix('unix:')} "
    pixel = f"{base}/pixel/v1/track?writeKey={key}&anonymousId=you&event=Hello"
    lines = [
        f"pixelfast {__version__} listening on "
        + ", ".join([*addresses, *(f"{address} (TLS)" for address in listening.tls_addresses)]),
        "",
        f"  pixel    {pixel}",
        f"  try it   curl -sS -D - -o /dev/null {over_unix}'{pixel}'",
    ]
    for destination in config.destinations:
        where = without_secrets(getattr(destination, "url", ""))
        if isinstance(destination, FileDestination):
            where = f"{destination.path or data.events_dir(destination.name)}/*.ndjson"
        elif isinstance(destination, KafkaDestination):
            where = f"topic {destination.topic} at {', '.join(destination.brokers)}"
        elif isinstance(destination, PostgresDestination):
            where = f"table {destination.table} of {destination.database} at {destination.host}"
        elif isinstance(destination, S3Destination):
            where = f"s3://{destination.bucket}/{destination.prefix}"
        lines.append(f"  events   {where}")
    if config.cluster is not None:
        brokers = ", ".join(config.cluster.brokers)
        lines.append(f"  cluster  topic {config.cluster.topic} at {brokers}")
    if admin_address and not admin_address.startswith("unix:"):
        lines.append(f"  health   http://{admin_address}/health/ready, /metrics")
    return "\n".join(map(printable, [*lines, "  stop     Ctrl-C", ""]))
