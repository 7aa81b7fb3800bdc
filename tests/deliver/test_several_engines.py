"""Engines of several processes deliver from one spool, each to its own destinations."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest

from pixelfast.config import Config, Spool
from pixelfast.deliver.engine import Engine, register_destinations
from pixelfast.deliver.outcomes import Retry
from pixelfast.deliver.sender import Sender
from pixelfast.deliver.timing import Timings
from pixelfast.spool import DataDir
from pixelfast.spool.datadir import try_lock_file
from tests.deliver.runners import (
    QUICK,
    FakeSender,
    check_sum,
    config,
    counters_on_disk,
    cursors_on_disk,
    reclaimed,
    running,
)
from tests.deliver.running import run
from tests.deliver.spools import event
from tests.spools import Feed
from tests.waiting import until

SEGMENT_BYTES = 8192
DOWN = [Retry("down")] * 10**6


@pytest.fixture
def segment_bytes() -> int:
    return SEGMENT_BYTES


def engine_of(
    data: DataDir, chosen: Config, senders: Mapping[str, Sender], timings: Timings = QUICK
) -> Engine:
    """Make the engine of the process that has these destinations."""
    register_destinations(chosen, data)
    return Engine(
        chosen,
        data,
        names=senders.keys(),
        timings=timings,
        make_sender=lambda destination, *_: senders[destination.name],
    )


def write(feed: Feed, stop: int, start: int = 0) -> None:
    for n in range(start, stop):
        feed.write(event(n, padding=400))


def is_locked(data: DataDir) -> bool:
    """Return whether an engine removes segments."""
    fd = try_lock_file(data.retention_lock_path)
    if fd is not None:
        os.close(fd)
    return fd is None


def figures(engine: Engine, name: str) -> dict[str, Any]:
    found = engine.stats()["destinations"][name]
    assert isinstance(found, dict)
    return found


def test_a_slow_destination_of_another_engine_pins_its_segments(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        fast, slow = FakeSender(), FakeSender(list(DOWN))
        chosen = config(fast={}, slow={})
        one, other = (
            engine_of(data, chosen, {"fast": fast}),
            engine_of(data, chosen, {"slow": slow}),
        )
        async with running(one), running(other):
            write(feed, 200)
            await fast.has(200)
            await reclaimed(one)
            await reclaimed(other)
            written = data.segments(0)
            assert 10 < len(written) == written[-1]
            assert {"fast"} == one.stats()["destinations"].keys()
            assert {"slow"} == other.stats()["destinations"].keys()
            slow.script.clear()
            await slow.has(200)
            await until(lambda: written[-1:] == data.segments(0))
            removed: Callable[[], set[int]] = lambda: {  # noqa: E731
                each.reclaimer.removed_segments for each in (one, other)
            }
            await until(lambda: removed() == {0, len(written) - 1})  # one owns retention
        assert list(range(200)) == fast.numbers == slow.numbers

    run(main())


def test_another_engine_removes_segments_when_the_one_that_did_ends(
    data: DataDir, feed: Feed
) -> None:
    async def main() -> None:
        chosen = config(one={}, two={})
        first = engine_of(data, chosen, {"one": FakeSender()})
        second = engine_of(data, chosen, {"two": FakeSender()})
        async with AsyncExitStack() as ends:
            async with running(first):
                await until(lambda: is_locked(data))
                await ends.enter_async_context(running(second))
                write(feed, 100)
                await until(lambda: len(data.segments(0)) == 1)
                await until(lambda: first.reclaimer.removed_segments > 0)
            assert 0 == second.reclaimer.removed_segments
            await until(lambda: is_locked(data))
            await ends.enter_async_context(running(engine_of(data, chosen, {"one": FakeSender()})))
            write(feed, 100)
            await until(lambda: len(data.segments(0)) == 1)
            await until(lambda: second.reclaimer.removed_segments > 0)

    run(main())


def test_a_segment_is_removed_soon_after_another_engine_has_delivered_it(
    data: DataDir, feed: Feed
) -> None:
    """The engine that removes segments does not wait for its next regular round."""
    long_intervals = dataclasses.replace(QUICK, retention_s=600.0, drained_s=0.005)

    async def main() -> None:
        chosen = config(fast={}, slow={})
        fast, slow = FakeSender(), FakeSender(list(DOWN))
        async with running(engine_of(data, chosen, {"fast": fast}, long_intervals)):
            await until(lambda: is_locked(data))
            async with running(engine_of(data, chosen, {"slow": slow}, long_intervals)):
                write(feed, 200)
                await fast.has(200)
                slow.script.clear()
                await slow.has(200)
                await until(lambda: len(data.segments(0)) == 1)

    run(main())


@pytest.mark.parametrize(
    ("spool", "options"),
    [
        (Spool(max_bytes=10 * SEGMENT_BYTES, min_free=0), {"required": False}),
        (Spool(max_bytes=10 * SEGMENT_BYTES, min_free=0, on_full="drop_oldest"), {}),
        (Spool(min_free=0), {"max_lag_bytes": 8 * SEGMENT_BYTES}),
    ],
)
@pytest.mark.parametrize("owner", [0, 1])
def test_events_expire_in_the_engine_of_their_destination(
    data: DataDir, feed: Feed, spool: Spool, options: dict[str, object], owner: int
) -> None:
    """They expire whether or not this engine removes segments."""

    async def main() -> None:
        senders = {"good": FakeSender(), "down": FakeSender(list(DOWN))}
        chosen = config(spool, good={}, down=options)
        good = engine_of(data, chosen, {"good": senders["good"]})
        down = engine_of(data, chosen, {"down": senders["down"]})
        engines = [good, down] if owner == 0 else [down, good]
        async with running(engines[0]):
            await reclaimed(engines[0])
            async with running(engines[1]):
                for first in range(0, 300, 20):  # the good one never has the oldest events
                    write(feed, first + 20, first)
                    await senders["good"].has(first + 20)
                await until(lambda: len(data.segments(0)) <= 10)
                await reclaimed(down)
                assert len(data.segments(0)) >= 7, "no more than is needed"
                expired = figures(down, "down")["expired"]
                assert expired > 0
                senders["down"].script.clear()
                await until(lambda: figures(down, "down")["pending"] == 0)
                assert 300 == figures(down, "down")["expired"] + len(senders["down"].numbers)
                assert (0, 0) == (
                    figures(down, "down")["missing"],
                    figures(good, "good")["expired"],
                )
                for engine, name in ((good, "good"), (down, "down")):
                    check_sum(figures(engine, name))
                await until(lambda: engines[0].reclaimer.removed_segments > 0)
                assert 0 == engines[1].reclaimer.removed_segments
        assert list(range(300)) == senders["good"].numbers

    run(main())


def test_an_engine_that_had_to_expire_events_continues_without_waiting_for_a_round(
    data: DataDir, feed: Feed
) -> None:
    """Pixels are rejected until it has expired enough."""
    long_intervals = dataclasses.replace(QUICK, retention_s=600.0, drained_s=0.005, pressed_s=600.0)

    async def main() -> None:
        good, down = FakeSender(), FakeSender(list(DOWN))
        chosen = config(
            Spool(max_bytes=10 * SEGMENT_BYTES, min_free=0), good={}, down={"required": False}
        )
        async with running(engine_of(data, chosen, {"good": good}, long_intervals)):
            await until(lambda: is_locked(data))
            other = engine_of(data, chosen, {"down": down}, long_intervals)
            async with running(other):
                write(feed, 300)
                await good.has(300)
                while len(data.segments(0)) > 10:
                    await other.reclaimer.keep()  # a regular round
                write(feed, 600, 300)
                await good.has(600)
                await until(lambda: len(data.segments(0)) <= 10)

    run(main())


def test_a_destination_whose_process_has_not_started_keeps_its_events(
    data: DataDir, feed: Feed
) -> None:
    """Otherwise its events would be missing instead of expired."""

    async def main() -> None:
        good, late = FakeSender(), FakeSender()
        spool = Spool(max_bytes=10 * SEGMENT_BYTES, min_free=0)
        chosen = config(spool, good={}, late={"required": False})
        engine = engine_of(data, chosen, {"good": good})
        register_destinations(chosen, data)
        async with running(engine):
            write(feed, 300)
            await good.has(300)
            await reclaimed(engine)
            assert 1 == data.segments(0)[0]
            other = engine_of(data, chosen, {"late": late})
            async with running(other):
                await until(lambda: figures(other, "late").get("pending") == 0)
                check_sum(figures(other, "late"))
                assert 300 == figures(other, "late")["expired"] + len(late.numbers)
                assert 0 == figures(other, "late")["missing"]

    run(main())


@pytest.mark.parametrize("state", ["unusable", "failing"])
def test_a_failed_destination_of_another_engine_does_not_fill_the_spool(
    data: DataDir, feed: Feed, state: str
) -> None:
    async def main() -> None:
        spool = Spool(max_bytes=10 * SEGMENT_BYTES, min_free=0)
        chosen = config(spool, good={}, bad={"required": False})
        good, bad = FakeSender(), FakeSender()
        bad.open_errors = [PermissionError("its folder is not ours")] * 10**4

        def make(*_: object) -> Sender:
            if state == "unusable":
                raise ValueError("no such certificate")
            return bad

        engine = engine_of(data, chosen, {"good": good})
        other = Engine(chosen, data, names=["bad"], timings=QUICK, make_sender=make)
        async with running(engine):
            await reclaimed(engine)
            async with running(other):
                await until(lambda: figures(other, "bad")["state"] == state)
                write(feed, 300)
                await good.has(300)
                await until(lambda: len(data.segments(0)) <= 10)
                await reclaimed(engine)
                assert len(data.segments(0)) >= 8, "no more than is needed"
                assert engine.reclaimer.removed_segments > 0
        recovered = engine_of(data, chosen, {"bad": FakeSender()})
        async with running(engine_of(data, chosen, {"good": good})), running(recovered):
            await until(lambda: figures(recovered, "bad").get("pending") == 0)
            check_sum(figures(recovered, "bad"))
            assert not (data.destination_dir("bad") / "failing").exists()

    run(main())


def test_a_destination_with_an_unreadable_state_keeps_all_segments(
    data: DataDir, feed: Feed
) -> None:
    async def main() -> None:
        chosen = config(good={}, bad={"required": False})
        good = FakeSender()
        register_destinations(chosen, data)
        path = data.destination_dir("bad") / "state.db"
        whole = path.read_bytes()
        path.write_bytes(b"damaged" * 1000)
        engine = engine_of(data, chosen, {"good": good})
        async with running(engine):
            write(feed, 100)
            await good.has(100)
            await reclaimed(engine)
            assert 1 == data.segments(0)[0]
            path.write_bytes(whole)
            async with running(engine_of(data, chosen, {"bad": FakeSender()})):
                await until(lambda: len(data.segments(0)) == 1)

    run(main())


def test_a_reload_moves_a_destination_to_another_engine(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        chosen = config(stays={}, moves={})
        senders = {"stays": FakeSender(), "moves": FakeSender()}
        one, two = engine_of(data, chosen, senders), engine_of(data, chosen, senders)
        async with running(one), running(two):
            await two.reload(chosen, [])
            for n in range(60):
                feed.write(event(n, padding=400))
                if n % 20 == 0:
                    await one.reload(chosen, ["stays"] if n % 40 == 0 else ["stays", "moves"])
                    await two.reload(chosen, ["moves"] if n % 40 == 0 else [])
            await senders["stays"].has(60)
            await senders["moves"].has(60)
            await until(lambda: len(data.segments(0)) == 1)
        for name, sender in senders.items():
            assert list(range(60)) == sender.numbers
            assert 60 == counters_on_disk(data, name)["delivered"]
            assert feed.position == cursors_on_disk(data, name)[0]

    run(main())
