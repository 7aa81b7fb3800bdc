"""Replicates slots that have no collector, such as after `server.workers` was lowered."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from pixelfast.cluster.cursor import lock_path, read_cursor
from pixelfast.cluster.replicator import Connect, Replicator
from pixelfast.config import Cluster
from pixelfast.spool import DataDir, remove_drained_slot
from pixelfast.spool.datadir import try_lock_file
from pixelfast.spool.end import newest_frame

__all__ = ["Orphans"]

_ROUND_S = 5.0
_LOOK_S = 0.2


class Orphans:
    """Looks for slots whose events are not replicated, and replicates one after the other.

    It stops replicating a slot as soon as a collector opens it. `own_slot` is the slot of this
    process.

    Attributes:
        is_behind: whether there was such a slot at the last look.
        last_error: why the slot is not replicated; "" if it is.
        frames, bytes: how much was replicated.
    """

    def __init__(
        self,
        data: DataDir,
        own_slot: int | None,
        settings: Cluster,
        *,
        round_s: float = _ROUND_S,
        connect: Connect | None = None,
    ) -> None:
        self.is_behind = False
        self.last_error = ""
        self.frames = self.bytes = 0
        self._data = data
        self._own_slot = own_slot
        self._settings = settings
        self._round_s = round_s
        self._connect = connect
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look for slots."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop; what is not replicated yet stays."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        while True:
            slots = await asyncio.to_thread(self._find)
            self.is_behind = bool(slots)
            for slot in slots:
                await self._replicate(slot)
            await asyncio.sleep(self._round_s if not slots else 0)

    def _find(self) -> list[int]:
        """Return the slots without a collector that are not replicated; remove those that are."""
        found = []
        for slot in self._data.slots():
            if slot == self._own_slot or not self._is_free(slot):
                continue
            newest = newest_frame(self._data, slot)
            position = read_cursor(self._data, slot).position
            if newest is not None and newest.end > position:
                found.append(slot)
            else:
                remove_drained_slot(self._data, slot, [position])
        return found

    def _is_free(self, slot: int) -> bool:
        """Return whether no collector writes into a slot, and no process replicates it."""
        own = self._data.slot_dir(slot) / "writer.lock"
        return all(map(_is_unlocked, (own, lock_path(self._data, slot))))

    async def _replicate(self, slot: int) -> None:
        replicator = Replicator(self._data, slot, self._settings, connect=self._connect)
        replicator.start()
        writer_lock = self._data.slot_dir(slot) / "writer.lock"
        try:
            while not replicator.is_complete and _is_unlocked(writer_lock):
                self.last_error = replicator.last_error
                await asyncio.sleep(_LOOK_S)
            self.last_error = ""
        finally:
            await replicator.close(0)
            self.frames += replicator.replicated_frames
            self.bytes += replicator.replicated_bytes


def _is_unlocked(path: Path) -> bool:
    try:
        lock = try_lock_file(path, shared=True)
    except FileNotFoundError:
        return False  # the slot was removed
    if lock is None:
        return False
    os.close(lock)
    return True
