"""The delivery engine of a process: a runner for each of its destinations, and retention."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from pixelfast.backoff import Backoff
from pixelfast.config import Config, Destination, FileDestination, Redactor
from pixelfast.deliver import destinations
from pixelfast.deliver.archive.quota import DiskQuota, SpoolNeeds
from pixelfast.deliver.attempts import Attempts
from pixelfast.deliver.clock_record import read_clock_record, this_boot, write_clock_record
from pixelfast.deliver.dead import DeadLetterLimits
from pixelfast.deliver.home import SpoolHome
from pixelfast.deliver.memory import share_of
from pixelfast.deliver.outlet import Outlet
from pixelfast.deliver.reclaimer import Reclaimer, log_ends
from pixelfast.deliver.runner import Runner
from pixelfast.deliver.selections import Selections
from pixelfast.deliver.sender import Sender
from pixelfast.deliver.store import register
from pixelfast.deliver.stored_needs import mark_failing
from pixelfast.deliver.timing import DeliveryClock, Timings
from pixelfast.errors import PixelfastError
from pixelfast.spool import DataDir, Position, number_at

__all__ = ["SENDER_TOTALS", "Engine", "made_of", "register_destinations", "retry_time_s"]

SENDER_TOTALS = (  # counted by each sender since it was made
    "archive_deleted_files",
    "archive_deleted_bytes",
    "stored_objects",
    "stored_object_bytes",
)
_OBJECTS_PER_COLLECTION = 10_000


def retry_time_s(destination: Destination) -> float:
    """Return the age at which events become dead letters when an attempt fails, in seconds."""
    if isinstance(destination, FileDestination):
        return float("inf")  # a failed disk will be replaced
    return destination.retry_for_s


def register_destinations(config: Config, data: DataDir) -> None:
    """Store where new destinations begin, before the first event that they must receive arrives.

    Known destinations are not changed. If `[cluster]` was removed from the settings, new ones begin
    at the events that were not replicated. Blocks for the disk.
    """
    ends: dict[int, tuple[Position, int]] = {}
    was_clustered = any((data.path / "shards").glob("*.replicated"))
    for each in config.destinations:
        path = data.destination_dir(each.name) / "state.db"
        if path.parent.exists():
            continue
        if not ends:
            ends = log_ends(data)
            if was_clustered:
                ends |= _unreplicated(data)
        known = ends
        if each.start == "earliest":  # the events of removed slots do not belong to it
            known = {slot: end for slot, end in ends.items() if slot not in data.slots()}
        cursors = {slot: position for slot, (position, _) in known.items()}
        register(path, cursors, {slot: number for slot, (_, number) in known.items()})
    if was_clustered:
        _forget_replication(data)


def _unreplicated(data: DataDir) -> dict[int, tuple[Position, int]]:
    """Return the first event of each slot that was not replicated, by position and number."""
    # Imported here so that nothing of it is loaded if there has never been a cluster.
    from pixelfast.cluster.cursor import read_cursor

    positions = {slot: read_cursor(data, slot).position for slot in data.slots()}
    numbers = {slot: number_at(data, slot, at) for slot, at in positions.items()}
    return {slot: (positions[slot], n) for slot, n in numbers.items() if n is not None}


def _forget_replication(data: DataDir) -> None:
    """Let destinations that are added later begin at the end of the log."""
    for path in (data.path / "shards").glob("*.replicated"):
        path.unlink()


def made_of(destination: Destination) -> tuple[object, ...]:
    """Return a destination's settings, and the state of the files they name, for comparison."""
    files = [getattr(destination, name, "") for name in ("tls_ca", "tls_cert", "tls_key")]
    return destination, *(_changed_at(path) for path in files if path)


def _changed_at(path: str) -> tuple[int, int] | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


