"""The admin address: health checks for load balancers, and metrics for Prometheus.

It has no password. By default it is a loopback address.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from typing import Any, Protocol

from aiohttp import web

from pixelfast import __version__
from pixelfast.collect import create_unix_server
from pixelfast.config import Address, Config, parse_address
from pixelfast.operate.delivery_metrics import known_destinations
from pixelfast.operate.machine import Machine
from pixelfast.operate.metrics import exposition
from pixelfast.operate.reload import ReloadState
from pixelfast.printable import json_text

__all__ = ["Admin"]

# The supervisor needs descriptors to restart processes.
_MAX_CONNECTIONS = 64
_SHUTDOWN_S = 2.0  # for requests in progress when the program stops or is replaced
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_INDEX = """pixelfast {version}

/health/live   200 while the server runs
/health/ready  200 while every collector can store events, else 503; shows each process
/metrics       metrics for Prometheus
"""


class Server(Protocol):
    """A supervisor, or a process without one."""

    name: str
    config: Config
    data_dir: str
    processes: Any
    reload_state: ReloadState

    @property
    def is_ready(self) -> bool: ...

    @property
    def is_stopping(self) -> bool: ...

    @property
    def uptime_s(self) -> float: ...


class Admin:
    """Serves the admin address of a server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._machine = Machine(server)
        self._runner: web.AppRunner | None = None
        self._servers: list[asyncio.Server] = []
        self._address = ""

    async def start(self, address: str, fds: Sequence[int] = ()) -> str:
        """Listen on an address, or on existing sockets; return the address with its real port.

        Raises:
            OSError: the address cannot be opened.
        """
        app = web.Application()
        app.add_routes(
            [
                web.get("/", self._index),
                web.get("/health/live", self._live),
                web.get("/health/ready", self._ready),
                web.get("/metrics", self._metrics),
            ]
        )
        self._machine.start()
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_S)
        await self._runner.setup()
        self._address = await self._listen(parse_address(address), fds)
        return self._address

    async def _listen(self, where: Address, fds: Sequence[int]) -> str:
        loop = asyncio.get_running_loop()
        for fd in fds:
            handed = socket.socket(fileno=fd)
            if where.path:
                self._servers.append(await create_unix_server(self._connect, sock=handed))
            else:
                self._servers.append(await loop.create_server(self._connect, sock=handed))
        if fds:
            return str(where)
        if where.path:
            self._servers = [await create_unix_server(self._connect, path=where.path)]
            return str(where)
        self._servers = [await loop.create_server(self._connect, where.host, where.port)]
        host, port = self._servers[0].sockets[0].getsockname()[:2]
        return str(where._replace(host=host, port=port))

    def _connect(self) -> asyncio.BaseProtocol:
        assert self._runner is not None
        assert self._runner.server is not None
        if len(self._runner.server.connections) >= _MAX_CONNECTIONS:
            return _Busy()
        return self._runner.server()

    async def release(self) -> tuple[str, list[int]]:
        """Stop; return the address and its sockets, in which new connections wait."""
        fds = [os.dup(each.fileno()) for server in self._servers for each in server.sockets]
        await self.stop()
        return self._address, fds

    async def stop(self) -> None:
        self._machine.stop()
        for server in self._servers:
            server.close()
        self._servers.clear()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _index(self, _request: web.Request) -> web.Response:
        return web.Response(text=_INDEX.format(version=__version__))

    async def _live(self, _request: web.Request) -> web.Response:
        return web.json_response({"is_live": True})

    async def _ready(self, _request: web.Request) -> web.Response:
        server = self._server
        state: dict[str, Any] = {
            "is_ready": server.is_ready,
            "is_stopping": server.is_stopping,
            "version": __version__,
            "data_dir": server.data_dir,
            "processes": {
                child.name: {
                    "is_ready": child.is_ready,
                    "rejection": child.figures.get("rejection", ""),
                    "starts": child.starts,
                    "silent_s": round(child.silent_s, 1),
                    **_replication(child.figures),
                }
                for child in server.processes.children
            },
            "reload": {
                "is_successful": server.reload_state.is_successful,
                "problems": server.reload_state.problems,
                "needs_restart": server.reload_state.needs_restart,
            },
            "destinations": known_destinations(server.processes.deliveries),
        }
        collectors = [each for each in server.processes.children if each.orders.role == "collector"]
        if server.config.cluster is not None and collectors:
            state["is_replicated"] = all(
                each.figures.get("is_replicated", False) for each in collectors
            )
        status = 200 if server.is_ready else 503
        return web.json_response(state, status=status, dumps=json_text)

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(
            body=exposition(self._server, self._machine),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )


def _replication(figures: dict[str, Any]) -> dict[str, Any]:
    """Return the state of a collector's replication; empty without `[cluster]`."""
    if "is_replicated" not in figures:
        return {}
    return {
        "replication": {
            "is_replicated": figures["is_replicated"],
            "are_brokers_available": figures["are_brokers_available"],
            "backlog_s": round(figures["replication_backlog_s"], 3),
            "error": figures["replication_error"],
        }
    }


class _Busy(asyncio.Protocol):
    """Responds with 503 because there are too many connections, and closes."""

    def connection_made(self, transport: asyncio.WriteTransport) -> None:  # type: ignore[override]
        transport.write(_BUSY)
        transport.close()
