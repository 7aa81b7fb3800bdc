"""pixelfast servers behind a real nginx, under load, while they are restarted and killed.

Every request to which nginx responds with 200 must be stored by one of the servers. With two
servers, every response must be 200, whichever of them is down; with one server, this must hold if
its listening socket outlives it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

from pixelfast.config import Address, parse_address
from tests.load import Load
from tests.nginx import NGINX, UPSTREAMS, Nginx, free_port, running_nginx
from tests.reliability.rig import is_gone
from tests.servers import Server
from tests.waiting import wait_until

__all__ = [
    "WRITE_KEY",
    "Fleet",
    "Outcome",
    "behind_nginx",
    "fail_over",
    "fail_over_and_over",
    "why_no_nginx",
]

WRITE_KEY = "wk-behind"
_SETTINGS = f"""
[server]
trusted_proxies = ["127.0.0.1", "unix:"]
message_id_header = "X-Request-ID"
drain_timeout_s = 2
[[sources]]
name = "web"
write_keys = ["{WRITE_KEY}"]
"""


def why_no_nginx() -> str:
    return "" if NGINX else "there is no nginx"


@dataclass
class Outcome:
    """The outcome of the requests of one run."""

    sent: int = 0
    acked: int = 0
    refused: Counter[int] = field(default_factory=Counter)
    broken: int = 0  # connections of clients that ended before the response
    lost: int = 0  # acknowledged with 200, but in no archive
    twice: int = 0  # in both archives, with one messageId: a request that nginx sent again
    split: int = 0  # the same with two
    slowest_s: float = 0.0
    ended: Counter[str] = field(default_factory=Counter)

    def __iadd__(self, other: Outcome) -> Self:
        for name in ("sent", "acked", "refused", "broken", "lost", "twice", "split", "ended"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.slowest_s = max(self.slowest_s, other.slowest_s)
        return self

    @property
    def is_clean(self) -> bool:
        return not (self.refused or self.broken or self.lost or self.split)

    @property
    def described(self) -> str:
        ended = ", ".join(f"{how} {count}" for how, count in sorted(self.ended.items()))
        failed = self.refused.total() + self.broken
        return (
            f"{ended}; {self.sent:,} requests, of these failed {failed}, lost {self.lost}; "
            f"sent to both servers and stored by both {self.twice}, slowest {self.slowest_s:.1f} s"
        )


class Fleet:
    """Servers that keep their address across restarts.

    `holds_sockets`: their listening sockets stay open meanwhile, as with systemd's socket units.
    """

    def __init__(
        self, folder: Path, count: int, *, over_unix: bool = False, holds_sockets: bool = False
    ) -> None:
        self.folder = folder
        names = [str(folder / f"{n}.sock") for n in range(count)]
        ports = [free_port() for _ in range(count)]
        self.listen = [
            f"unix:{name}" if over_unix else f"127.0.0.1:{port}"
            for name, port in zip(names, ports, strict=True)
        ]
        self.held: list[socket.socket | None] = [None] * count
        if holds_sockets:
            self.held = [_listening(parse_address(each)) for each in self.listen]
        with ThreadPoolExecutor() as pool:
            self.servers = list(pool.map(self._start, range(count)))

    def restart(self, number: int) -> None:
        """Stop a server as systemd does, and restart it."""
        assert self.servers[number].stop() == 0
        self.servers[number] = self._start(number)

    def crash(self, number: int) -> None:
        """Kill all processes of a server with SIGKILL, and restart it."""
        server = self.servers[number]
        pids = list(server.children().values())
        server.process.kill()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        server.wait()
        wait_until(lambda: all(map(is_gone, pids)), "all processes are gone")
        self.servers[number] = self._start(number)

    def events(self) -> list[dict[str, Any]]:
        """Return the events that all servers have delivered."""
        return [event for server in self.servers for event in server.events()]

    def close(self) -> None:
        for server in self.servers:
            if server.process.poll() is None:
                server.stop()
        for held in self.held:
            if held is not None:
                held.close()

    def _start(self, number: int) -> Server:
        return Server(
            self.folder / f"data-{number}",
            *("--workers", "1", "--listen", self.listen[number]),
            settings=_SETTINGS,
            passed=self.held[number],
        )


def _listening(address: Address) -> socket.socket:
    if not address.path:
        return socket.create_server((address.host, address.port), backlog=4096)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address.path)
    listening.listen(4096)
    return listening


@contextmanager
def behind_nginx(
    folder: Path, upstream: str, *, holds_sockets: bool = False, **options: Any
) -> Iterator[tuple[Fleet, Nginx]]:
    """Start the servers of one of the upstream files, and nginx in front of them."""
    fleet = Fleet(
        folder,
        UPSTREAMS[upstream],
        over_unix="unix" in upstream,
        holds_sockets=holds_sockets,
    )
    try:
        nginx = Nginx(folder / "nginx", fleet.listen, upstream=upstream, **options)
        with running_nginx(nginx):
            yield fleet, nginx
    finally:
        fleet.close()


class _Timed(Load):
    slowest_s = 0.0

    def on_response(self, one: str, status: int, seconds: float) -> None:
        super().on_response(one, status, seconds)
        self.slowest_s = max(self.slowest_s, seconds)


def fail_over(fleet: Fleet, port: int, steps: Sequence[Callable[[], None]]) -> Outcome:
    """Send pixels to nginx while each step is performed; return their outcome."""
    load = _Timed(port, WRITE_KEY, name=f"e{random.randrange(2**32):x}", pause_s=0.02)

    async def drive() -> None:
        load.start()
        try:
            await load.until_acked(40)
            for step in steps:
                await asyncio.to_thread(step)
                await load.until_acked(40)
        finally:
            await load.stop()

    asyncio.run(drive())
    acked = set(load.acked)
    ids: dict[str, list[str]] = {}

    def are_stored() -> bool:
        ids.clear()
        for event in fleet.events():
            ids.setdefault(event["event"], []).append(event["messageId"])
        return acked <= ids.keys()

    with contextlib.suppress(AssertionError):
        wait_until(are_stored, "all events in the archives", 20)
    again = [ids[one] for one in load.sent if len(ids.get(one, ())) > 1]
    return Outcome(
        sent=len(load.sent),
        acked=len(load.acked),
        refused=Counter(load.rejected),
        broken=len(load.sent) - len(load.acked) - sum(load.rejected.values()),
        lost=len(acked - ids.keys()),
        twice=len(again),
        split=sum(len(set(each)) > 1 for each in again),
        slowest_s=load.slowest_s,
    )


def fail_over_and_over(folder: Path, seconds: float, rng: random.Random) -> Outcome:
    """Restart and kill the servers of each upstream file in turn, for `seconds` in total."""
    total = Outcome()
    for upstream, count in UPSTREAMS.items():
        place = folder / upstream.removesuffix(".conf")
        place.mkdir()
        with behind_nginx(place, upstream, holds_sockets=count == 1) as (fleet, nginx):
            end_s = time.monotonic() + seconds / len(UPSTREAMS)
            while True:
                crashes = count > 1 and rng.random() < 0.5
                step = partial(fleet.crash if crashes else fleet.restart, rng.randrange(count))
                total += fail_over(fleet, nginx.port, [step])
                total.ended["kill -9" if crashes else "restart"] += 1
                if time.monotonic() > end_s:
                    break
    return total
