"""One process of the supervisor, across its restarts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
import structlog

from pixelfast.backoff import Backoff
from pixelfast.config import Config
from pixelfast.errors import operator_error
from pixelfast.operate.control import Drain, Leave, Message, Orders, Reload, encode
from pixelfast.operate.handover import HandedProcess
from pixelfast.operate.totals import Totals

__all__ = ["Child"]

_RESTART_FIRST_S = 0.2
_RESTART_MAX_S = 5.0
_STEADY_S = 30.0  # a process that ran this long is restarted after the first delay again
_SILENT_S = 5.0  # a process that has not reported for so long is not ready
_START_S = 60.0  # how long a new process may be silent until it is ready for the first time
# With more arenas, each thread that allocates would keep free memory in its own. The events of a
# batch are a few MiB: if they were mapped and unmapped each time, the kernel would clear all pages.
_ENVIRONMENT = {
    "delivery": {
        "MALLOC_ARENA_MAX": "2",
        "MALLOC_MMAP_THRESHOLD_": str(8 * 2**20),
        "MALLOC_TRIM_THRESHOLD_": str(16 * 2**20),
    }
}


class _Process(Protocol):
    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None: ...

    def send_signal(self, number: int, /) -> None: ...

    async def wait(self) -> int: ...


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class AdoptedProcess:
    """A child process that the replaced program started."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._fd = os.pidfd_open(pid)

    def send_signal(self, number: int) -> None:
        signal.pidfd_send_signal(self._fd, number)

    async def wait(self) -> int:
        """Wait until it ends; return its exit status, or the negative number of a signal."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._fd, _resolve, ended)
        try:
            await ended
        finally:
            loop.remove_reader(self._fd)
        _, status = os.waitpid(self.pid, os.WNOHANG)  # noqa: ASYNC222 - it has ended
        self.returncode = os.waitstatus_to_exitcode(status)
        os.close(self._fd)
        return self.returncode


class Child:
    """Runs one process, and restarts it when it ends."""

    def __init__(self, orders: Orders, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = orders.name
        self.orders = orders
        self.figures: dict[str, Any] = {}  # the last report
        self.totals = Totals()  # of all runs
        self.reported_at_s = 0.0  # time of the last report, in seconds since 1970; 0: never
        self.starts = 0
        self.process: _Process | None = None
        self._adopted: socket.socket | None = None  # the connection of an adopted process
        self._clock = clock
        self._heard_s: float | None = None  # start or last report of a running process
        self._has_been_ready = False  # since its start
        self._is_told = False  # whether its silence is logged
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
        """Whether its last report is too old to be current."""
        return self.silent_s > _SILENT_S

    @property
    def silent_s(self) -> float:
        """Seconds since the last report of a running process; 0 if none is running."""
        return 0.0 if self._heard_s is None else self._clock() - self._heard_s

    def watch(self, hung_after_s: float) -> None:
        """Log that the process is silent, and kill it if it hangs; `run` restarts it."""
        silent_s = self.silent_s
        if silent_s <= min(_SILENT_S, hung_after_s) or self._stopping.is_set():
            self._is_told = False
            return
        if not self._is_told:
            self._is_told = True
            self._log.warning("process_silent", name=self.name, silent_s=round(silent_s, 1))
        if silent_s > (hung_after_s if self._has_been_ready else max(hung_after_s, _START_S)):
            self._log.error("process_hung", name=self.name, silent_s=round(silent_s, 1))
            self._heard_s = None  # kill it only once
            self.signal(signal.SIGKILL)

    def excuse(self, paused_s: float) -> None:
        """Subtract a pause of the supervisor, which did not read reports, from the silence."""
        if self._heard_s is not None:
            self._heard_s = min(self._heard_s + paused_s, self._clock())

    def on_report(self, line: bytes) -> None:
        """Process a report."""
        self.figures = msgspec.json.decode(line)
        self.totals.follow(self.figures.get("totals", {}))
        self.reported_at_s = time.time()
        self._heard_s = self._clock()
        self._has_been_ready = self._has_been_ready or self.is_ready

    async def run(self, on_report: asyncio.Event) -> None:
        """Keep the process running until `stop`."""
        backoff = Backoff(_RESTART_FIRST_S, _RESTART_MAX_S)
        while not self._stopping.is_set():
            started_s = self._clock()
            try:
                code: int | None = await self._run_once(on_report)
            except OSError as error:  # no descriptors or no memory
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
                async with asyncio.timeout(wait_s):
                    await self._stopping.wait()

    def adopt(self, handed: HandedProcess) -> None:
        """Adopt a process that the replaced program started."""
        self.process = AdoptedProcess(handed.pid)
        self._adopted = socket.socket(fileno=handed.line_fd)
        self.figures, self._heard_s = handed.figures, self._clock()
        self.totals.follow(handed.figures.get("totals", {}))

    def hand_on(self) -> HandedProcess | None:
        """Return the running process for the next program, or None if there is none.

        Raises:
            BlockingIOError: it is being started, or does not read its messages.
        """
        if self.pid is None:
            return None
        if self._line is None or self._line.transport.get_write_buffer_size():
            raise BlockingIOError(self.name)
        line = self._line.get_extra_info("socket").fileno()
        return HandedProcess(self.name, self.pid, line, self.orders, self.figures)

    async def _run_once(self, on_report: asyncio.Event) -> int:
        if self._adopted is not None:
            ours, self._adopted = self._adopted, None
            return await self._attend(ours, on_report)
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
                start_new_session=True,  # a Ctrl-C in the terminal is only for the supervisor
            )
        self.starts += 1
        return await self._attend(ours, on_report, is_new=True)

    async def _attend(
        self, ours: socket.socket, on_report: asyncio.Event, *, is_new: bool = False
    ) -> int:
        assert self.process is not None
        self._heard_s = self._clock()
        ours.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=ours, limit=2**24)
        self._line = writer
        try:
            if is_new:
                writer.write(encode(self.orders))
            else:
                await reader.readline()  # the replaced program may have read a part of it
            if self._is_leaving:  # the process was restarted meanwhile
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
        """Tell the process that a stop has begun, so that its health checks fail."""
        self._is_leaving = True
        self._send(Leave())

    def reload(
        self,
        config: Config,
        generation: int,
        rate_places: dict[str, int],
        destinations: list[str] | None = None,
    ) -> None:
        """Send new settings to the process, and use them for later restarts."""
        message = Reload(
            config=config,
            generation=generation,
            rate_places=dict(rate_places),
            destinations=destinations,
        )
        self.orders = msgspec.structs.replace(self.orders, **msgspec.structs.asdict(message))
        self._send(message)

    def follows(self, generation: int) -> bool:
        """Whether the process has applied these settings, or will when it is restarted."""
        return self._heard_s is None or self.figures.get("generation", -1) >= generation

    def _send(self, message: Message) -> None:
        """Send a message if the process is running; a new process gets everything in its orders."""
        if self._line is not None:
            with contextlib.suppress(OSError):
                self._line.write(encode(message))

    async def drain(self, task: asyncio.Task[None], timeout_s: float) -> None:
        """Make the process finish its connections and end; others accept from its sockets."""
        self._stopping.set()
        self._send(Drain())
        _, late = await asyncio.wait({task}, timeout=timeout_s)
        if late:
            await self.stop(task, timeout_s)

    async def stop(self, task: asyncio.Task[None], timeout_s: float) -> None:
        """Ask the process to end, and kill it after `timeout_s`."""
        self._stopping.set()
        if self._line is not None:
            # A signal would kill a process that does not handle it yet.
            with contextlib.suppress(OSError):
                self._line.write_eof()
        _, late = await asyncio.wait({task}, timeout=timeout_s)
        if late:
            self._log.warning("process_killed", name=self.name, after_s=timeout_s)
            self.signal(signal.SIGKILL)
            task.cancel()
            await asyncio.wait({task})
