"""The supervisor: starts the processes, watches them, starts them again, stops them in order.

It takes no traffic. Collectors stop first and delivery last, so that what the collectors still
stored is on its way; a second signal ends everything at once, which loses nothing either.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from pixelfast.config import Config
from pixelfast.deliver.retry import Backoff
from pixelfast.operate.control import Orders

__all__ = ["Child", "Supervisor"]

_RESTART_FIRST_S = 0.2
_RESTART_MOST_S = 5.0
_STEADY_S = 30.0  # a process that lived this long starts again at once
_DELIVERY_STOP_S = 10.0
# Each thread that allocates would have an arena of its own, and keep what is free in it.
_ENVIRONMENT = {"delivery": {"MALLOC_ARENA_MAX": "2"}}


class Child:
    """One process, across its restarts."""

    def __init__(self, name: str, orders: Orders) -> None:
        self.name = name
        self.orders = orders
        self.figures: dict[str, Any] = {}  # what it reported last
        self.starts = 0
        self.process: asyncio.subprocess.Process | None = None
        self._line: asyncio.StreamWriter | None = None
        self._stopping = asyncio.Event()
        self._log = structlog.get_logger("supervisor")

    @property
    def is_ready(self) -> bool:
        return bool(self.figures.get("is_ready"))

    async def run(self, on_report: asyncio.Event) -> None:
        """Keep the process running until `stop`."""
        backoff = Backoff(_RESTART_FIRST_S, _RESTART_MOST_S)
        while not self._stopping.is_set():
            started_s = time.monotonic()
            try:
                code: int | None = await self._run_once(on_report)
            except OSError as error:  # no descriptors or no memory for it now
                self._log.error("process_not_started", name=self.name, error=str(error))
                code = None
            self.figures = {}
            on_report.set()
            if self._stopping.is_set():
                return
            if time.monotonic() - started_s > _STEADY_S:
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
                pass_fds=(theirs.fileno(), *self.orders.listen_fds),
                start_new_session=True,  # a Ctrl-C at the terminal is for the supervisor alone
            )
        self.starts += 1
        ours.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=ours, limit=2**24)
        self._line = writer
        try:
            writer.write(msgspec.json.encode(self.orders) + b"\n")
            if self._stopping.is_set():
                writer.write_eof()
            while line := await reader.readline():
                self.figures = msgspec.json.decode(line)
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
    """All processes of one pixelfast."""

    def __init__(self, config: Config, data_dir: str, sockets: list[list[socket.socket]]) -> None:
        self.config = config
        self.started_s = time.time()
        workers = len(sockets)
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
        return all(child.is_ready for child in self.collectors)

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Run until SIGTERM or SIGINT; `on_ready` is called once all collectors take pixels."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_signal, stop)
        children = [self.delivery, *self.collectors]
        tasks = {child.name: asyncio.create_task(child.run(self.reported)) for child in children}
        readiness = asyncio.create_task(self._announce(on_ready))
        await stop.wait()
        readiness.cancel()
        self._log.info("stopping")
        grace_s = self.config.server.drain_timeout_s + 5.0
        await asyncio.gather(*(each.stop(tasks[each.name], grace_s) for each in self.collectors))
        await self.delivery.stop(tasks["delivery"], _DELIVERY_STOP_S)
        self._log.info("stopped")

    async def _announce(self, on_ready: Callable[[], None]) -> None:
        while not self.is_ready:
            self.reported.clear()
            await self.reported.wait()
        on_ready()

    def _on_signal(self, stop: asyncio.Event) -> None:
        if stop.is_set():  # the second time: at once
            for child in [*self.collectors, self.delivery]:
                child.signal(signal.SIGKILL)
            os._exit(1)
        stop.set()
