"""The supervisor: watches the processes, and reloads, upgrades and stops the server.

It handles no traffic. A stop begins with `server.lame_duck_s`, during which only health checks
fail. Then the listening sockets are closed and the collectors drain. Delivery stops last, so that
it can deliver what the collectors stored meanwhile. A second signal ends all processes at once,
without loss of stored events.

SIGHUP reloads the settings file. The whole file is checked first; if it has errors, nothing
changes. Delivery applies the new settings before the collectors do, so that the destinations of a
new source exist before its first event.

SIGUSR2 replaces the program with the installed version in the same process (`handover`). The new
program starts collectors in free slots, which accept connections from the same sockets. Then the
old collectors drain.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import structlog

from pixelfast import __version__
from pixelfast.config import Config, Redactor
from pixelfast.operate.handover import (
    Handover,
    Wanted,
    check_installed_program,
    replace_program,
)
from pixelfast.operate.listeners import Listening
from pixelfast.operate.logging import change_logging
from pixelfast.operate.processes import RELOAD_S, Processes
from pixelfast.operate.reload import (
    RELOAD_OUTCOME,
    UPGRADE_OUTCOME,
    Outcome,
    ReloadState,
    SettingsFile,
    log_reloaded,
    read_changes,
)
from pixelfast.operate.signals import ignore_other_signals, release_signals
from pixelfast.operate.systemd import Notifier

__all__ = ["Supervisor"]

_WATCH_S = 0.5
_PAUSE_S = 2.0  # if the event loop did not run for so long, no reports were read
_QUIET_ATTEMPTS, _QUIET_PAUSE_S = 100, 0.05  # waits until nothing is being sent to a process


class _Admin(Protocol):
    async def release(self) -> tuple[str, list[int]]:
        """Stop; return the address and its listening sockets, which stay open."""

    async def start(self, address: str, fds: Sequence[int] = ()) -> str:
        """Start, or restart with existing sockets."""


class Supervisor:
    """Runs all processes of a server, and owns the listening sockets.

    Args:
        settings_file: what a reload reads.
        adopt: prepares the data directory for settings before any process applies them, and returns
            them with the parts that are not in the file.
        lock_fd: the descriptor that holds the lock of the data directory.
        handover: what the replaced program handed over.
        failure: why its processes are not replaced.

    Attributes:
        processes: the collectors and delivery processes.
    """

    name = "supervisor"  # in metrics

    def __init__(
        self,
        config: Config,
        data_dir: str,
        listening: Listening,
        notifier: Notifier,
        settings_file: SettingsFile,
        adopt: Callable[[Config], Config],
        *,
        lock_fd: int = -1,
        handover: Handover | None = None,
        failure: list[str] | None = None,
    ) -> None:
        self.config = config
        self.data_dir = data_dir
        self.reload_state = ReloadState()
        self.admin: _Admin | None = None
        self._settings_file = settings_file
        self._adopt = adopt
        self._wanted = list(handover.wanted) if handover else []
        self._something_wanted = asyncio.Event()
        if self._wanted:
            self._something_wanted.set()
        self._is_announced = handover is not None
        self._notifier = notifier
        self._started_s = handover.started_s if handover else time.monotonic()
        self.is_stopping = False
        self._groups, self._sockets = listening.groups, listening.by_worker
        self._abandoned = listening.abandoned
        self._lock_fd = lock_fd
        self._handover = handover
        self._failure = failure
        self.processes = Processes(config, data_dir, listening, handover)
        self._log = structlog.get_logger("supervisor")

    @property
    def is_ready(self) -> bool:
        """Whether every collector can store events and the server is not stopping."""
        return not self.is_stopping and self.processes.is_ready

    @property
    def uptime_s(self) -> float:
        """Seconds since the start, independent of the wall clock."""
        return time.monotonic() - self._started_s

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Run until SIGTERM or SIGINT; call `on_ready` once all collectors are ready."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, stop)
        loop.add_signal_handler(signal.SIGHUP, self._want, "reload")
        loop.add_signal_handler(signal.SIGUSR2, self._want, "upgrade")
        ignore_other_signals("supervisor", (signal.SIGUSR1,))
        release_signals()
        self.processes.start()
        readiness = asyncio.create_task(self._announce(on_ready))
        self._stop_wanted = stop
        watching = asyncio.create_task(self._watch())
        reloading = asyncio.create_task(self._do_what_is_wanted())
        await stop.wait()
        self.is_stopping = True
        for task in (readiness, reloading):
            task.cancel()
        self._notifier.stopping()
        self.processes.leave()
        lame_duck_s = self.config.server.lame_duck_s
        self._log.info("server_stopping", lame_duck_s=lame_duck_s)
        await asyncio.sleep(lame_duck_s)
        # Close these before the collectors close theirs: a socket that is open only here would
        # accept connections that no process handles.
        for each in {*self._abandoned, *(each for own in self._sockets for each in own)}:
            each.close()
        await self.processes.stop(_grace_s(self.config))
        watching.cancel()
        self._log.info("server_stopped")

    async def _announce(self, on_ready: Callable[[], None]) -> None:
        if self._is_announced:  # by the replaced program
            return
        await self.processes.wait_until_ready()
        self._is_announced = True
        self._notifier.ready("accepting pixels")
        on_ready()

    async def _watch(self) -> None:
        """Watch the processes, and notify systemd's watchdog."""
        watchdog_s = self._notifier.watchdog_s
        looked_s = time.monotonic()
        while True:
            await asyncio.sleep(min(_WATCH_S, watchdog_s) if watchdog_s else _WATCH_S)
            self._notifier.alive()
            paused_s, looked_s = time.monotonic() - looked_s, time.monotonic()
            if paused_s > _PAUSE_S:  # SIGSTOP, a frozen cgroup, swapping
                self._log.warning("supervisor_paused", paused_s=round(paused_s, 1))
                for child in self.processes.children:
                    child.excuse(paused_s)
            for child in self.processes.children:
                child.watch(self.config.server.hung_after_s)

    def _on_signal(self, stop: asyncio.Event) -> None:
        if stop.is_set():  # a second signal ends all processes at once
            self.processes.kill()
            os._exit(1)
        stop.set()

    # --- reload and upgrade ------------------------------------------------------------------

    def _want(self, what: Wanted) -> None:
        if self.is_stopping:
            self._log.warning(
                "reload_ignored" if what == "reload" else "upgrade_ignored",
                reason="the server is stopping",
            )
        elif what not in self._wanted:
            self._wanted.append(what)
        self._something_wanted.set()

    async def _do_what_is_wanted(self) -> None:
        """Reload and upgrade one at a time; repeated requests of a kind are merged."""
        if self._handover is not None:
            try:
                await self._finish_upgrade(self._handover)
            except Exception:  # noqa: BLE001 - the running processes continue
                self._log.exception("upgrade_failed")
                problems = ["the upgrade failed because of an unexpected error; see the log"]
                await self._conclude("upgrade", self._handover.began_ns, problems)
        while True:
            await self._something_wanted.wait()
            self._something_wanted.clear()
            while self._wanted:
                what = self._wanted.pop(0)
                began_ns = time.monotonic_ns()
                if self._is_announced:
                    self._notifier.reloading()
                try:
                    problems = await (
                        self._reload() if what == "reload" else self._upgrade(began_ns)
                    )
                except Exception:  # noqa: BLE001 - the running processes continue
                    self._log.exception("reload_failed" if what == "reload" else "upgrade_failed")
                    problems = [f"the {what} failed because of an unexpected error; see the log"]
                await self._conclude(what, began_ns, problems)

    async def _conclude(self, what: str, began_ns: int, problems: list[str]) -> None:
        """Report the outcome to systemd, to /health/ready and to the command that waits for it."""
        if self._is_announced:
            self._notifier.ready("accepting pixels" if not problems else f"{what} failed")
        state, name = self.reload_state, UPGRADE_OUTCOME
        lines = problems
        if what == "reload":
            name, lines = RELOAD_OUTCOME, problems or state.needs_restart
            state.conclude(problems)
        outcome = Outcome(
            pid=os.getpid(), began_ns=began_ns, is_successful=not problems, lines=lines
        )
        try:
            await asyncio.to_thread(outcome.write, Path(self.data_dir, name))
        except OSError as error:  # the disk may be full; the outcome is logged nevertheless
            self._log.warning("outcome_not_written", error=str(error))

    async def _upgrade(self, began_ns: int) -> list[str]:
        """Replace this program with the installed one; return the problems that prevent it."""
        if problems := await check_installed_program(self.config):
            for problem in problems:
                self._log.error("upgrade_rejected", problem=problem)
            return problems
        address, fds = await self.admin.release() if self.admin else ("", [])
        try:
            for _ in range(_QUIET_ATTEMPTS):
                with contextlib.suppress(BlockingIOError):
                    handover = self._hand_over(began_ns, address, fds)
                    if not self._stop_wanted.is_set():
                        self._log.info("upgrade_started")
                        replace_program(handover, {**os.environ, **self._notifier.environment})
                await asyncio.sleep(_QUIET_PAUSE_S)
            problem = "a process does not read the messages of the supervisor"
        except OSError as error:
            problem = f"the installed program cannot be executed: {error.strerror}"
        finally:
            if self.admin and address:  # otherwise it was not running
                await self.admin.start(address, fds)
        self._log.error("upgrade_rejected", problem=problem)
        return [problem]

    def _hand_over(self, began_ns: int, admin_address: str, admin_fds: list[int]) -> Handover:
        processes = self.processes
        known = [*processes.collectors, *processes.deliveries]
        return Handover(
            config=self.config,
            generation=processes.generation,
            data_dir=self.data_dir,
            lock_fd=self._lock_fd,
            groups=self._groups,
            admin_fds=admin_fds,
            admin_address=admin_address,
            rates_fd=processes.rates.fd,
            rate_places=processes.rates.places,
            processes=processes.hand_on(),
            wanted=self._wanted,
            totals={
                each.name: each.totals.ended if each.pid else each.totals.value for each in known
            },
            starts={each.name: each.starts for each in known},
            started_s=self._started_s,
            began_ns=began_ns,
        )

    async def _finish_upgrade(self, handover: Handover) -> None:
        """Replace the processes of the replaced program."""
        problems = self._failure or await self._replace(handover)
        for problem in problems:
            self._log.error("upgrade_failed", problem=problem)
        if not problems:
            self._log.info("upgrade_completed", version=__version__)
        await self._conclude("upgrade", handover.began_ns, problems)
        await self.processes.drain_replaced(_grace_s(handover.config))

    async def _replace(self, handover: Handover) -> list[str]:
        if late := await self.processes.replace():
            self._close_new_sockets(handover)
            self.config = handover.config
            self.processes.generation += 1
            self.processes.reload_deliveries(self.config)
            return [f"not ready: {', '.join(late)}; the old collectors continue"]
        for old_socket in self._abandoned:
            old_socket.close()  # before the old collectors close it: nothing else accepts from it
        return []

    def _close_new_sockets(self, handover: Handover) -> None:
        """Close sockets from which the old collectors do not accept connections."""
        self._groups = handover.groups
        known = {fd for group in handover.groups for fd in group.fds}
        new = {each for own in self._sockets for each in own if each.fileno() not in known}
        self._sockets = [[each for each in own if each not in new] for own in self._sockets]
        for listening in new:
            listening.close()

    async def _reload(self) -> list[str]:
        """Reload once; return the problems."""
        config, kept, problems = await read_changes(
            self._settings_file, self._adopt, self.config, self._log
        )
        if config is None:
            return problems
        self.reload_state.needs_restart = kept
        if late := await self.processes.reload(config):
            problem = f"settings not applied within {RELOAD_S:g} s by: {', '.join(late)}"
            self._log.error("reload_failed", problem=problem)
            return [problem]
        self.config = config
        change_logging(config.log, Redactor(config))
        log_reloaded(self._log, config, kept)
        return []


def _grace_s(config: Config) -> float:
    """Return the time after which a collector that drains is killed."""
    return config.server.drain_timeout_s + 5.0
