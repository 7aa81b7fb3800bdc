"""Where a destination's events come from, and where its state and dead letters are kept."""

from __future__ import annotations

import os
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from pixelfast.deliver.batches import BatchLimits, Cut
from pixelfast.deliver.bundles import Bundle, DeadLetter
from pixelfast.deliver.dead import DeadLetterLimits, SourceDeadLetters
from pixelfast.deliver.dead_keeper import DeadKeeper
from pixelfast.deliver.event_log import EventLog, SpoolLog
from pixelfast.deliver.outcomes import Rejected, Retry
from pixelfast.deliver.plans import Plan
from pixelfast.deliver.progress import figures_on_disk
from pixelfast.deliver.store import Changes, Store
from pixelfast.deliver.stored_needs import mark_working
from pixelfast.deliver.timing import DeliveryClock, Timings
from pixelfast.errors import SpoolLocked
from pixelfast.spool import DataDir, Position
from pixelfast.spool.datadir import lock_file

__all__ = ["DeadLetterKeeper", "Home", "SpoolHome", "StateStore"]

Pause = Callable[[], Awaitable[bool]]


class StateStore(Protocol):
    """The durable state of a destination. Every method blocks."""

    @property
    def room(self) -> float:
        """How many more batches may be planned."""

    def cursors(self) -> dict[int, Position]: ...
    def plans(self) -> list[Plan]: ...
    def numbers(self) -> dict[int, int]: ...
    def memory(self) -> dict[str, object]: ...
    def counters(self) -> dict[str, int]: ...
    def commit(self, changes: Changes, /) -> None: ...
    def close(self) -> None: ...


class DeadLetterKeeper(Protocol):
    """The dead letters of a destination. Every method blocks.

    Attributes:
        max_bytes: the current limit of their size.
    """

    max_bytes: int

    @property
    def size_bytes(self) -> int:
        """The space that they use."""

    @property
    def by_source(self) -> dict[str, SourceDeadLetters]:
        """The numbers and sizes for each source."""

    @property
    def has_any(self) -> bool:
        """Whether there may be dead letters."""

    def write(
        self,
        added: list[Bundle],
        removed: list[int],
        rejected_again: dict[int, Rejected | Retry],
        /,
    ) -> None: ...
    def tend(self, limits: BatchLimits | None, /, *, is_due: bool) -> list[DeadLetter]: ...
    def resume(self, planned: list[list[int]], /) -> None:
        """Continue after a restart; `planned` are the dead letters of each planned replay."""

    def read_replayed(self, ids: list[int], /) -> list[DeadLetter] | None:
        """Return dead letters that are being replayed, or None if that has ended."""

    def existing(self, ids: list[int], /) -> int:
        """Return how many of these dead letters exist."""

    def close(self) -> None: ...


class Home(Protocol):
    """The log, the state and the dead letters of one runner.

    Attributes:
        log: the log that it reads.
    """

    log: EventLog

    async def claim(self, pause: Pause, on_claimed: Callable[[Exception], None]) -> bool:
        """Claim the destination for this runner; wait while another one has it.

        Return False if `pause`, which is called between two attempts, returns True: the runner is
        being stopped.
        """

    def release(self) -> None:
        """Give up the claim."""

    def open_store(self) -> StateStore:
        """Open the state. Blocks."""

    def dead_letters(
        self, limits: DeadLetterLimits, log: Any, timings: Timings, clock: DeliveryClock
    ) -> DeadLetterKeeper: ...

    def batch_id(self, cut: Cut) -> str:
        """Return the id of a batch that was cut."""

    def note_working(self) -> None:
        """Note that the destination was opened."""

    def stored_figures(
        self, end_numbers: Mapping[int, int] | None, clock: DeliveryClock
    ) -> dict[str, float]:
        """Return the figures of a destination whose runner has failed. Blocks."""


class SpoolHome:
    """The spool, and the files of one destination in a data directory."""

    def __init__(self, name: str, data: DataDir) -> None:
        self.log: EventLog = SpoolLog(data)
        self._name = name
        self._data = data
        self._folder = data.destination_dir(name)
        self._lock: int | None = None

    async def claim(self, pause: Pause, on_claimed: Callable[[Exception], None]) -> bool:
        self._folder.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                self._lock = lock_file(self._folder / "lock")
            except SpoolLocked as error:
                on_claimed(error)
            else:
                return True
            if await pause():
                return False

    def release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def open_store(self) -> Store:
        return Store(self._folder / "state.db")

    def dead_letters(
        self, limits: DeadLetterLimits, log: Any, timings: Timings, clock: DeliveryClock
    ) -> DeadKeeper:
        path = self._data.dead_dir(self._name) / "dead.db"
        return DeadKeeper(path, limits, log, timings, clock)

    def batch_id(self, cut: Cut) -> str:  # noqa: ARG002 - the plan keeps the id
        return uuid.uuid4().hex

    def note_working(self) -> None:
        mark_working(self._data, self._name)

    def stored_figures(
        self, end_numbers: Mapping[int, int] | None, clock: DeliveryClock
    ) -> dict[str, float]:
        return figures_on_disk(self._data, self._name, end_numbers, clock)
