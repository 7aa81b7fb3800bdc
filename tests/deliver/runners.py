"""A scripted sender, and engines and runners with short intervals."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import msgspec

from pixelfast.config import Config, HttpDestination, Source, Spool, WriteKey
from pixelfast.deliver.batches import Batch, BatchLimits
from pixelfast.deliver.engine import Engine
from pixelfast.deliver.home import SpoolHome
from pixelfast.deliver.outcomes import Accepted, Outcome, Partial
from pixelfast.deliver.outlet import Outlet
from pixelfast.deliver.plans import Plan
from pixelfast.deliver.runner import Runner
from pixelfast.deliver.sender import Sender
from pixelfast.deliver.timing import DeliveryClock, Timings
from pixelfast.spool import DataDir, Position
from tests.deliver.spools import taking
from tests.waiting import WAIT_S, until

AT_ONCE = BatchLimits(max_events=5, max_bytes=10**6, max_age_s=0.0)
# Short intervals, in the same order as the defaults.
QUICK = Timings(
    min_look_pause_s=0.002,
    max_look_pause_s=0.002,
    list_slots_s=0.005,
    lock_retry_s=0.005,
    clock_s=0.005,
    figures_s=0.005,
    check_s=0.005,
    min_restart_s=0.01,
    max_restart_s=0.02,
    write_s=0.001,
    settled_s=0.005,
    replay_s=0.005,
    all_rejected_s=0.05,
    quiet_s=0.1,
    space_s=0.005,
    held_s=0.02,
    partial_pause_s=0.01,
    retention_s=0.005,
)


class FakeSender(Sender):
    """Return the outcomes of a script, then those of `judge`; record all batches.

    Attributes:
        gate: requests wait until it is set.
        sent: the events of each batch.
        accepted: all accepted events.
    """

    retry_first_s = 0.001
    retry_most_s = 0.002

    def __init__(
        self,
        script: Iterable[Outcome | Exception] = (),
        limits: BatchLimits = AT_ONCE,
        on_send: Callable[[Batch], None] | None = None,
        judge: Callable[[Batch], Outcome] = lambda _: Accepted(),
        concurrency: int = 1,
    ) -> None:
        self.concurrency = concurrency
        self.judge = judge
        self.ids: list[str] = []
        self.max_under_way = self.under_way = 0
        self.limits = limits
        self.script = list(script)
        self.gate = asyncio.Event()
        self.gate.set()
        self.sent: list[list[bytes]] = []
        self.accepted: list[bytes] = []
        self.memories: list[dict[str, object]] = []
        self.open_errors: list[Exception] = []
        self.closed = 0
        self._on_send = on_send or (lambda _: None)

    async def open(self, memory: dict[str, object]) -> None:
        self.memories.append(memory)
        if self.open_errors:
            raise self.open_errors.pop(0)

    async def send(self, batch: Batch) -> Outcome:
        self.sent.append(batch.lines())
        self.ids.append(batch.id)
        self._on_send(batch)
        self.under_way += 1
        self.max_under_way = max(self.max_under_way, self.under_way)
        await self.gate.wait()
        await asyncio.sleep(0)  # so that requests overlap if the runner lets them
        self.under_way -= 1
        outcome = self.script.pop(0) if self.script else self.judge(batch)
        if isinstance(outcome, Exception):
            raise outcome
        if isinstance(outcome, Accepted):
            self.accepted += batch.lines()
        if isinstance(outcome, Partial):
            lines = batch.lines()
            self.accepted += [each for n, each in enumerate(lines) if n not in outcome.failed]
        return outcome

    async def close(self) -> None:
        self.closed += 1

    @property
    def numbers(self) -> list[int]:
        return [json.loads(line)["n"] for line in self.accepted]

    async def has(self, count: int) -> None:
        await until(lambda: len(self.accepted) >= count)


@asynccontextmanager
async def running(service: Engine | Runner) -> AsyncIterator[None]:
    """Run it during the body, then stop it and wait for its end."""
    task = asyncio.ensure_future(service.run())
    try:
        yield
        service.stop()
        await asyncio.wait_for(task, WAIT_S)
    finally:
        task.cancel()
        await asyncio.wait({task})


def make_engine(
    data: DataDir,
    senders: Mapping[str, Sender] | None = None,
    sources: tuple[Source, ...] = (),
    config: Config | None = None,
    clock: DeliveryClock = DeliveryClock(),  # noqa: B008 - only an engine's notices jumps
    timings: Timings = QUICK,
) -> Engine:
    """Make an engine with these senders as its destinations, or with those of `config`."""
    config = config or settings(*(senders or ()), sources=sources)

    make = None if senders is None else lambda destination, *_: senders[destination.name]
    return Engine(config, data, timings=timings, clock=clock, make_sender=make)


async def reclaimed(engine: Engine, rounds: int = 3) -> None:
    """Wait until the engine has completed this many rounds of removing segments."""
    for _ in range(rounds + 1):  # the first may have begun before
        before = engine.reclaimer.end_numbers  # each round begins with new ones
        await until(lambda before=before: engine.reclaimer.end_numbers is not before)


def settings(*names: str, sources: tuple[Source, ...] = ()) -> Config:
    destinations = tuple(HttpDestination(name=name, url="http://127.0.0.1:1/") for name in names)
    return Config(sources=sources, destinations=destinations)


def config(spool: Spool = Spool(), **options: dict[str, object]) -> Config:  # noqa: B008 - frozen
    """Make settings of destinations, given as options by name."""
    plain = settings(*options)
    changed = tuple(
        msgspec.structs.replace(each, **options[each.name]) for each in plain.destinations
    )
    return msgspec.structs.replace(plain, destinations=changed, spool=spool)


def source(name: str, *destinations: str) -> Source:
    """Make a source for these destinations, by default for all."""
    key = WriteKey(key=f"wk-{name}")
    return Source(name=name, write_keys=(key,), destinations=destinations or None)


def make_runner(
    data: DataDir, sender: Sender, sources: frozenset[str] | None = None, **options: Any
) -> Runner:
    """Make a runner of the destination "hook" with short intervals."""
    options = {"timings": QUICK, **options}
    shared = {name: options[name] for name in ("timings", "clock") if name in options}
    outlet = Outlet("hook", sender, **shared, backoff=options.pop("backoff", None))
    return Runner("hook", outlet, SpoolHome("hook", data), taking(sources), **options)


def cursors_on_disk(data: DataDir, name: str) -> dict[int, Position]:
    """Return the cursors that another process would find if this one were killed now."""
    path = data.destination_dir(name) / "state.db"
    rows = _rows(path, "SELECT * FROM cursor")
    cursors = {slot: Position(*rest) for slot, *rest, _ in rows}
    for (body,) in _rows(path, "SELECT body FROM plan"):  # it would be sent after a start
        for each in msgspec.json.decode(body, type=Plan).ranges:
            cursors[each.slot] = min(each.start, cursors[each.slot])
    return cursors


def plans_on_disk(data: DataDir, name: str) -> list[str]:
    """Return the ids of the batches that would be sent after a start."""
    path = data.destination_dir(name) / "state.db"
    return [identity for (identity,) in _rows(path, "SELECT id FROM plan")]


def counters_on_disk(data: DataDir, name: str) -> dict[str, int]:
    return dict(_rows(data.destination_dir(name) / "state.db", "SELECT * FROM counter"))


def _rows(path: Path, statement: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return list(db.execute(statement))


def check_sum(figures: Mapping[str, Any]) -> None:
    """Check that every stored event is accounted for."""
    named = ("delivered", "dead", "filtered", "expired", "pending", "missing")
    parts = {name: figures.get(name, 0) for name in named}
    there = figures["stored"] + figures.get("repeated", 0)
    assert there == sum(parts.values()), (there, parts)
