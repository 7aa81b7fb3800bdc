"""The collectors and delivery processes of a server, and their replacement in an upgrade."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from pixelfast.config import Config
from pixelfast.operate.child import Child
from pixelfast.operate.control import Orders
from pixelfast.operate.handover import HandedProcess, Handover
from pixelfast.operate.listeners import Listening
from pixelfast.operate.rates import RateTable
from pixelfast.operate.spread import max_processes, spread
from pixelfast.operate.totals import Totals

__all__ = ["RELOAD_S", "Processes"]

_DELIVERY_STOP_S = 10.0
# Longer than delivery needs to stop a destination that hangs, or than replacing a process takes.
RELOAD_S = 30.0
_STARTS = 3  # maximum starts of a new collector that ends before it is ready
_READY_S = 60.0  # maximum time until new collectors are ready; then the old ones continue


class Processes:
    """Starts, reloads, replaces and stops the processes of a server.

    Attributes:
        reported: set at each report of a process.
        generation: the number of the current settings.
        rates: the shared memory of rate limits.
    """

    def __init__(
        self, config: Config, data_dir: str, listening: Listening, handover: Handover | None
    ) -> None:
        self.reported = asyncio.Event()
        self.generation = handover.generation if handover else 0
        self._data_dir = data_dir
        self._handover = handover
        names = [each.name for each in config.sources if each.rate_limit]
        if handover:
            self.rates = RateTable(names, fd=handover.rates_fd, places=handover.rate_places)
        else:
            self.rates = RateTable(names)
        self._tasks: dict[Child, asyncio.Task[None]] = {}
        self._workers = len(listening.by_worker)
        self._max_deliveries = max_processes(config, len(os.sched_getaffinity(0)))
        running = self._adopt_running()
        old = [child for child in running if child.orders.role == "collector"]
        self._new_collectors = self._make_collectors(config, listening, old)
        self._new_deliveries = [
            self._make_delivery(config, number, names)
            for number, names in self._shares(config, ()).items()
        ]
        self._serving = old or self._new_collectors
        self._deliveries = [each for each in running if each not in old] or self._new_deliveries
        # They drain or have ended; their totals are kept.
        self._leaving: list[Child] = []
        self._ended_deliveries: list[Child] = []
        if handover:
            known = {*running, *self._new_collectors, *self._new_deliveries}
            self._remember_ended(handover, {child.name for child in known})

    # --- making processes --------------------------------------------------------------------

    def _make_collectors(
        self, config: Config, listening: Listening, old: list[Child]
    ) -> list[Child]:
        """Make collectors that use the slots that no old collector uses."""
        used = {child.orders.slot for child in old}
        free = (slot for slot in itertools.count() if slot not in used)
        tls_fds = {fd for group in listening.groups if group.is_tls for fd in group.fds}
        return [
            self._make_child(
                "collector",
                config,
                slot=slot,
                listen_fds=[each.fileno() for each in own],
                rates_fd=self.rates.fd,
                rate_places=self.rates.places,
                tls_fds=[each.fileno() for each in own if each.fileno() in tls_fds],
            )
            for slot, own in zip(free, listening.by_worker, strict=False)
        ]

    def _make_delivery(self, config: Config, number: int, destinations: list[str]) -> Child:
        return self._make_child("delivery", config, number=number, destinations=destinations)

    def _make_child(self, role: str, config: Config, **more: Any) -> Child:
        child = Child(
            Orders(
                role=role,
                config=config,
                data_dir=self._data_dir,
                generation=self.generation,
                workers=self._workers,
                **more,
            )
        )
        self._continue(child)
        return child

    def _adopt_running(self) -> list[Child]:
        """Adopt the processes of the replaced program."""
        found = []
        for handed in self._handover.processes if self._handover else ():
            child = Child(handed.orders)
            self._continue(child)
            child.adopt(handed)
            found.append(child)
        return found

    def _continue(self, child: Child) -> None:
        """Continue the totals of the process with the same name."""
        if self._handover:
            child.totals = Totals(self._handover.totals.get(child.name))
            child.starts = self._handover.starts.get(child.name, 0)

    def _remember_ended(self, handover: Handover, known: set[str]) -> None:
        """Keep the totals of processes that had ended before the program was replaced."""
        for name in handover.totals.keys() - known:
            role, _, number = name.rpartition("-")
            if role == "collector":
                ended = self._make_child(role, handover.config, slot=int(number))
                self._leaving.append(ended)
            elif role == "delivery":
                self._ended_deliveries.append(self._make_delivery(handover.config, int(number), []))

    def _shares(self, config: Config, deliveries: Iterable[Child]) -> dict[int, list[str]]:
        """Return the destinations of each delivery process, by its number.

        The first process always runs; another one runs only if it has a destination.
        """
        known = {each.orders.number: each.orders.destinations or [] for each in deliveries}
        before = [known.get(number, []) for number in range(self._max_deliveries)]
        names = [each.name for each in config.destinations]
        shares = spread(names, self._max_deliveries, before)
        return {number: own for number, own in enumerate(shares) if own or number == 0}

    # --- the processes -----------------------------------------------------------------------

    @property
    def is_ready(self) -> bool:
        """Whether every collector can store events."""
        return all(child.is_ready for child in self._serving)

    @property
    def collectors(self) -> list[Child]:
        """All collectors whose figures are known, including those that have ended."""
        return [*self._serving, *self._leaving]

    @property
    def deliveries(self) -> list[Child]:
        """All delivery processes whose figures are known, including those that have ended."""
        return [*self._deliveries, *self._ended_deliveries]

    @property
    def children(self) -> list[Child]:
        """The processes that run or should run."""
        return [*self._serving, *(each for each in self._leaving if each.pid), *self._deliveries]

    def hand_on(self) -> list[HandedProcess]:
        """Return the running processes for the next program.

        Raises:
            BlockingIOError: one is being started, or does not read its messages.
        """
        handed = [child.hand_on() for child in self.children]
        return [each for each in handed if each is not None]

    def start(self) -> None:
        self._start(*self._deliveries, *self._serving)

    def _start(self, *children: Child) -> None:
        for child in (each for each in children if each not in self._tasks):
            self._tasks[child] = asyncio.create_task(child.run(self.reported))

    async def wait_until_ready(self) -> None:
        """Wait until every collector can store events."""
        while not self.is_ready:
            self.reported.clear()
            await self.reported.wait()

    # --- stopping ----------------------------------------------------------------------------

    def leave(self) -> None:
        """Make the health checks of all collectors fail."""
        for child in self._running_collectors:
            child.leave()

    async def stop(self, drain_s: float) -> None:
        """Stop the collectors, then delivery, so that it delivers what they stored meanwhile."""
        await self._stop(self._running_collectors, drain_s)
        await self._stop([*self._tasks], _DELIVERY_STOP_S)

    async def _stop(self, children: Sequence[Child], timeout_s: float) -> None:
        await asyncio.gather(*(each.stop(self._tasks[each], timeout_s) for each in children))
        for each in children:  # only now, because a stop of the server may interrupt this one
            self._tasks.pop(each, None)

    @property
    def _running_collectors(self) -> list[Child]:
        return [each for each in self._tasks if each.orders.role == "collector"]

    def kill(self) -> None:
        for child in self.children:
            child.signal(signal.SIGKILL)

    # --- reload ------------------------------------------------------------------------------

    async def reload(self, config: Config) -> list[str]:
        """Apply new settings, first in delivery; return the processes that have not applied them.

        The destinations of a new source then exist before its first event.
        """
        self.generation += 1
        self.rates.add(each.name for each in config.sources if each.rate_limit)
        self.reload_deliveries(config)
        if late := await self._wait_until_followed(self._deliveries):
            return late
        await self._stop_needless_deliveries()
        for child in self._serving:
            child.reload(config, self.generation, self.rates.places)
        return await self._wait_until_followed(self._serving)

    def reload_deliveries(self, config: Config) -> None:
        """Send settings to the delivery processes, and start those that are needed in addition.

        No destination moves to another process.
        """
        shares = self._shares(config, self._deliveries)
        for child in self._deliveries:
            own = shares.pop(child.orders.number, [])
            child.reload(config, self.generation, self.rates.places, own)
        for number, own in shares.items():
            child = self._make_delivery(config, number, own)
            for ended in [each for each in self._ended_deliveries if each.name == child.name]:
                self._ended_deliveries.remove(ended)
                child.totals, child.starts = ended.totals, ended.starts
            self._deliveries.append(child)
            self._start(child)

    async def _stop_needless_deliveries(self) -> None:
        """Stop all delivery processes without a destination, except the first one."""
        needless = [
            each for each in self._deliveries if each.orders.number and not each.orders.destinations
        ]
        await self._stop(needless, _DELIVERY_STOP_S)
        self._end_deliveries(needless)

    def _end_deliveries(self, ended: list[Child]) -> None:
        """Keep the totals of delivery processes that have ended."""
        self._deliveries = [each for each in self._deliveries if each not in ended]
        for each in ended:
            each.orders = msgspec.structs.replace(each.orders, destinations=[])
            self._ended_deliveries.append(each)

    async def _wait_until_followed(self, children: list[Child]) -> list[str]:
        """Wait until the processes have applied the newest settings; return those that have not."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RELOAD_S):
                while not all(child.follows(self.generation) for child in children):
                    self.reported.clear()
                    await self.reported.wait()
        return [child.name for child in children if not child.follows(self.generation)]

    # --- upgrade -----------------------------------------------------------------------------

    async def replace(self) -> list[str]:
        """Replace the adopted processes; return the collectors that did not become ready.

        If there are any, the old collectors continue, with the new delivery processes.
        """
        if self._deliveries is not self._new_deliveries:
            await self._replace_deliveries()
        self._start(*self._deliveries, *self._new_collectors)
        before = {each: each.starts for each in self._new_collectors}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_READY_S):
                while not all(each.is_ready for each in before):
                    if any(each.starts - count > _STARTS for each, count in before.items()):
                        break
                    self.reported.clear()
                    await self.reported.wait()
        late = [each.name for each in self._new_collectors if not each.is_ready]
        if late:
            await self._stop(self._new_collectors, _DELIVERY_STOP_S)
            return late
        self._leaving = [*self._serving, *self._leaving]
        self._serving = self._new_collectors
        return []

    async def _replace_deliveries(self) -> None:
        """Stop all old delivery processes before the new ones start, which need their locks."""
        old = {each.name: each for each in self._deliveries}
        await self._stop(self._deliveries, _DELIVERY_STOP_S)
        for each in self._new_deliveries:
            if before := old.pop(each.name, None):
                each.totals = before.totals
        self._deliveries = self._new_deliveries
        self._end_deliveries([*old.values()])

    async def drain_replaced(self, timeout_s: float) -> None:
        """Drain the old collectors, whose connections are then closed."""
        await asyncio.gather(
            *(each.drain(self._tasks[each], timeout_s) for each in self._leaving if each.pid)
        )
        self._tasks = {child: task for child, task in self._tasks.items() if not task.done()}
