"""The supervisor: starts the processes, watches them, restarts them, stops them in order.

It takes no traffic. A stop begins with `server.lame_duck_s`, in which only health checks fail. Then
the listening sockets are closed, collectors drain, and delivery stops last, so that what the
collectors still stored is on its way. A second signal ends everything at once, which loses nothing.

SIGHUP reloads the settings file. First the whole file is checked; with a mistake nothing changes.
Then delivery follows the new settings, and after it the collectors: no event of a new source comes
before its destinations are known.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Collection
from pathlib import Path

import structlog

from pixelfast.config import Config, Redactor
from pixelfast.errors import PixelfastError
from pixelfast.operate.child import Child
from pixelfast.operate.control import Orders
from pixelfast.operate.logging import change_logging
from pixelfast.operate.rates import RateTable
from pixelfast.operate.reload import (
    RELOAD_OUTCOME,
    Outcome,
    ReloadState,
    SettingsFile,
    merge,
    mistakes_in,
)
from pixelfast.operate.signals import ignore_other_signals, release_signals
from pixelfast.operate.systemd import Notifier

__all__ = ["Supervisor"]

_DELIVERY_STOP_S = 10.0
_WATCH_S = 0.5
# Longer than delivery takes to stop a destination that hangs, and a process to be replaced.
_RELOAD_S = 30.0


class Supervisor:
    """All processes of one pixelfast. It owns the listening sockets, one list for each worker.

    `tls_sockets`: those of `sockets` that speak TLS.
    `settings_file` is what a reload reads; `adopt` prepares the data directory for settings before
    any process follows them, and returns them with what is not in the file.
    """

    def __init__(
        self,
        config: Config,
        data_dir: str,
        sockets: list[list[socket.socket]],
        notifier: Notifier,
        settings_file: SettingsFile,
        adopt: Callable[[Config], Config],
        *,
        tls_sockets: Collection[socket.socket] = (),
    ) -> None:
        self.config = config
        self.data_dir = data_dir
        self.reload_state = ReloadState()
        self._settings_file = settings_file
        self._adopt = adopt
        self._generation = 0
        self._reload_wanted = asyncio.Event()
        self._is_announced = False
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
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        ignore_other_signals("supervisor", (signal.SIGUSR1, signal.SIGUSR2))
        release_signals()
        tasks = {
            child.name: asyncio.create_task(child.run(self.reported))
            for child in [self.delivery, *self.collectors]
        }
        readiness = asyncio.create_task(self._announce(on_ready))
        watching = asyncio.create_task(self._watch())
        reloading = asyncio.create_task(self._reload_when_wanted())
        await stop.wait()
        self.is_stopping = True
        for task in (readiness, reloading):
            task.cancel()
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
        self._is_announced = True
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

    # --- reload ------------------------------------------------------------------------------

    def _on_hangup(self) -> None:
        if self.is_stopping:
            self._log.warning("reload_ignored", reason="a stop has begun")
        self._reload_wanted.set()

    async def _reload_when_wanted(self) -> None:
        """Reload, one after the other; several that are wanted meanwhile are one."""
        while True:
            await self._reload_wanted.wait()
            self._reload_wanted.clear()
            began_ns = time.monotonic_ns()
            if self._is_announced:
                self._notifier.reloading()
            try:
                problems = await self._reload()
            except Exception:  # noqa: BLE001 - a task's edge: what runs goes on
                self._log.exception("reload_failed")
                problems = ["the reload failed: the log has the reason"]
            if self._is_announced:
                self._notifier.ready("accepting pixels" if not problems else "reload failed")
            await asyncio.to_thread(self._keep_outcome, began_ns, problems)

    async def _reload(self) -> list[str]:
        """Reload once; return what is wrong."""
        if self._settings_file.path is None:
            problem = "there is no settings file to reload: the server was started without --config"
            self._log.warning("reload_rejected", problem=problem)
            return [problem]
        try:
            wanted = await asyncio.to_thread(lambda: self._adopt(self._settings_file.read()))
        except (PixelfastError, OSError) as error:
            problems = mistakes_in(error)
            for problem in problems:
                self._log.error("reload_rejected", problem=problem)
            return problems
        config, kept = merge(self.config, wanted)
        self.reload_state.needs_restart = [str(each) for each in kept]
        for each in kept:
            self._log.warning(
                "setting_not_reloaded",
                setting=each.name,
                running=each.running,
                wanted=each.wanted,
                takes=each.remedy,
            )
        self._generation += 1
        self._rates.add(each.name for each in config.sources if each.rate_limit)
        for group in ([self.delivery], self.collectors):
            for child in group:
                child.reload(config, self._generation, self._rates.places)
            if late := await self._wait_until_followed(group):
                problem = f"not followed within {_RELOAD_S:g} s by: {', '.join(late)}"
                self._log.error("reload_failed", problem=problem)
                return [problem]
        self.config = config
        change_logging(config.log, Redactor(config))
        self._log.info(
            "reloaded",
            sources=len(config.sources),
            destinations=len(config.destinations),
            not_reloaded=len(kept),
        )
        return []

    async def _wait_until_followed(self, children: list[Child]) -> list[str]:
        """Wait until the processes follow the newest settings; return the names of the others."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_RELOAD_S):
                while not all(child.follows(self._generation) for child in children):
                    self.reported.clear()
                    await self.reported.wait()
        return [child.name for child in children if not child.follows(self._generation)]

    def _keep_outcome(self, began_ns: int, problems: list[str]) -> None:
        state = self.reload_state
        state.is_successful, state.problems = not problems, problems
        if not problems:
            state.succeeded_at_s = time.time()
        outcome = Outcome(
            pid=os.getpid(),
            began_ns=began_ns,
            is_successful=not problems,
            lines=problems or state.needs_restart,
        )
        try:
            outcome.write(Path(self.data_dir, RELOAD_OUTCOME))
        except OSError as error:  # the disk is full: the log has it all the same
            self._log.warning("outcome_not_kept", error=str(error))
