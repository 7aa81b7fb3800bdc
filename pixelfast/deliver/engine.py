"""Delivery: a runner for each destination, each at its own pace; then room is given back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import structlog

from pixelfast.config import Config, Destination
from pixelfast.deliver.batches import Batch, Cutter
from pixelfast.deliver.destinations import Sender, make_sender
from pixelfast.deliver.outcomes import Accepted
from pixelfast.deliver.retry import Backoff
from pixelfast.deliver.store import Store
from pixelfast.deliver.threads import OwnThread
from pixelfast.errors import SpoolLocked
from pixelfast.spool import DataDir, Position, remove_read_segments
from pixelfast.spool.datadir import lock_file

__all__ = ["Engine", "Runner"]

_POLL_S = 0.05
_NEW_SLOTS_S = 1.0
_RETENTION_S = 1.0
_LOCK_RETRY_S = 0.5
_STOP_S = 5.0  # less than a stop of the whole may take
_STEADY_S = 60.0


def takes(config: Config, destination: Destination) -> Callable[[str], bool] | None:
    """Whether a destination takes the events of a source; None where it takes all.

    A source that is no longer in the settings is taken: its events were answered with 200.
    """
    others = {
        source.name
        for source in config.sources
        if source.destinations is not None and destination.name not in source.destinations
    }
    return (lambda source: source not in others) if others else None


class Runner:
    """Brings one destination all its events, in order, batch after batch."""

    def __init__(
        self,
        name: str,
        sender: Sender,
        data: DataDir,
        takes: Callable[[str], bool] | None = None,
    ) -> None:
        self.name = name
        self.sender = sender
        self.counted: dict[str, int] = {}  # since this process started
        self.last_error = ""
        self.cursors: dict[int, Position] = {}  # those on the disk
        self.is_open = False
        self._data = data
        self._takes = takes
        self._backoff = Backoff(sender.retry_first_s, sender.retry_most_s)
        self._log = structlog.get_logger("deliver").bind(destination=name)
        self._stopping = asyncio.Event()
        self._oldest_ms = 0
        self._give_up_s = 0.0

    def stop(self) -> None:
        """Deliver what is there, for a few seconds, then end; give up on the first refusal."""
        self._give_up_s = time.monotonic() + _STOP_S
        self._stopping.set()

    @property
    def lag_s(self) -> float:
        """How old the oldest event is that is read and not delivered; 0 where there is none."""
        return max(0.0, time.time() - self._oldest_ms / 1000) if self._oldest_ms else 0.0

    async def run(self) -> None:
        folder = self._data.destination_dir(self.name)
        folder.mkdir(parents=True, exist_ok=True)
        async with contextlib.AsyncExitStack() as stack:
            lock = await self._lock(folder / "lock")
            if lock is None:
                return
            stack.callback(os.close, lock)
            thread = OwnThread(f"deliver-{self.name}")
            stack.push_async_callback(thread.close)
            self.sender.in_thread = thread.run
            store = await thread.run(Store, folder / "state.db")
            stack.callback(store.close)
            self.cursors = store.cursors()
            self.is_open = True
            cutter = Cutter(self._data, dict(self.cursors), self.sender.limits, self._takes)
            stack.callback(cutter.close)
            stack.push_async_callback(self.sender.close)
            await self.sender.open(store.memory())
            while (batch := await self._next_batch(cutter)) is not None:
                if not await self._deliver(batch, store, thread):
                    break

    async def _lock(self, path: Path) -> int | None:
        """One process at a time delivers to a destination; another one may be stopping still."""
        while True:
            try:
                return lock_file(path)
            except SpoolLocked as error:
                self._log.warning("waiting_for_lock", error=str(error))
            if await self.pause(_LOCK_RETRY_S):
                return None

    async def _next_batch(self, cutter: Cutter) -> Batch | None:
        """The next batch: full, or old enough; None once there is nothing left and we stop."""
        began_s = 0.0
        looked_s = 0.0
        while True:
            now_s = time.monotonic()
            is_stopping = self._stopping.is_set()
            if is_stopping or now_s - looked_s >= _NEW_SLOTS_S:
                looked_s = now_s
                cutter.find_slots()
            is_full = cutter.cut()
            if is_stopping and now_s > self._give_up_s:
                return None
            if cutter.has_moved():
                began_s = began_s or now_s
                self._oldest_ms = cutter.oldest_ms
                if is_full or is_stopping or now_s - began_s >= self.sender.limits.max_age_s:
                    return cutter.close_batch()
            elif is_stopping:
                return None
            await asyncio.sleep(0) if cutter.has_more else await self.pause(_POLL_S)

    async def _deliver(self, batch: Batch, store: Store, thread: OwnThread) -> bool:
        """Send a batch until it is accepted, then move the cursors; False when we stop first."""
        memory = None
        if batch.events:
            while True:
                outcome = await self.sender.send(batch)
                if isinstance(outcome, Accepted):
                    break
                self._count("failures", 1)
                wait_s = self._backoff.next_s(outcome.after_s)
                self._report_failure(outcome.reason, wait_s)
                if self._stopping.is_set() or await self.pause(wait_s):
                    return False
            memory = outcome.memory
            if self.last_error:
                self._log.info("destination_is_back", failures=self._backoff.failures)
            self.last_error = ""
            self._backoff.reset()
        counted = {"delivered": batch.events, "batches": 1 if batch.events else 0}
        if batch.skipped:
            counted["skipped"] = batch.skipped
        await thread.run(store.commit, batch.after, memory, counted)
        self.cursors |= batch.after
        for name, count in counted.items():
            self._count(name, count)
        self._oldest_ms = 0
        return True

    def _report_failure(self, reason: str, wait_s: float) -> None:
        """Say the first failure in a row, and each new reason; not every try of a long night."""
        if reason != self.last_error:
            self._log.warning(
                "delivery_failed",
                reason=reason,
                next_try_s=round(wait_s, 1),
                failures=self._backoff.failures,
            )
        self.last_error = reason

    def _count(self, name: str, count: int) -> None:
        self.counted[name] = self.counted.get(name, 0) + count

    async def pause(self, seconds: float) -> bool:
        """Wait; True where the wait was cut short because we stop."""
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return False
        return True


class Engine:
    """All destinations of one data directory."""

    def __init__(self, config: Config, data: DataDir) -> None:
        self._data = data
        self._log = structlog.get_logger("deliver")
        self.removed_segments = 0
        self.runners = [
            Runner(each.name, make_sender(each, data), data, takes(config, each))
            for each in config.destinations
        ]

    async def run(self) -> None:
        """Deliver until `stop`. A runner that fails is logged and started again."""
        retention = asyncio.create_task(self._keep_room())
        try:
            await asyncio.gather(*(self._supervise(runner) for runner in self.runners))
        finally:
            retention.cancel()

    def stop(self) -> None:
        for runner in self.runners:
            runner.stop()

    def stats(self) -> dict[str, Any]:
        """What this process did since it started."""
        return {
            "is_ready": all(runner.is_open for runner in self.runners),
            "removed_segments": self.removed_segments,
            "destinations": {
                runner.name: {
                    **runner.counted,
                    "lag_s": round(runner.lag_s, 3),
                    "last_error": runner.last_error,
                }
                for runner in self.runners
            },
        }

    async def _supervise(self, runner: Runner) -> None:
        backoff = Backoff(0.5, 30.0)
        while True:
            started_s = time.monotonic()
            try:
                await runner.run()
            except Exception as error:  # noqa: BLE001 - a task's edge: no destination stops another
                self._log.exception("runner_failed", destination=runner.name)
                runner.last_error = str(error) or type(error).__name__
            else:
                return
            if time.monotonic() - started_s > _STEADY_S:
                backoff.reset()
            if await runner.pause(backoff.next_s()):
                return

    async def _keep_room(self) -> None:
        while True:
            await asyncio.sleep(_RETENTION_S)
            if all(runner.is_open for runner in self.runners):
                cursors = [runner.cursors for runner in self.runners]
                try:
                    self.removed_segments += await asyncio.to_thread(self._remove_read, cursors)
                except OSError as error:
                    self._log.error("retention_failed", error=str(error))

    def _remove_read(self, cursors: Iterable[dict[int, Position]]) -> int:
        removed = 0
        for slot in self._data.slots():
            earliest = [each.get(slot, Position()).segment for each in cursors]
            removed += remove_read_segments(self._data, slot, earliest)
        return removed
