"""Segments are removed only when all destinations have certainly delivered them."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from pixelfast.deliver import reclaimer as reclaimer_module
from pixelfast.deliver.engine import Engine
from pixelfast.deliver.outcomes import Retry
from pixelfast.deliver.store import Changes, Store
from pixelfast.spool import DataDir, Position, remove_read_segments
from tests.deliver.runners import FakeSender, cursors_on_disk, make_engine, running, source
from tests.deliver.running import run
from tests.deliver.spools import event
from tests.spools import Feed
from tests.waiting import until


@pytest.fixture
def segment_bytes() -> int:
    return 512


async def looked_at_again(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for two more rounds of removing segments."""
    looks = 0
    keep = engine.reclaimer.keep

    async def counting() -> None:
        nonlocal looks
        await keep()
        looks += 1

    with monkeypatch.context() as patch:
        patch.setattr(engine.reclaimer, "keep", counting)
        await until(lambda: looks >= 2)


def test_segments_are_removed_when_all_destinations_have_passed_them(
    data: DataDir, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        fast, slow = FakeSender(), FakeSender([Retry("down")] * 10**6)
        engine = make_engine(data, {"fast": fast, "slow": slow})
        async with running(engine):
            for n in range(60):
                feed.write(event(n))
            await fast.has(60)
            await looked_at_again(engine, monkeypatch)
            written = data.segments(0)
            assert len(written) > 5
            assert list(range(1, written[-1] + 1)) == written, "the slow one has read none of them"
            slow.script.clear()
            await slow.has(60)
            await until(lambda: engine.reclaimer.removed_segments == len(written) - 1)
        assert written[-1:] == data.segments(0)
        assert list(range(60)) == slow.numbers

    run(main())


def test_no_segment_is_removed_before_every_stored_cursor_has_passed_it(
    data: DataDir, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a crash, no cursor may point to a removed segment."""
    mistakes: list[object] = []

    def checked(folder: DataDir, slot: int, cursors: Iterable[int], **options: int) -> int:
        before = data.segments(slot)
        removed = remove_read_segments(folder, slot, cursors, **options)
        gone = set(before) - set(data.segments(slot))
        for name in ("one", "two"):
            earliest = cursors_on_disk(data, name).get(slot, Position()).segment
            mistakes.extend((name, earliest, number) for number in gone if number >= earliest)
        return removed

    monkeypatch.setattr(reclaimer_module, "remove_read_segments", checked)

    async def main() -> None:
        one, two = FakeSender(), FakeSender([Retry("no"), ZeroDivisionError()] * 3)
        engine = make_engine(data, {"one": one, "two": two})
        async with running(engine):
            for n in range(200):
                feed.write(event(n))
                if n % 40 == 0:
                    await one.has(n)
            await two.has(200)
            await until(lambda: len(data.segments(0)) == 1)

    run(main())
    assert [] == mistakes


def test_no_segment_is_removed_while_a_destination_has_not_begun(data: DataDir, feed: Feed) -> None:
    """Another process that is ending holds its lock, so its cursors are not known."""

    async def main() -> None:
        holder = make_engine(data, {"late": FakeSender([Retry("down")] * 10**6)})
        early, late = FakeSender(), FakeSender()
        engine = make_engine(data, {"early": early, "late": late})
        async with running(holder):
            await until(lambda: holder.stats()["is_ready"])
            async with running(engine):
                for n in range(60):
                    feed.write(event(n))
                await early.has(60)
                await until(lambda: engine.runners[0].cursors == {0: feed.position})
                written = data.segments(0)
                assert 1 == written[0]
        engine = make_engine(data, {"early": early, "late": late})
        async with running(engine):
            await late.has(60)
            await until(lambda: data.segments(0) == written[-1:])
        assert list(range(60)) == late.numbers

    run(main())


def test_a_destination_without_sources_does_not_keep_segments(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        senders = {"one": FakeSender(), "none": FakeSender()}
        engine = make_engine(data, senders, (source("web", "one"),))
        async with running(engine):
            for n in range(60):
                feed.write(event(n))
            await until(lambda: data.segments(0) == [feed.position.segment])
        assert [] == senders["none"].sent

    run(main())


def test_a_failure_to_remove_a_segment_is_retried(
    data: DataDir, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The spool must not fill up until the next start because of one error of the disk."""
    errors = [OSError(5, "Input/output error")]

    def failing(folder: DataDir, slot: int, cursors: Iterable[int], **options: int) -> int:
        if errors:
            raise errors.pop()
        return remove_read_segments(folder, slot, cursors, **options)

    monkeypatch.setattr(reclaimer_module, "remove_read_segments", failing)

    async def main() -> None:
        sender = FakeSender()
        async with running(make_engine(data, {"hook": sender})):
            for n in range(60):
                feed.write(event(n))
            await sender.has(60)
            await until(lambda: data.segments(0) == [feed.position.segment], bound_s=2.0)

    run(main())


def test_a_cursor_beyond_the_data_removes_no_unread_segment(
    data: DataDir, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator deleted the slot, so its numbers restarted below the cursor."""
    store = Store(data.destination_dir("hook") / "state.db")
    store.commit(Changes(after={0: Position(1000, 64)}))
    store.close()

    async def main() -> None:
        sender = FakeSender([Retry("down")] * 10**6)
        for n in range(60):
            feed.write(event(n))
        written = data.segments(0)
        engine = make_engine(data, {"hook": sender})
        async with running(engine):
            await until(lambda: engine.stats()["is_ready"])
            await looked_at_again(engine, monkeypatch)
        assert written == data.segments(0)

    run(main())


def test_segments_that_were_removed_while_being_read_are_passed(data: DataDir, feed: Feed) -> None:
    """If the segment of a cursor is missing, reading continues in the next one."""

    async def main() -> None:
        for n in range(60):
            feed.write(event(n))
        first = data.segments(0)[0]
        (data.slot_dir(0) / f"{first:016x}.seg").unlink()
        store = Store(data.destination_dir("hook") / "state.db")
        store.commit(Changes(after={0: Position(first, 128)}))
        store.close()
        sender = FakeSender()
        engine = make_engine(data, {"hook": sender})
        async with running(engine):
            await until(lambda: engine.runners[0].cursors == {0: feed.position})
        assert 59 == sender.numbers[-1]
        assert list(range(sender.numbers[0], 60)) == sender.numbers

    run(main())
