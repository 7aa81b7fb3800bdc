"""The pace of reading: turns are short, batches are cut in time, and memory is limited."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from pixelfast.config import (
    ClickhouseDestination,
    Destination,
    ElasticsearchDestination,
    FileDestination,
    HttpDestination,
    PosthogDestination,
    RudderstackDestination,
    SegmentDestination,
)
from pixelfast.deliver.batches import BatchLimits, Cut
from pixelfast.deliver.cutter import Cutter
from pixelfast.deliver.destinations import make_sender
from pixelfast.deliver.event_log import SpoolLog
from pixelfast.deliver.intake import Intake
from pixelfast.deliver.memory import MemoryShare, share_of
from pixelfast.deliver.outcomes import Retry
from pixelfast.deliver.probe import MAX_PROBED
from pixelfast.deliver.selection import Selection
from pixelfast.spool import DataDir
from tests.deliver.clocks import HandClock
from tests.deliver.runners import FakeSender, check_sum, make_runner, running
from tests.deliver.running import run
from tests.deliver.spools import NO_LIMITS, event, lines_of
from tests.spools import Feed
from tests.waiting import until

URL = "http://127.0.0.1:1"
EVERY_TYPE: tuple[Destination, ...] = (
    FileDestination(name="file"),
    HttpDestination(name="http", url=URL),
    HttpDestination(name="single", url=URL, format="single"),
    RudderstackDestination(name="rudderstack", url=URL, write_key="k"),
    SegmentDestination(name="segment", url=URL, write_key="k"),
    PosthogDestination(name="posthog", url=URL, api_key="k"),
    ClickhouseDestination(name="clickhouse", url=URL, table="events"),
    ElasticsearchDestination(name="elasticsearch", url=URL, index="events"),
)
LONGEST_TURN_S = 0.010


@contextmanager
def intake(
    data: DataDir, limits: BatchLimits, clock: HandClock, selection: Selection | None = None
) -> Iterator[Intake]:
    chosen = selection or Selection()
    with closing(Cutter(SpoolLog(data), {}, limits, chosen, clock=clock.clock)) as cutter:
        yield Intake(cutter, clock=clock.clock)


def look(tail: Intake, *, is_stopping: bool = False) -> list[int]:
    """Run a turn; return the number of events of each batch that was cut."""
    cuts: list[Cut] = []
    tail.cut(cuts.append, lambda: True, is_stopping=is_stopping)
    return [cut.events for cut in cuts]


def ms(clock: HandClock) -> int:
    return int(clock.now_s * 1000)


# --- turns -----------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", EVERY_TYPE, ids=lambda each: each.name)
def test_a_turn_ends_even_if_the_log_grows_as_fast_as_it_is_read(
    settings: Destination, data: DataDir
) -> None:
    limits = make_sender(settings, data).limits
    clock = HandClock(a_look_s=0.0001)
    with Feed(data, 0) as first, Feed(data, 1) as second, intake(data, limits, clock) as tail:

        def grow() -> None:
            first.write(event(0))
            second.write(event(0))

        grow()
        clock.on_look = grow
        turns_s: list[float] = []
        left = 0
        while clock.now_s < 1_000_000.0 + 3 * limits.max_age_s:
            before_s = clock.now_s
            left += sum(look(tail))
            turns_s.append(clock.now_s - before_s)
            clock.now_s = max(clock.now_s, tail.next_look_s)
    assert max(turns_s) <= LONGEST_TURN_S
    assert left > 0


def test_a_turn_reads_stored_events_and_does_not_wait_for_more(data: DataDir) -> None:
    clock = HandClock()
    with Feed(data) as feed, intake(data, NO_LIMITS, clock) as tail:
        feed.write(event(0))
        new = iter(range(1, 100))
        clock.on_look = lambda: feed.write(*(event(n) for n in [next(new, None)] if n))
        tail.cut(lambda _: None, lambda: True, is_stopping=False)
        assert tail.cutter.open_events + next(new) < 20


@pytest.mark.parametrize("settings", EVERY_TYPE, ids=lambda each: each.name)
def test_turns_over_a_backlog_are_short_and_deliver_all_of_it(
    settings: Destination, data: DataDir
) -> None:
    limits = make_sender(settings, data).limits
    clock = HandClock(a_look_s=0.0005)
    with Feed(data, segment_bytes=2**17) as feed, intake(data, limits, clock) as tail:
        for n in range(1500):
            feed.write(event(n, padding=100))
        turns_s: list[float] = []
        left = 0
        while tail.cutter.has_more or not turns_s:
            before_s = clock.now_s
            left += sum(look(tail))
            turns_s.append(clock.now_s - before_s)
        left += sum(look(tail, is_stopping=True))
    assert max(turns_s) <= LONGEST_TURN_S
    assert 1500 == left
    assert len(turns_s) > 2


def test_a_turn_over_a_backlog_that_is_filtered_out_is_short(data: DataDir) -> None:
    clock = HandClock(a_look_s=0.0005)
    selection = Selection(events=("Order *",))
    with Feed(data) as feed, intake(data, NO_LIMITS, clock, selection) as tail:
        feed.write(*(b'{"type":"track","event":"Seen"}' for _ in range(1000)))
        feed.write(b'{"type":"track","event":"Order Paid"}')
        turns_s: list[float] = []
        left = 0
        while tail.cutter.has_more or not turns_s:
            before_s = clock.now_s
            left += sum(look(tail))
            turns_s.append(clock.now_s - before_s)
    assert max(turns_s) <= LONGEST_TURN_S
    assert 1 == left
    assert len(turns_s) > 1


def test_a_slot_with_a_filtered_backlog_does_not_delay_the_others(data: DataDir) -> None:
    clock = HandClock(a_look_s=0.001)
    with (
        Feed(data, 0) as busy,
        Feed(data, 1) as calm,
        intake(data, NO_LIMITS, clock, Selection(excluded=("mail",))) as tail,
    ):
        for n in range(200):
            busy.write(event(n), source="mail")
        calm.write(event(1000))
        assert 1 == sum(events for _ in range(3) for events in look(tail))
        assert tail.cutter.has_more


# --- the age of a batch ----------------------------------------------------------------------


def test_a_batch_is_cut_when_it_is_full_or_old_enough(data: DataDir) -> None:
    clock = HandClock()
    limits = BatchLimits(max_events=5, max_bytes=10**6, max_age_s=10.0)
    with Feed(data) as feed, intake(data, limits, clock) as tail:
        feed.write(event(0), received_ms=ms(clock))
        assert [] == look(tail)
        clock.now_s += 9.0
        feed.write(event(1), received_ms=ms(clock))
        assert [] == look(tail), "neither full nor old enough"
        clock.now_s += 1.0
        assert [2] == look(tail)
        feed.write(event(2), event(3), received_ms=ms(clock))
        assert [] == look(tail), "the age of a batch begins with its first event"
        feed.write(*map(event, range(4, 9)), received_ms=ms(clock))
        assert [5] == look(tail)
        clock.now_s += 10.0
        assert [2] == look(tail)


def test_the_age_of_a_batch_begins_when_its_first_event_was_received(data: DataDir) -> None:
    clock = HandClock()
    limits = BatchLimits(max_events=500, max_bytes=10**6, max_age_s=1.0)
    with Feed(data) as feed, intake(data, limits, clock) as tail:
        look(tail)
        clock.now_s += 0.1
        feed.write(event(0), received_ms=ms(clock))
        clock.now_s = tail.next_look_s
        assert [] == look(tail)
        due_s = 1_000_000.1 + 1.0
        while clock.now_s < due_s - 0.001:
            assert [] == look(tail)
            assert clock.now_s < tail.next_look_s <= due_s + 0.001
            clock.now_s = tail.next_look_s
        clock.now_s += 0.001  # received_ms is in whole milliseconds
        assert [1] == look(tail)


@pytest.mark.parametrize("received_s", [-5 * 86_400.0, 5 * 86_400.0], ids=["past", "future"])
def test_a_clock_jump_neither_delays_a_batch_nor_dates_it_before_the_last_read(
    data: DataDir, received_s: float
) -> None:
    clock = HandClock()
    limits = BatchLimits(max_events=500, max_bytes=10**6, max_age_s=1.0)
    with Feed(data) as feed, intake(data, limits, clock) as tail:
        look(tail)
        clock.now_s += 0.2
        feed.write(event(0), received_ms=ms(clock) + int(received_s * 1000))
        assert [] == look(tail)
        clock.now_s += 1.0
        assert [1] == look(tail)


def pause_s(tail: Intake, clock: HandClock) -> float:
    """Run a turn, and return the pause before the next one."""
    look(tail)
    return round(tail.next_look_s - clock.now_s, 6)


def test_the_pause_is_the_age_of_a_batch_within_limits(data: DataDir) -> None:
    clock = HandClock()
    pauses = {}
    for max_age_s in (0.0, 0.02, 0.2, 1.0, 60.0):
        with intake(data, BatchLimits(3, 10**6, max_age_s), clock) as tail:
            pauses[max_age_s] = pause_s(tail, clock)
    assert {0.0: 0.01, 0.02: 0.02, 0.2: 0.2, 1.0: 0.25, 60.0: 0.25} == pauses


def test_the_pause_ends_when_the_open_batch_is_due_and_is_long_without_events(
    data: DataDir,
) -> None:
    clock = HandClock()
    with Feed(data) as feed, intake(data, BatchLimits(3, 10**6, 0.1), clock) as tail:
        assert 0.1 == pause_s(tail, clock)
        clock.now_s += 0.1
        feed.write(*map(event, range(4)), received_ms=ms(clock) - 40)
        assert 0.06 == pause_s(tail, clock), "the fourth event is 40 ms old"
        clock.now_s += 0.07
        assert 0.1 == pause_s(tail, clock)
        clock.now_s += 3.0
        assert 0.25 == pause_s(tail, clock)
        feed.write(event(4), received_ms=ms(clock))
        assert 0.1 == pause_s(tail, clock)


def test_no_event_of_a_steady_flow_waits_longer_than_the_age_of_a_batch(data: DataDir) -> None:
    clock = HandClock()
    waits_s: list[float] = []
    arrived_s: list[float] = []

    def cut(batch: Cut) -> None:
        waits_s.extend(clock.now_s - arrived_s.pop(0) for _ in range(batch.events))

    with Feed(data) as feed, intake(data, BatchLimits(10**6, 10**6, 0.2), clock) as tail:
        for _ in range(1000):
            clock.now_s += 0.007
            feed.write(event(0), received_ms=ms(clock))
            arrived_s.append(clock.now_s)
            if clock.now_s >= tail.next_look_s:
                tail.cut(cut, lambda: True, is_stopping=False)
    assert len(waits_s) > 900
    assert max(waits_s) <= 0.2 + 0.007, "the clock of this test moves by 7 ms"


# --- memory ----------------------------------------------------------------------------------


@contextmanager
def traced() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def test_a_batch_that_grows_slowly_keeps_only_its_events(data: DataDir) -> None:
    clock = HandClock()
    limits = BatchLimits(max_events=10**6, max_bytes=2**30, max_age_s=3600.0)
    with Feed(data, segment_bytes=8 * 2**20) as feed, intake(data, limits, clock) as tail, traced():
        before, _ = tracemalloc.get_traced_memory()
        for n in range(500):
            feed.write(event(n, padding=500))
            look(tail)
        after, _ = tracemalloc.get_traced_memory()
        assert [500] == look(tail, is_stopping=True)
    assert after - before < 500 * 1000


def test_events_that_a_filter_accepts_do_not_keep_the_others_in_memory(data: DataDir) -> None:
    clock = HandClock()
    selection = Selection(events=("Order *",))
    with Feed(data, segment_bytes=2**23) as feed:
        for _ in range(20):
            others = (b'{"type":"track","event":"Seen","p":"' + b"x" * 500 + b'"}',) * 500
            feed.write(*others, b'{"type":"track","event":"Order Paid"}')
        limits = BatchLimits(max_events=10**6, max_bytes=2**30, max_age_s=3600.0)
        with intake(data, limits, clock, selection) as tail, traced():
            before, _ = tracemalloc.get_traced_memory()
            look(tail)
            while tail.cutter.has_more:
                look(tail)
            after, _ = tracemalloc.get_traced_memory()
            assert [20] == look(tail, is_stopping=True)
    assert after - before < 2**17


def test_frames_that_were_read_too_early_are_released_and_read_again(data: DataDir) -> None:
    with (
        Feed(data) as feed,
        closing(Cutter(SpoolLog(data), {}, BatchLimits(3, 10**6, 0.0))) as cutter,
    ):
        for n in range(10):
            feed.write(event(n))
        found = []
        while cutter.cut() or cutter.has_moved():
            found += lines_of([cutter.close_batch()])
            cutter.release()
            assert 0 == cutter.buffered_bytes
        assert [event(n) for n in range(10)] == found


def read_bytes() -> int:
    """Return the traced memory that the reader of the spool has allocated."""
    snapshot = tracemalloc.take_snapshot()
    ours = snapshot.filter_traces([tracemalloc.Filter(True, "*/pixelfast/spool/reader.py")])
    return sum(each.size for each in ours.traces)


def test_events_that_were_read_are_released_while_the_destination_is_down(data: DataDir) -> None:
    size_bytes = 2**20

    async def main() -> None:
        sender = FakeSender(limits=BatchLimits(10, 2**20, 0.0))
        sender.gate.clear()
        runner = make_runner(data, sender, share_bytes=2**26)
        with Feed(data, segment_bytes=2**22) as feed, traced():
            feed.write(*(event(n, padding=size_bytes // 1000) for n in range(1000)))
            async with running(runner):
                await until(lambda: sender.under_way and read_bytes() > size_bytes)
                sender.script = [Retry("down")] * 10**6
                sender.gate.set()
                await until(lambda: read_bytes() < size_bytes // 4)
                assert not runner.health.breaker.is_healthy
                sender.script.clear()
                await sender.has(1000)

    run(main())


@pytest.mark.parametrize("script", ["hangs", "fails"])
def test_a_destination_that_accepts_nothing_keeps_within_its_share_of_memory(
    script: str, data: DataDir
) -> None:
    share_bytes = 2**20

    async def main() -> None:
        sender = FakeSender(
            [Retry("down")] * 10**6 if script == "fails" else [],
            limits=BatchLimits(500, 2**20, 0.05),
            on_send=lambda _: sender.sent.clear(),  # its copies would count
            concurrency=64,
        )
        if script == "hangs":
            sender.gate.clear()
        runner = make_runner(data, sender, share_bytes=share_bytes)
        with Feed(data, segment_bytes=2**22) as feed:
            for n in range(200):
                feed.write(*(event(n, padding=1000) for _ in range(100)))
            with traced():
                async with running(runner):
                    await until(lambda: runner.stats({0: 20_000}).get("pending") == 20_000)
                    await until(lambda: len(sender.ids) >= (1 if script == "hangs" else 500))
                    _, max_bytes = tracemalloc.get_traced_memory()
                    check_sum(runner.stats({0: 20_000}))
                    # A share, a batch that is read, its copies for a probe and by this sender.
                    assert max_bytes < 4 * share_bytes
                    sender.script.clear()
                    sender.gate.set()
                    await sender.has(20_000)
        ahead = len(sender.accepted) - 20_000
        assert 0 <= ahead <= MAX_PROBED, "copies that were sent ahead as a probe"

    run(main(), bound_s=60.0)


def test_batches_of_the_last_run_are_sent_as_far_as_memory_allows(data: DataDir) -> None:
    limits = BatchLimits(200, 2**20, 0.05)

    async def main() -> None:
        hung = FakeSender(limits=limits, concurrency=16)
        hung.gate.clear()
        with Feed(data, segment_bytes=2**22) as feed:
            for n in range(10):
                feed.write(*(event(n, padding=1000) for _ in range(200)))
        killed = asyncio.ensure_future(make_runner(data, hung).run())
        await until(lambda: hung.under_way == 4)
        killed.cancel()
        await asyncio.wait({killed})
        sender = FakeSender(limits=limits, concurrency=16)
        sender.gate.clear()
        runner = make_runner(data, sender, share_bytes=2**20)
        async with running(runner):
            await until(lambda: runner.stats({})["under_way"])
            assert 1 == runner.stats({})["under_way"]
            sender.gate.set()
            await sender.has(2000)

    run(main())


def test_shares_add_up_to_the_memory_of_the_process() -> None:
    for destinations in (1, 2, 27, 100):
        total = destinations * share_of(256 * 2**20, destinations) + 64 * 2**20
        assert total <= 256 * 2**20
    share = MemoryShare(8 * 2**20)
    assert BatchLimits(10, 2 * 2**20, 1.0) == share.fit(BatchLimits(10, 2**30, 1.0))
    assert BatchLimits(10, 2**20, 1.0) == share.fit(BatchLimits(10, 2**20, 1.0))
    assert [True, False] == [share.allows_reading(each) for each in (2**20, 4 * 2**20)]
    assert share.allows_sending()
    share.sending_bytes = 2**20
    assert share.allows_sending(), "the next batch has at most 1 MiB"
    share.sending_bytes = 2 * 2**20
    assert not share.allows_sending()
    share.sending_bytes = 0
    assert share.allows_sending(), "one batch is always allowed"
