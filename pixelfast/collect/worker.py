"""Run one collector process: accept connections and store events in one slot of the spool."""

from __future__ import annotations

import asyncio
import gc
import resource
import socket
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import structlog

from pixelfast.collect.budgets import RateBudgets
from pixelfast.collect.certificates import Certificate, load_certificate
from pixelfast.collect.clock import Clock
from pixelfast.collect.collector import Collector
from pixelfast.collect.connection import Connections
from pixelfast.collect.open_files import connections_within
from pixelfast.collect.rejections import RejectionLog
from pixelfast.collect.responses import Responses
from pixelfast.collect.sources import Sources
from pixelfast.collect.tls import TlsConnections
from pixelfast.collect.unix_server import create_unix_server
from pixelfast.config import Config, Server
from pixelfast.errors import ConfigError, SpoolLocked
from pixelfast.spool import (
    Committer,
    DataDir,
    SlotFiles,
    SpoolWriter,
    compressor,
    segment_bytes_in_force,
)

if TYPE_CHECKING:
    from pixelfast.cluster.replication import Replication

__all__ = ["Worker"]

_LOCK_RETRY_S = 0.1
_LAST_S = 1.0  # time for the remaining connections to close
_BACKLOG = 4096
# How long idle connections stay open at a stop, because a request may already be on its way.
_IDLE_GRACE_S = 0.3
# Size of the kernel's buffers of each connection, which the kernel doubles. It limits one read, and
# the memory that a client which never reads can occupy. A request within the limits fits.
_KERNEL_BUFFER_BYTES = 32 * 2**10


