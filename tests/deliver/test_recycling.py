"""Delivery recycles segments that every destination has read, and repeats no event of them."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest

from pixelfast.config import Spool
from pixelfast.deliver import reclaimer as reclaimer_module
from pixelfast.deliver.engine import Engine
from pixelfast.deliver.outcomes import Retry
from pixelfast.spool import DataDir, remove_read_segments
from tests.deliver.runners import (
    QUICK,
    FakeSender,
    check_sum,
    config,
    make_engine,
    reclaimed,
    running,
)
from tests.deliver.running import run
from tests.deliver.spools import event
from tests.deliver.test_expiry import figures
from tests.spools import Feed
from tests.waiting import until

SEGMENT_BYTES = 2**17
SEGMENT_EVENTS = 32  # about
DOWN = [Retry("down")] * 10**6
SPOOL = Spool(max_bytes=8 * SEGMENT_BYTES, segment_bytes=SEGMENT_BYTES, min_free=0)


@pytest.fixture
def segment_bytes() -> int:
    return SEGMENT_BYTES


def write(feed: Feed, start: int, stop: int) -> set[int]:
    """Write events; return the inodes of their segments."""
    inodes = set()
    for n in range(start, stop):
        feed.write(event(n, padding=4000))
        inodes.add(os.fstat(feed.segment.fd).st_ino)
    return inodes


@pytest.mark.parametrize("recycles", [True, False])
def test_segments_are_recycled_unless_the_settings_say_otherwise(
    data: DataDir, feed: Feed, recycles: bool
) -> None:
    async def main() -> None:
        sender = FakeSender()
        chosen = config(replace_spool(recycle=recycles), hook={})
        inodes: set[int] = set()
        async with running(make_engine(data, {"hook": sender}, config=chosen)):
            for start in range(0, 10 * SEGMENT_EVENTS, SEGMENT_EVENTS):
                inodes |= write(feed, start, start + SEGMENT_EVENTS)
                await sender.has(start + SEGMENT_EVENTS)
                await until(lambda: data.segments(0) == [feed.position.segment])
        assert list(range(10 * SEGMENT_EVENTS)) == sender.numbers
        assert feed.position.segment >= 10
        assert bool(data.spares(0)) is recycles
        assert len(inodes) <= 4 if recycles else data.spares(0) == []

    run(main())


def replace_spool(**options: Any) -> Spool:
    given = {name: getattr(SPOOL, name) for name in SPOOL.__struct_fields__}
    return Spool(**{**given, **options})


def test_expired_segments_are_recycled_although_a_destination_has_not_read_them(
    data: DataDir, feed: Feed
) -> None:
    async def main() -> None:
        sender = FakeSender(list(DOWN))
        chosen = config(
            replace_spool(max_bytes=64 * SEGMENT_BYTES),
            hook={"max_lag_bytes": 3 * SEGMENT_BYTES, "required": False},
        )
        inodes: set[int] = set()
        engine = make_engine(data, {"hook": sender}, config=chosen)
        async with running(engine):
            for start in range(0, 12 * SEGMENT_EVENTS, SEGMENT_EVENTS):
                inodes |= write(feed, start, start + SEGMENT_EVENTS)
                await reclaimed(engine, 2)
            assert figures(engine, "hook")["expired"] > 0
            assert len(inodes) < feed.position.segment, "some were recycled"
            sender.script.clear()
            await until(lambda: figures(engine, "hook")["pending"] == 0)
            check_sum(figures(engine, "hook"))
        newest = [n for n in sender.numbers if n >= 9 * SEGMENT_EVENTS]
        assert list(range(12 * SEGMENT_EVENTS))[-len(newest) :] == newest
        assert len(newest) > SEGMENT_EVENTS
        assert not list(data.quarantine_dir.iterdir())

    run(main())


def test_segments_are_removed_instead_of_recycled_while_space_is_short(
    data: DataDir, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, int]] = []

    def noting(folder: DataDir, slot: int, cursors: Any, *, recycled_bytes: int) -> int:
        calls.append((len(folder.segments(slot)), recycled_bytes))
        return remove_read_segments(folder, slot, cursors, recycled_bytes=recycled_bytes)

    monkeypatch.setattr(reclaimer_module, "remove_read_segments", noting)

    async def main() -> None:
        sender = FakeSender(list(DOWN))
        engine = make_engine(data, {"hook": sender}, config=config(SPOOL, hook={}))
        async with running(engine):
            write(feed, 0, 3 * SEGMENT_EVENTS)
            await reclaimed(engine, 2)
            write(feed, 3 * SEGMENT_EVENTS, 9 * SEGMENT_EVENTS)
            await reclaimed(engine, 2)
            sender.script.clear()
            await until(lambda: len(data.segments(0)) == 1)
            await reclaimed(engine, 2)

    run(main())
    wanted = {segments: recycled for segments, recycled in calls if segments in (3, 9, 1)}
    assert {3: SEGMENT_BYTES, 9: 0, 1: SEGMENT_BYTES} == wanted


def test_spares_count_before_the_oldest_events_expire(data: DataDir, feed: Feed) -> None:
    """7 segments of 128 KiB are under 90 % of 1 MiB, but not with two spares."""
    write(feed, 0, 6 * SEGMENT_EVENTS + 6)
    for number in (0x70, 0x71):
        path = data.slot_dir(0) / f"{number:016x}.spare"
        path.write_bytes(bytes(SEGMENT_BYTES))

    async def main() -> None:
        sender = FakeSender(list(DOWN))
        engine = make_engine(
            data, {"hook": sender}, config=config(replace_spool(on_full="drop_oldest"), hook={})
        )
        async with running(engine):
            await until(lambda: figures(engine, "hook").get("expired", 0) > 0)

    run(main())


def test_a_finished_segment_is_removed_without_waiting_for_the_next_round(
    data: DataDir, feed: Feed
) -> None:
    async def main() -> None:
        sender = FakeSender()
        timings = replace(QUICK, retention_s=3600.0, drained_s=0.005)
        engine = Engine(
            config(SPOOL, hook={}), data, timings=timings, make_sender=lambda *_: sender
        )
        async with running(engine):
            write(feed, 0, 3 * SEGMENT_EVENTS)
            await sender.has(3 * SEGMENT_EVENTS)
            await until(lambda: data.segments(0) == [feed.position.segment])

    run(main())
