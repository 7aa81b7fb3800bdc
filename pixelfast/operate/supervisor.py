"""The supervisor: starts the processes, watches them, restarts them, stops them in order.

It takes no traffic. A stop begins with `server.lame_duck_s`, in which only health checks fail. Then
the listening sockets are closed, collectors drain, and delivery stops last, so that what the
collectors still stored is on its way. A second signal ends everything at once, which loses nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Collection
from typing import Any

import msgspec
import structlog

from pixelfast.config import Config
from pixelfast.deliver.retry import Backoff
from pixelfast.errors import operator_error
from pixelfast.operate.control import Orders
from pixelfast.operate.rates import RateTable
from pixelfast.operate.signals import ignore_other_signals
from pixelfast.operate.systemd import Notifier
from pixelfast.operate.totals import Totals

__all__ = ["Child", "Supervisor"]

_RESTART_FIRST_S = 0.2
_RESTART_MOST_S = 5.0
_STEADY_S = 30.0  # a process that lived this long is restarted without delay
_DELIVERY_STOP_S = 10.0
_SILENT_S = 5.0  # without a report for so long, a process is not ready
_START_S = 60.0  # how long a process may be silent before it has been ready once
_WATCH_S = 0.5
# Each thread that allocates would have an arena of its own, and keep what is free in it.
_ENVIRONMENT = {"delivery": {"MALLOC_ARENA_MAX": "2"}}


class Child:
    """One process, across its restarts."""

    def __init__(
        self, name: str, orders: Orders, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = name
        self.orders = orders
        self.figures: dict[str, Any] = {}  # what it reported last
        self.totals = Totals()  # what it has counted, its earlier runs with it
        self.reported_at_s = 0.0  # when that was, in seconds since 1970; 0: never
        self.starts = 0
        self.process: asyncio.subprocess.Process | None = None
        self._clock = clock
        self._heard_s: float | None = None  # of a running process: its start, or its last report
        self._has_been_ready = False  # since it was started
        self._is_told = False  # that it is silent
        self._is_leaving = False
        self._line: asyncio.StreamWriter | None = None
        self._stopping = asyncio.Event()
        self._log = structlog.get_logger("supervisor")

    @property
    def is_ready(self) -> bool:
        return bool(self.figures.get("is_ready")) and not self.is_silent

    @property
    def pid(self) -> int | None:
        """The running process; None if there is none."""
        process = self.process
        return None if process is None or process.returncode is not None else process.pid

    @property
    def is_silent(self) -> bool:
        """Whether its last report is too old to say how things stand."""
        return self.silent_s > _SILENT_S

    @property
    def silent_s(self) -> float:
        """For how long a running process has not reported; 0 if none is running."""
        return 0.0 if self._heard_s is None else self._clock() - self._heard_s

    def watch(self, hung_after_s: float) -> None:
        """Log a process that does not report, and kill one that hangs; `run` restarts it."""
        silent_s = self.silent_s
        if silent_s <= min(_SILENT_S, hung_after_s) or self._stopping.is_set():
            self._is_told = False
            return
        if not self._is_told:
            self._is_told = True
            self._log.warning("process_silent", name=self.name, silent_s=round(silent_s, 1))
        if silent_s > (hung_after_s if self._has_been_ready else max(hung_after_s, _START_S)):
            self._log.error("process_hung", name=self.name, silent_s=round(silent_s, 1))
            self._heard_s = None  # once
            self.signal(signal.SIGKILL)

    def on_report(self, line: bytes) -> None:
        """Take notice of a report."""
        self.figures = msgspec.json.decode(line)
        self.totals.follow(self.figures.get("totals", {}))
        self.reported_at_s = time.time()
        self._heard_s = self._clock()
        self._has_been_ready = self._has_been_ready or self.is_ready

    async def run(self, on_report: asyncio.Event) -> None:
        """Keep the process running until `stop`."""
        backoff = Backoff(_RESTART_FIRST_S, _RESTART_MOST_S)
        while not self._stopping.is_set():
            started_s = self._clock()
            try:
                code: int | None = await self._run_once(on_report)
            except OSError as error:  # no descriptors or no memory for it now
                self._log.error(
                    "process_not_started",
                    name=self.name,
                    error=operator_error(error) or repr(error),
                )
                code = None
            self.figures, self._heard_s, self._has_been_ready = {}, None, False
            self.totals.end()
            on_report.set()
            if self._stopping.is_set():
                return
            if self._clock() - started_s > _STEADY_S:
                backoff.reset()
            wait_s = backoff.next_s()
            self._log.error(
                "process_ended", name=self.name, code=code, restart_in_s=round(wait_s, 1)
            )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), wait_s)

    async def _run_once(self, on_report: asyncio.Event) -> int:
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "pixelfast.operate.process",
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                env={**os.environ, **_ENVIRONMENT.get(self.orders.role, {})},
                pass_fds=(theirs.fileno(), *self.orders.inherited_fds),
                start_new_session=True,  # a Ctrl-C at the terminal is for the supervisor alone
            )
        self.starts += 1
        self._heard_s = self._clock()
        ours.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=ours, limit=2**24)
        self._line = writer
        try:
            writer.write(msgspec.json.encode(self.orders) + b"\n")
            if self._is_leaving:  # it was restarted meanwhile
                self.leave()
            if self._stopping.is_set():
                writer.write_eof()
            while line := await reader.readline():
                self.on_report(line)
                on_report.set()
        except ConnectionError:
            pass
        finally:
            self._line = None
            writer.close()
        return await self.process.wait()

    def signal(self, number: int) -> None:
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    def leave(self) -> None:
        """Tell the process that a stop has begun: its health checks fail from now on."""
        self._is_leaving = True
        if self._line is not None:
            with contextlib.suppress(OSError):
                self._line.write(b"\n")

    async def stop(self, task: asyncio.Task[None], timeout_s: float) -> None:
        """Ask the process to end, and make it end after `timeout_s`."""
        self._stopping.set()
        if self._line is not None:
            # Not by a signal: one that comes before the process can handle it would kill it.
            with contextlib.suppress(OSError):
                self._line.write_eof()
        _, late = await asyncio.wait({task}, timeout=timeout_s)
        if late:
            self._log.warning("process_killed", name=self.name, after_s=timeout_s)
            self.signal(signal.SIGKILL)
            task.cancel()
            await asyncio.wait({task})


class Supervisor:
    """All processes of one pixelfast. It owns the listening sockets, one list for each worker.

    `tls_sockets`: those of `sockets` that speak TLS.
    """

    def __init__(
        self,
        config: Config,
        data_dir: str,
        sockets: list[list[socket.socket]],
        notifier: Notifier,
        *,
        tls_sockets: Collection[socket.socket] = (),
    ) -> None:
        self.config = config
        self.data_dir = data_dir
        self._notifier = notifier
        self._started_s = time.monotonic()
        self.is_stopping = False
        self._sockets = sockets
        workers = len(sockets)
        self._rates = RateTable(each.name for each in config.sources if each.rate_limit)
        self.collectors = [
            Child(
                f"collector-{slot}",
                Orders(
                    role="collector",
                    config=config,
                    data_dir=data_dir,
                    slot=slot,
                    workers=workers,
                    listen_fds=[each.fileno() for each in own],
                    rates_fd=self._rates.fd,
                    rate_places=self._rates.places,
                    tls_fds=[each.fileno() for each in own if each in tls_sockets],
                ),
            )
            for slot, own in enumerate(sockets)
        ]
        self.delivery = Child(
            "delivery",
            Orders(role="delivery", config=config, data_dir=data_dir, workers=workers),
        )
        self.reported = asyncio.Event()
        self._log = structlog.get_logger("supervisor")

    @property
    def is_ready(self) -> bool:
        """Whether every collector accepts pixels and no stop has begun."""
        return not self.is_stopping and all(child.is_ready for child in self.collectors)

    @property
    def uptime_s(self) -> float:
        """Seconds since it was made, whatever the wall clock did."""
        return time.monotonic() - self._started_s

    @property
    def children(self) -> list[Child]:
        return [*self.collectors, self.delivery]

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Run until SIGTERM or SIGINT; `on_ready` is called once all collectors take pixels."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, stop)
        ignore_other_signals("supervisor")
        tasks = {
            child.name: asyncio.create_task(child.run(self.reported))
            for child in [self.delivery, *self.collectors]
        }
        readiness = asyncio.create_task(self._announce(on_ready))
        watching = asyncio.create_task(self._watch())
        await stop.wait()
        readiness.cancel()
        self.is_stopping = True
        self._notifier.stopping()
        for child in self.collectors:
            child.leave()
        lame_duck_s = self.config.server.lame_duck_s
        self._log.info("stopping", lame_duck_s=lame_duck_s)
        await asyncio.sleep(lame_duck_s)
        # Before the collectors close theirs: a socket that is open here alone would take
        # connections that nobody accepts.
        for listening in {each for own in self._sockets for each in own}:
            listening.close()
        grace_s = self.config.server.drain_timeout_s + 5.0
        await asyncio.gather(*(each.stop(tasks[each.name], grace_s) for each in self.collectors))
        await self.delivery.stop(tasks["delivery"], _DELIVERY_STOP_S)
        watching.cancel()
        self._log.info("stopped")

    async def _announce(self, on_ready: Callable[[], None]) -> None:
        while not self.is_ready:
            self.reported.clear()
            await self.reported.wait()
        self._notifier.ready("accepting pixels")
        on_ready()

    async def _watch(self) -> None:
        """Look after the processes, and tell systemd's watchdog that this loop turns."""
        watchdog_s = self._notifier.watchdog_s
        while True:
            await asyncio.sleep(min(_WATCH_S, watchdog_s) if watchdog_s else _WATCH_S)
            self._notifier.alive()
            for child in self.children:
                child.watch(self.config.server.hung_after_s)

    def _on_signal(self, stop: asyncio.Event) -> None:
        if stop.is_set():  # the second time: at once
            for child in self.children:
                child.signal(signal.SIGKILL)
            os._exit(1)
        stop.set()