class Worker:
    """Collect pixels from sockets into one slot of the spool.

    Args:
        config: the settings.
        data: the data directory with the slot.
        slot: the number of the slot.
        workers: number of collectors that share `spool.max_bytes`.
        budgets: the rate limits shared with other collectors; None if there are no others.
        lock_wait_s: maximum time to wait until the previous collector has left the slot.
    """

    def __init__(
        self,
        config: Config,
        data: DataDir,
        slot: int,
        workers: int = 1,
        *,
        budgets: RateBudgets | None = None,
        lock_wait_s: float = 15.0,
    ) -> None:
        self._lock_wait_s = lock_wait_s
        self.slot = slot
        self._config = config
        self._workers = workers
        self._data = data
        self._log = structlog.get_logger("collect").bind(slot=slot)
        server = config.server
        self._rejections = RejectionLog(config.log)
        self.collector = Collector(
            Sources(config.sources, budgets),
            Responses(),
            Clock(),
            trusted_proxies=server.trusted_proxies,
            message_id_header=server.message_id_header,
            always_200=server.always_200,
            health_path=server.health_path,
            rejections=self._rejections,
        )
        limits = self._limits(server)
        self.connections = Connections(self.collector, **limits)
        self._tls = TlsConnections(
            self.connections,
            max_connections=limits["max_connections"],
            handshake_timeout_s=server.header_timeout_s,
        )
        self._speaks_tls = False
        self._certificate: Certificate | None = None  # the last usable one
        self._servers: list[asyncio.Server] = []
        self._ticking: asyncio.TimerHandle | None = None
        self._replication: Replication | None = None

    async def start(
        self, sockets: list[socket.socket], tls_sockets: Collection[socket.socket] = ()
    ) -> None:
        """Open the slot and accept connections. Connections of `tls_sockets` use TLS.

        Raises:
            SpoolLocked: another collector still owns the slot after `lock_wait_s`.
        """
        loop = asyncio.get_running_loop()
        spool = self._config.spool
        files = await self._open_slot()
        self._committer = Committer()
        self._replication = self._replicate()
        self.collector.writer = SpoolWriter(
            loop,
            files,
            self._committer,
            [source.name for source in self.collector.sources.all],
            self.connections.on_stored,
            **self._ack_options(),
            max_bytes=spool.max_bytes // self._workers,
            min_free=spool.min_free,
            on_full=spool.on_full,
            max_waiting_bytes=spool.max_waiting_bytes,
            max_wait_s=spool.max_wait_s,
            compress=compressor(spool.compression),
        )
        if self._replication is not None:
            await self._replication.attach(self.collector.writer)
        for each in sockets:
            await self._accept(each, self.connections.connect)
        self._speaks_tls = bool(tls_sockets)
        if self._speaks_tls:
            self.read_certificate()
        for each in tls_sockets:
            await self._accept(each, self._tls.connect)
        self._tick()
        gc.collect()
        gc.freeze()

    def read_certificate(self) -> None:
        """Load the certificate for new TLS connections from its files. Blocks on file reads.

        If loading fails, the previous certificate stays in use. Without one, TLS connections are
        closed; all others are unaffected.
        """
        tls = self._config.server.tls
        if tls is None:
            return
        try:
            self._certificate = load_certificate(tls)
        except ConfigError as error:
            self._log.error("tls_certificate_not_loaded", error=str(error))
        else:
            self._tls.context = self._certificate.context

    def reload(self, config: Config, budgets: RateBudgets | None = None) -> None:
        """Apply new settings from the next request on, without closing connections.

        Settings of the spool and of listening addresses do not change.
        """
        collector, server = self.collector, config.server
        collector.sources.follow(config.sources, budgets)
        names = [source.name.encode("ascii") for source in collector.sources.all]
        if collector.writer is not None:  # otherwise `start` passes all names
            collector.writer.names.extend(names[len(collector.writer.names) :])
        collector.follow(server.trusted_proxies, server.always_200, server.health_path)
        limits = self._limits(server)
        self.connections.follow(**limits)
        self._tls.follow(limits["max_connections"], server.header_timeout_s)
        self._rejections.follow(config.log)
        self._config = config
        if self._speaks_tls:
            self.read_certificate()

    def fail_health_checks(self) -> None:
        """Fail health checks from now on, but continue to accept pixels."""
        self.collector.fails_health_checks = True

    async def stop(self, *, is_handed_over: bool = False) -> None:
        """Stop accepting connections, finish open requests, store their events and close the slot.

        `is_handed_over` means that another process accepts from the same sockets. Then idle
        connections may stay open for `server.drain_timeout_s`, to end with their next response.
        """
        if not is_handed_over:
            self.fail_health_checks()
        for server in self._servers:
            server.close()
        drain_timeout_s = self._config.server.drain_timeout_s
        grace_s = drain_timeout_s if is_handed_over else min(_IDLE_GRACE_S, drain_timeout_s)
        self.connections.is_draining = True
        await self._wait_for_connections(grace_s)
        await asyncio.sleep(0)  # let the loop read requests that have arrived
        self.connections.drain()
        await self._wait_for_connections(_LAST_S if is_handed_over else drain_timeout_s - grace_s)
        await self.collector.writer.close()
        if self._replication is not None:
            await self._replication.close()
        self._rejections.flush(time.monotonic(), is_end=True)
        if self._ticking is not None:
            self._ticking.cancel()

    async def _wait_for_connections(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        # Polling keeps an asyncio.Event off the hot path, where connections end.
        while self.open_connections and time.monotonic() < deadline:  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.02)

    @property
    def open_connections(self) -> int:
        """Number of open connections, including TLS handshakes in progress."""
        return len(self.connections.open) + self.connections.handshakes

    def stats(self) -> dict[str, Any]:
        """Return the statistics of this process; `totals` count from its start."""
        connections, writer = self.connections, self.collector.writer
        sources = [*self.collector.sources.all, self.collector.sources.unknown]
        replication = self._replication
        return {
            **(replication.stats() if replication is not None else {}),
            "slot": self.slot,
            "is_ready": writer.is_ready,
            "rejection": writer.rejection,
            "open_connections": self.open_connections,
            "max_connections": connections.max_connections,
            "tls_certificate_expires_s": self._certificate and self._certificate.expires_s,
            "held_bytes": connections.held_bytes,
            "waiting_bytes": writer.waiting_bytes,
            "spool_bytes": writer.used_bytes,
            "spool_limit_bytes": self._config.spool.max_bytes // self._workers,
            "totals": {
                "accepted_connections": connections.accepted,
                "evicted_connections": connections.evicted,
                "responses": {str(s): count for s, count in connections.responses.items()},
                "response_durations": connections.durations(),
                "dropped_responses": connections.dropped_responses,
                "tls_handshake_failures": self._tls.failures,
                "accepted_events": {s.name: s.accepted for s in sources if s.accepted},
                "rejected_requests": {s.name: s.rejected for s in sources if s.rejected},
                "untemplated_events": self.collector.untemplated_events(),
                "warnings": {s.name: s.warned for s in sources if s.warned},
                "stored_events": writer.stored_events,
                "stored_bytes": writer.stored_bytes,
                "lost_events": writer.lost_events,
                "failed_commits": writer.failed_commits,
                **self._committer.figures(),
                **(replication.totals() if replication is not None else {}),
            },
        }

    async def _accept(
        self, listening: socket.socket, connect: Callable[[], asyncio.Protocol]
    ) -> None:
        if listening.family == socket.AF_UNIX:
            server = await create_unix_server(connect, sock=listening, backlog=_BACKLOG)
        else:
            for buffer in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                listening.setsockopt(socket.SOL_SOCKET, buffer, _KERNEL_BUFFER_BYTES)
            loop = asyncio.get_running_loop()
            server = await loop.create_server(connect, sock=listening, backlog=_BACKLOG)
        self._servers.append(server)

    @property
    def _segment_bytes(self) -> int:
        spool = self._config.spool
        return segment_bytes_in_force(spool.segment_bytes, spool.max_bytes, self._workers)

    async def _open_slot(self) -> SlotFiles:
        deadline = time.monotonic() + self._lock_wait_s
        while True:
            try:
                return SlotFiles(self._data, self.slot, self._segment_bytes)
            except SpoolLocked:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(_LOCK_RETRY_S)

    def _replicate(self) -> Replication | None:
        """Begin to replicate the slot if the settings say so."""
        cluster = self._config.cluster
        if cluster is None:
            return None
        # Imported here so that nothing of it is loaded without the setting.
        from pixelfast.cluster.replication import Replication

        place = self._data, self.slot, cluster, self._config.spool, self._segment_bytes
        return Replication(*place, self.connections.on_stored)

    def _ack_options(self) -> dict[str, Any]:
        """Return the options of the writer that determine when an event counts as stored."""
        if self._replication is None:
            return {"ack": self._config.spool.ack}
        return {
            "ack": "written",
            "acks": self._replication.acks,
            "max_commit_bytes": self._replication.max_commit_bytes,
        }

    def _limits(self, server: Server) -> dict[str, Any]:
        open_files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return {
            "max_connections": connections_within(server, open_files),
            "max_memory": server.max_memory,
            "header_timeout_s": server.header_timeout_s,
            "idle_timeout_s": server.idle_timeout_s,
        }

    def _tick(self) -> None:
        self._ticking = asyncio.get_running_loop().call_later(1.0, self._tick)
        self.collector.tick(time.time())
        self.connections.sweep()
        self._tls.sweep()