class Engine:
    """Deliver to the destinations `names`, or to all; `workers` collectors share the spool.

    The engines of several processes can deliver from the same data directory, each to other
    destinations. One of them reclaims disk space.

    Attributes:
        runners: the runners of all usable destinations.
        unusable: destinations that cannot be created, with the reason.
        reclaimer: removes segments of the spool.
    """

    def __init__(
        self,
        config: Config,
        data: DataDir,
        workers: int = 1,
        names: Collection[str] | None = None,
        *,
        timings: Timings = Timings(),  # noqa: B008 - frozen
        clock: DeliveryClock | None = None,
        make_sender: Callable[[Destination, DataDir, DeliveryClock], Sender] | None = None,
    ) -> None:
        self._timings = timings
        self._clock = clock = clock or DeliveryClock()
        needs = SpoolNeeds.of(config.spool, workers)
        self._quota = DiskQuota(data, needs, max_share=0.0)
        self._make_sender = make_sender or partial(destinations.make_sender, needs=needs)
        self._log = structlog.get_logger("deliver")
        self._config = config
        self._names = names
        self._data = data
        self._redactor = Redactor(config)
        self._attempts: dict[str, Attempts] = {}
        self._replaced: dict[str, Counter[str]] = {}  # totals of senders that were replaced
        self._stopping = asyncio.Event()
        self._running: dict[Runner, asyncio.Task[None]] = {}
        self._selections = Selections(config)
        self._turn = asyncio.Lock()  # held by the destination that reads
        self.unusable: dict[str, str] = {}
        self._made = {each.name: made_of(each) for each in self._own}
        self.runners = [runner for each in self._own if (runner := self._make(each))]
        self.reclaimer = Reclaimer(
            config, data, self.runners, workers, timings, clock, self._names_of_others()
        )

    @property
    def _own(self) -> list[Destination]:
        """The destinations of this engine."""
        names = self._names
        return [each for each in self._config.destinations if names is None or each.name in names]

    @property
    def names(self) -> list[str]:
        """The names of the destinations that can be used."""
        return [runner.name for runner in self.runners]

    def _names_of_others(self) -> set[str]:
        return {each.name for each in self._config.destinations} - self._made.keys()

    def _make(self, destination: Destination) -> Runner | None:
        """Create a runner, or return None if the destination is unusable; its events are kept."""
        try:
            sender = self._make_sender(destination, self._data, self._clock)
        except Exception as error:  # noqa: BLE001 - any error of a library about a setting
            self._log.exception("destination_unusable", destination=destination.name)
            self.unusable[destination.name] = self._reason(error)
            mark_failing(self._data, destination.name)
            return None
        sender.redactor = self._redactor
        sender.attempts = self._attempts.setdefault(destination.name, Attempts(self._clock))
        return Runner(
            destination.name,
            Outlet(destination.name, sender, self._timings, self._clock),
            SpoolHome(destination.name, self._data),
            self._selections.of(destination),
            retry_for_s=retry_time_s(destination),
            dead_limits=DeadLetterLimits(
                destination.max_dead_bytes,
                destination.max_dead_age_s,
                destination.on_dead_full,
                disk_limit=partial(self._quota.limit_bytes, self._data.path),
            ),
            share_bytes=self._share_bytes,
            turn=self._turn,
            timings=self._timings,
            clock=self._clock,
        )

    @property
    def _share_bytes(self) -> int:
        return share_of(self._config.deliver.max_memory, len(self._own))

    def _reason(self, error: Exception) -> str:
        return self._redactor.text(str(error) or type(error).__name__)

    async def run(self) -> None:
        """Deliver until `stop`. A runner that fails is logged and restarted."""
        # Responses and dead letters are thousands of objects without cycles. Searching them and all
        # imported modules for cycles used 6 % of the time.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_OBJECTS_PER_COLLECTION)
        await asyncio.to_thread(self._expect_clock)
        tending = [
            asyncio.create_task(each) for each in (self._reclaim_space(), self._watch_clock())
        ]
        try:
            self._start_all()
            await self._stopping.wait()
            while running := list(self._running.values()):
                # Since Python 3.12, `gather` does not let `_end` run if all tasks are done.
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_EXCEPTION)
                for each in done:
                    each.result()
        finally:
            tasks = [*tending, *self._running.values()]
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.reclaimer.close()

    def _start_all(self) -> None:
        for runner in self.runners:
            if runner not in self._running:
                task = self._running[runner] = asyncio.create_task(self._supervise(runner))
                task.add_done_callback(partial(self._end, runner))

    def _end(self, runner: Runner, _task: asyncio.Task[None]) -> None:
        del self._running[runner]

    def stop(self) -> None:
        self._stopping.set()
        for runner in {*self.runners, *self._running}:
            runner.stop()

    async def reload(self, config: Config, names: Collection[str] | None = None) -> None:
        """Apply new settings, with the destinations `names` or all.

        Unchanged destinations continue without interruption.

        A changed or removed destination stops cleanly; its undelivered events are delivered with
        the new settings. Returns when no runner uses the old settings. New destinations must be
        registered before (`register_destinations`).
        """
        self._selections.follow(config)
        self._redactor = Redactor(config)
        before = self._made
        self._config, self._names = config, names
        self._made = {each.name: made_of(each) for each in self._own}
        kept = {
            runner.name: runner
            for runner in self.runners
            if self._made.get(runner.name) == before[runner.name]
        }
        leaving = [runner for runner in self.runners if runner.name not in kept]
        self.reclaimer.follow(config, self._names_of_others())
        for each in self._own:
            if runner := kept.get(each.name):
                runner.follow(self._selections.of(each), self._share_bytes)
                runner.sender.redactor = self._redactor
        for runner in leaving:
            runner.give_way()
        tasks = [self._running[runner] for runner in leaving if runner in self._running]
        if tasks:
            await asyncio.wait(tasks)
        if self._stopping.is_set():
            return
        self._replaced = self._sender_totals(leaving)
        self.unusable.clear()
        runners = [kept.get(each.name) or self._make(each) for each in self._own]
        self.runners[:] = [runner for runner in runners if runner]
        self._start_all()
        changed = {runner.name for runner in leaving}
        names = {runner.name for runner in self.runners}
        self._log.info(
            "destinations_reloaded",
            added=sorted(names - changed - kept.keys()),
            changed=sorted(names & changed),
            removed=sorted(changed - names),
        )

    def stats(self) -> dict[str, Any]:
        """Return the figures of all destinations; `totals` are counted since the start."""
        unusable: dict[str, dict[str, Any]] = {
            name: {"state": "unusable", "last_error": reason}
            for name, reason in self.unusable.items()
        }
        running: dict[str, dict[str, Any]] = {
            each.name: each.stats(self.reclaimer.end_numbers) for each in self.runners
        }
        return {
            "is_ready": not self.unusable
            and all(runner.is_open and not runner.has_failed for runner in self.runners),
            "destinations": {
                name: {**own, **self._measured(name)}
                for name, own in {**running, **unusable}.items()
            },
            "totals": {
                "senders": self._sender_totals(self.runners),
                "removed_segments": self.reclaimer.removed_segments,
                "attempts": {name: own.figures() for name, own in self._attempts.items()},
            },
        }

    def _sender_totals(self, runners: Iterable[Runner]) -> dict[str, Counter[str]]:
        """Return the totals of senders since the start, of these runners and of replaced ones."""
        totals = {name: Counter(own) for name, own in self._replaced.items()}
        for runner in runners:
            figures = runner.sender.figures()
            own = {each: int(figures[each]) for each in SENDER_TOTALS if each in figures}
            if own:
                totals.setdefault(runner.name, Counter()).update(own)
        return totals

    def _measured(self, name: str) -> dict[str, float]:
        """Return figures that do not depend on the runner, which may have failed."""
        figures: dict[str, float] = {}
        if name in self.reclaimer.pending_bytes:
            figures["pending_bytes"] = self.reclaimer.pending_bytes[name]
        if name in self._attempts and self._attempts[name].last_success_s:
            figures["last_success_s"] = self._attempts[name].last_success_s
        return figures

    async def _supervise(self, runner: Runner) -> None:
        backoff = Backoff(self._timings.min_restart_s, self._timings.max_restart_s)
        logged, logged_s = "", float("-inf")
        while True:
            started_s = self._clock.monotonic_s()
            try:
                await runner.run()
            except Exception as error:  # noqa: BLE001 - a task's edge: no destination stops another
                reason = self._reason(error)
                runner.fail(reason)
                mark_failing(self._data, runner.name)
                now_s = self._clock.monotonic_s()
                if reason != logged or now_s - logged_s >= self._timings.log_again_s:
                    logged, logged_s = reason, now_s
                    # A full or broken disk is not a bug, so a traceback would not help.
                    is_known = isinstance(error, OSError | sqlite3.Error | PixelfastError)
                    self._log.error(
                        "destination_failed",
                        destination=runner.name,
                        error=reason,
                        exc_info=None if is_known else error,
                    )
            else:
                return
            if self._clock.monotonic_s() - started_s > self._timings.steady_s:
                backoff.reset()
            if await runner.pause(backoff.next_s()):
                return

    async def _reclaim_space(self) -> None:
        pause_s = min(self._timings.drained_s, self._timings.retention_s)
        now_s = asyncio.get_running_loop().time
        next_s = now_s() + self._timings.retention_s
        while True:
            await asyncio.sleep(pause_s)
            try:
                if now_s() < next_s and not await self.reclaimer.is_due():
                    continue
                await self.reclaimer.keep()
            except Exception as error:  # noqa: BLE001 - without retention the spool becomes full
                self._log.error(
                    "retention_failed",
                    error=self._reason(error),
                    exc_info=None if isinstance(error, OSError) else error,
                )
                await asyncio.sleep(self._timings.retention_s)
            next_s = now_s() + self._timings.retention_s

    async def _watch_clock(self) -> None:
        while True:
            await asyncio.sleep(self._timings.clock_s)
            if jump_s := self._clock.look():
                await asyncio.to_thread(self._note_jump, jump_s)

    def _expect_clock(self) -> None:
        """Detect a jump of the wall clock between the last run and this one."""
        record = read_clock_record(self._data)
        self._clock.jumps = [*record.jumps, *self._clock.jumps]
        boot = this_boot()
        if not boot or record.boot != boot:
            write_clock_record(self._data, self._clock)
        elif jump_s := self._clock.expect(record.offset_s):
            self._note_jump(jump_s)

    def _note_jump(self, jump_s: float) -> None:
        self._log.warning("clock_jumped", seconds=round(jump_s, 1))
        write_clock_record(self._data, self._clock)
