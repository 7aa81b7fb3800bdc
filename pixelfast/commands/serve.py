"""`pixelfast serve`: collectors and delivery under a supervisor, in the foreground."""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import click
import structlog
import uvloop

from pixelfast import __version__
from pixelfast.commands.options import settings_file, with_listen, with_settings
from pixelfast.commands.startup import adopt, check_certificate, prepare
from pixelfast.config import Config, FileDestination, parse_address, without_secrets
from pixelfast.errors import ConfigError
from pixelfast.operate.admin import Admin
from pixelfast.operate.limits import Limits, apply_limits
from pixelfast.operate.signals import hold_signals
from pixelfast.operate.sockets import describe_failure, listen, share_out
from pixelfast.operate.supervisor import Supervisor
from pixelfast.operate.systemd import Notifier, passed_sockets
from pixelfast.printable import printable
from pixelfast.spool import DataDir

__all__ = ["serve"]


@click.command()
@with_settings
@with_listen
@click.option(
    "--admin", "server__admin", metavar="ADDRESS", help='Health and metrics; "" disables them.'
)
@click.option(
    "--workers",
    "server__workers",
    type=int,
    metavar="N",
    help="The number of collectors; 0: one per core.",
)
def serve(settings: Config) -> None:
    """Collect and deliver, in the foreground.

    \b
    Example:
      pixelfast serve -c pixelfast.toml --workers 4
    """
    hold_signals()  # until the supervisor handles them: by default they end a process
    config, data = prepare(settings, is_exclusive=True)
    workers = config.server.workers or len(os.sched_getaffinity(0))
    limits = apply_limits(config, workers)
    check_certificate(config)
    listening = _listen(config, workers)
    _warn_of_unix_sockets(config, data, [*listening.addresses, *listening.tls_addresses])
    given = click.get_current_context().params
    admin_is_chosen = given["server__admin"] is not None or given["config"] is not None
    is_demo = config is not settings

    def adopt_reloaded(reloaded: Config) -> Config:
        if not reloaded.sources and not is_demo:  # as in a file that is cut off
            what = "is missing: a running server does not change to the demo source"
            raise ConfigError("sources", None, what)
        check_certificate(reloaded)
        return adopt(reloaded, data)

    supervisor = functools.partial(
        Supervisor,
        config,
        str(data.path),
        listening.by_worker,
        Notifier(os.environ),
        settings_file(),
        adopt_reloaded,
        tls_sockets=listening.tls,
    )
    uvloop.run(_run(supervisor, config, data, listening, admin_is_chosen, limits, is_demo=is_demo))


class _Listening(NamedTuple):
    """The listening sockets of each worker, those among them that speak TLS, and the addresses."""

    by_worker: list[list[socket.socket]]
    tls: list[socket.socket]
    addresses: list[str]
    tls_addresses: list[str]


def _listen(config: Config, workers: int) -> _Listening:
    """Take the sockets that systemd passed; open the others."""
    passed, passed_tls = passed_sockets(os.environ)
    unix_mode = int(config.server.unix_mode, 8)
    if passed:
        by_worker, addresses = share_out(passed, workers)
    else:
        by_worker, addresses = listen(config.server.listen, workers, unix_mode)
    tls = config.server.tls
    if tls is None:
        if passed_tls:
            what = 'is missing: there are sockets with the name "tls" from the service manager'
            raise ConfigError("server.tls", None, what)
        return _Listening(by_worker, [], addresses, [])
    if passed_tls:
        tls_by_worker, tls_addresses = share_out(passed_tls, workers)
    else:
        tls_by_worker, tls_addresses = listen(
            tls.listen, workers, unix_mode, setting="server.tls.listen"
        )
    return _Listening(
        [own + own_tls for own, own_tls in zip(by_worker, tls_by_worker, strict=True)],
        [each for own in tls_by_worker for each in own],
        addresses,
        tls_addresses,
    )


def _warn_of_unix_sockets(config: Config, data: DataDir, addresses: list[str]) -> None:
    """Warn of a socket that only our user reaches, and of one whose events have no address."""
    log = structlog.get_logger("supervisor")
    for text in addresses:
        path = parse_address(text).path
        if not path:
            continue
        if data.path.resolve() in Path(path).resolve().parents:
            log.warning("socket_is_in_data_dir", path=path)
        if "unix:" not in config.server.trusted_proxies:
            hint = 'add "unix:" to server.trusted_proxies, or events have no request_ip'
            log.warning("unix_peers_not_trusted", path=path, hint=hint)


async def _run(
    make_supervisor: Callable[[], Supervisor],
    config: Config,
    data: DataDir,
    listening: _Listening,
    admin_is_chosen: bool,
    limits: Limits,
    *,
    is_demo: bool,
) -> None:
    supervisor = make_supervisor()
    admin = Admin(supervisor)
    admin_address = await _start_admin(admin, config.server.admin, admin_is_chosen)
    log = structlog.get_logger("supervisor")
    log.info(
        "started",
        version=__version__,
        listen=listening.addresses,
        tls_listen=listening.tls_addresses,
        admin=admin_address,
        data_dir=str(data.path),
        workers=len(listening.by_worker),
        max_connections=limits.connections,
        open_files=limits.open_files,
        ack=config.spool.ack,
        spool_max_bytes=config.spool.max_bytes,
        spool_min_free=config.spool.min_free,
        destinations=[destination.name for destination in config.destinations],
    )

    def say_welcome() -> None:
        log.info("ready")
        click.echo(_welcome(config, data, listening, admin_address, is_demo=is_demo))

    try:
        await supervisor.run(say_welcome)
    finally:
        await admin.stop()


async def _start_admin(admin: Admin, address: str, is_chosen: bool) -> str:
    """Start the admin address; without it, if it is a default and taken."""
    if not address:
        return ""
    try:
        return await admin.start(address)
    except OSError as error:
        if is_chosen:
            why = describe_failure(parse_address(address), error)
            what = f'cannot listen at "{address}": {why}'
            raise ConfigError("server.admin", None, what) from None
        structlog.get_logger("supervisor").warning("admin_address_taken", address=address)
        return ""


def _welcome(
    config: Config, data: DataDir, listening: _Listening, admin_address: str, *, is_demo: bool
) -> str:
    """Return where pixels go in, where events come out, and a line to try it.

    The write key is shown for the demo source only; a configured one stays in its file.
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
        f"  try it   curl -i {over_unix}'{pixel}'",
    ]
    for destination in config.destinations:
        where = without_secrets(getattr(destination, "url", ""))
        if isinstance(destination, FileDestination):
            where = f"{destination.path or data.events_dir(destination.name)}/*.ndjson"
        lines.append(f"  events   {where}")
    if admin_address and not admin_address.startswith("unix:"):
        lines.append(f"  health   http://{admin_address}/health/ready, /metrics")
    return "\n".join(map(printable, [*lines, "  stop     Ctrl-C", ""]))
