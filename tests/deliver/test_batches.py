"""The batches that a cutter makes of frames: limits, order, sources, and cursors."""

from __future__ import annotations

import json
import shutil
from contextlib import closing

import pytest

from pixelfast.deliver.batches import BatchLimits, Cut
from pixelfast.deliver.cutter import Cutter
from pixelfast.deliver.event_log import SpoolLog
from pixelfast.deliver.selection import Selection
from pixelfast.deliver.timing import DeliveryClock
from pixelfast.spool import DataDir, Position
from tests.deliver.clocks import HandClock
from tests.deliver.spools import NO_LIMITS, as_json, batch_of, cut_all, event, lines_of
from tests.spools import Feed

STILL = DeliveryClock(monotonic_s=lambda: 0.0)  # a cut never ends early


def by_events(count: int) -> BatchLimits:
    return BatchLimits(max_events=count, max_bytes=10**9, max_age_s=0.0)


def by_bytes(count: int) -> BatchLimits:
    return BatchLimits(max_events=10**9, max_bytes=count, max_age_s=0.0)


def test_nothing_is_cut_from_an_empty_data_directory(data: DataDir) -> None:
    cutter = Cutter(SpoolLog(data), {}, NO_LIMITS, clock=STILL)
    assert (False, False, 0) == (cutter.cut(), cutter.has_moved(), cutter.oldest_ms)
    assert Cut() == cutter.close_batch()


def test_events_come_in_the_order_of_their_slot(data: DataDir) -> None:
    with Feed(data) as feed:
        feed.write(event(1), event(2))
        feed.write(event(3))
        assert [event(1), event(2), event(3)] == lines_of(cut_all(data, NO_LIMITS))


def test_gaps_in_the_numbers_are_counted_with_the_batch_that_passes_them(
    data: DataDir,
) -> None:
    with Feed(data) as feed:
        feed.write(event(0), event(1))
        feed.skip_numbers(5)
        feed.write(event(2), event(3))
        feed.skip_numbers(-2)
        feed.write(event(4))
    with closing(Cutter(SpoolLog(data), {}, by_events(1), clock=STILL)) as cutter:
        found = []
        while cutter.cut():
            unread = cutter.unread_events({0: 8})
            cut = cutter.close_batch()
            found.append((cut.numbers[0], cut.missing, cut.repeated, unread))
    assert [(1, 0, 0, 7), (2, 0, 0, 6), (8, 5, 0, 0), (9, 0, 0, 0), (8, 0, 2, 0)] == found


def test_events_of_a_slot_count_as_unread_once_the_slot_is_found(data: DataDir) -> None:
    ends = {0: 2, 1: 3}
    with Feed(data) as feed, closing(Cutter(SpoolLog(data), {}, NO_LIMITS, clock=STILL)) as cutter:
        feed.write(event(1), event(2))
        with Feed(data, slot=1) as other:
            other.write(*map(event, range(3)))
            assert ({0: 2}, 2) == (cutter.ends_from(ends), cutter.unread_events({0: 2}))
            cutter.find_slots()
            assert (ends, 5) == (cutter.ends_from(ends), cutter.unread_events(ends))
        cutter.cut()
        cutter.close_batch()
        assert (ends, 0) == (cutter.ends_from({0: 2}), cutter.unread_events(ends))
        shutil.rmtree(data.slot_dir(1))
        cutter.find_slots()
        ends = {0: 2, 1: 7}  # of a collector that has the slot again
        assert (ends, 4) == (cutter.ends_from(ends), cutter.unread_events(ends))


def test_missing_events_are_counted_from_the_number_that_the_last_run_reached(
    data: DataDir,
) -> None:
    with Feed(data) as feed:
        feed.write(*map(event, range(4)))
    for known, missing, repeated in ((4, 0, 3), (0, 1, 0), (1, 0, 0)):
        start = Position(1, 64, 1)
        with closing(
            Cutter(SpoolLog(data), {0: start}, NO_LIMITS, numbers={0: known}, clock=STILL)
        ) as cutter:
            cutter.cut()
            cut = cutter.close_batch()
        assert (3, missing, repeated) == (cut.events, cut.missing, cut.repeated)


def test_a_batch_is_cut_by_its_count_inside_frames_and_across_them(data: DataDir) -> None:
    with Feed(data) as feed:
        feed.write(*map(event, range(5)))
        feed.write(event(5))
        feed.write(event(6), event(7))
    batches = cut_all(data, by_events(3))
    assert [3, 3, 2] == [batch.events for batch in batches]
    assert [event(n) for n in range(8)] == lines_of(batches)


def test_a_batch_is_cut_before_the_event_that_would_make_it_too_large(data: DataDir) -> None:
    line = len(event(1)) + 1
    with Feed(data) as feed:
        feed.write(*map(event, range(5)))
    assert [2, 2, 1] == [batch.events for batch in cut_all(data, by_bytes(3 * line - 1))]
    assert [3, 2] == [batch.events for batch in cut_all(data, by_bytes(3 * line))]


def test_an_event_larger_than_a_batch_is_sent_alone(data: DataDir) -> None:
    large = event(2, padding=500)
    with Feed(data) as feed:
        feed.write(event(1), large, event(3))
        feed.write(event(4, padding=600))
        feed.write(event(5))
    batches = cut_all(data, by_bytes(100))
    found = [lines_of([batch]) for batch in batches]
    assert [[event(1)], [large], [event(3)], [event(4, 600)], [event(5)]] == found


def test_a_batch_continues_across_segments(data: DataDir) -> None:
    with Feed(data) as feed:
        for n in range(4):
            feed.write(event(n))
            feed.roll()
        assert [0, 1, 2, 3] == [each["n"] for each in as_json(cut_all(data, by_events(4))[0])]


def test_a_batch_takes_events_of_all_slots(data: DataDir) -> None:
    with Feed(data, 0) as first, Feed(data, 3) as second:
        first.write(event(1))
        second.write(event(2))
        batch = cut_all(data, NO_LIMITS)[0]
        assert {0: first.position, 3: second.position} == batch.after
        assert [event(1), event(2)] == lines_of([batch])


def test_a_slot_with_a_backlog_does_not_delay_the_others(data: DataDir) -> None:
    with Feed(data, 0) as busy, Feed(data, 1) as calm:
        for n in range(50):
            busy.write(event(n))
        calm.write(event(1000))
        assert event(1000) in lines_of(cut_all(data, by_events(10))[:2])


def test_a_full_batch_is_distinguished_from_one_that_may_grow(data: DataDir) -> None:
    with (
        Feed(data) as feed,
        closing(Cutter(SpoolLog(data), {}, by_events(2), clock=STILL)) as cutter,
    ):
        feed.write(event(1))
        assert (False, True) == (cutter.cut(), cutter.has_moved())
        feed.write(event(2))
        assert cutter.cut()
        feed.write(event(3))
        assert cutter.cut(), "a full batch takes no more"
        assert [event(1), event(2)] == lines_of([cutter.close_batch()])
        assert (False, [event(3)]) == (cutter.cut(), lines_of([cutter.close_batch()]))


def test_a_batch_that_the_next_event_does_not_fit_into_is_full(data: DataDir) -> None:
    with Feed(data) as feed:
        feed.write(event(1), event(2, padding=100))
        with closing(Cutter(SpoolLog(data), {}, by_bytes(50), clock=STILL)) as cutter:
            assert cutter.cut()
            assert [event(1)] == lines_of([cutter.close_batch()])


def test_an_exactly_full_batch_is_full_without_a_further_event(data: DataDir) -> None:
    with Feed(data) as feed:
        feed.write(event(1))
        with closing(
            Cutter(SpoolLog(data), {}, by_bytes(len(event(1)) + 1), clock=STILL)
        ) as cutter:
            assert cutter.cut()


def test_events_of_other_sources_are_filtered_and_counted(data: DataDir) -> None:
    with Feed(data) as feed:
        feed.commit([("web", event(1)), ("mail", event(2)), ("mail", event(3))])
        feed.write(event(4), source="web")
        (batch,) = cut_all(data, NO_LIMITS, sources=frozenset({"mail"}))
        assert [event(2), event(3)] == lines_of([batch])
        assert (2, 2, feed.position) == (batch.events, batch.filtered, batch.after[0])


def test_the_cursor_passes_events_of_other_sources_even_if_a_batch_has_none(data: DataDir) -> None:
    with Feed(data) as feed:
        feed.write(event(1), event(2))
        (batch,) = cut_all(data, NO_LIMITS, sources=frozenset())
        assert (0, 2, {0: feed.position}) == (batch.events, batch.filtered, batch.after)


def test_the_rest_of_a_frame_is_filtered_when_its_source_is_excluded(data: DataDir) -> None:
    """The settings changed between two starts, with the cursor inside a frame."""
    with Feed(data) as feed:
        feed.write(*map(event, range(5)))
        (batch,) = cut_all(data, NO_LIMITS, {0: Position(1, 64, 3)}, frozenset({"mail"}))
        assert (0, 2, {0: feed.position}) == (batch.events, batch.filtered, batch.after)


def test_a_source_whose_name_is_part_of_another_is_another(data: DataDir) -> None:
    with Feed(data) as feed:
        feed.write(event(1), source="web2")
        assert 1 == cut_all(data, NO_LIMITS, sources=frozenset({"web"}))[0].filtered


def test_reading_continues_inside_a_frame(data: DataDir) -> None:
    with Feed(data) as feed:
        feed.write(*map(event, range(4)))
    first = cut_all(data, by_events(3))[0]
    assert {0: Position(1, 64, 3)} == first.after
    assert [event(3)] == lines_of(cut_all(data, NO_LIMITS, first.after))


def test_a_skip_applies_only_to_the_frame_of_the_cursor(data: DataDir) -> None:
    """The frame of the cursor is damaged, so all of the next frame is read."""
    with Feed(data) as feed:
        feed.write(*map(event, range(4)))
        second = feed.position
        feed.write(*map(event, range(4, 8)))
        feed.roll()
        feed.write(event(8))
    path = next(data.slot_dir(0).glob("*1.seg"))
    content = bytearray(path.read_bytes())
    content[64 + 50] ^= 1
    path.write_bytes(content)
    assert second.offset > 64
    found = lines_of(cut_all(data, NO_LIMITS, {0: Position(1, 64, 3)}))
    assert [event(n) for n in range(4, 9)] == found


def test_new_slots_are_found(data: DataDir) -> None:
    with (
        closing(Cutter(SpoolLog(data), {2: Position(1, 64, 1)}, NO_LIMITS, clock=STILL)) as cutter,
        Feed(data, 2) as feed,
    ):
        feed.write(event(1), event(2))
        assert (False, False) == (cutter.cut(), cutter.has_moved())
        cutter.find_slots()
        cutter.cut()
        assert [event(2)] == lines_of([cutter.close_batch()])
        cutter.find_slots()
        assert (False, False) == (cutter.cut(), cutter.has_moved()), "a slot is read once"


def test_a_batch_is_as_old_as_the_oldest_event_of_any_slot(data: DataDir) -> None:
    with Feed(data, 0) as late, Feed(data, 1) as early:
        late.write(event(1), received_ms=2000)
        early.write(event(2), received_ms=1000)
        with closing(Cutter(SpoolLog(data), {}, NO_LIMITS, clock=STILL)) as cutter:
            cutter.cut()
            assert 1000 == cutter.oldest_ms


def test_a_cursor_beyond_the_data_is_clamped(data: DataDir) -> None:
    """The slot was deleted by an operator, so its numbers restarted."""
    with Feed(data) as feed:
        feed.write(event(1))
        assert [event(1)] == lines_of(cut_all(data, NO_LIMITS, {0: Position(9, 4096, 2)}))


@pytest.mark.parametrize("skip", [2, 7])
def test_a_cursor_beyond_the_events_of_its_frame_is_clamped(data: DataDir, skip: int) -> None:
    with Feed(data) as feed:
        feed.write(event(1), event(2))
        feed.write(event(3))
        assert event(3) in lines_of(cut_all(data, NO_LIMITS, {0: Position(1, 64, skip)}))


def test_a_cursor_after_the_end_of_its_segment_continues_in_the_next(data: DataDir) -> None:
    """A power failure lost events that were delivered before they were synced."""
    with Feed(data) as feed:
        feed.write(event(1))
        feed.roll()
        feed.write(event(2))
        assert [event(2)] == lines_of(cut_all(data, NO_LIMITS, {0: Position(1, 4096, 3)}))


def test_a_cut_does_not_read_a_whole_backlog_of_other_sources(data: DataDir) -> None:
    """All destinations share one loop, so filtered events must not delay the others."""
    body = [event(n, padding=1000) for n in range(900)]
    with Feed(data, segment_bytes=8 * 2**20) as feed:
        for _ in range(40):
            feed.write(*body)
    with closing(
        Cutter(
            SpoolLog(data),
            {},
            BatchLimits(500, 2**20, 1.0),
            Selection(excluded=("web",)),
            clock=HandClock(a_look_s=0.0001).clock,
        )
    ) as cutter:
        cutter.cut()
        assert cutter.close_batch().filtered < 40 * 900


AWKWARD = [
    {"p": "a\nb\r\n\u2028\u2029\x85\x0b\x0c\x1c"},
    {"p": "],[{}\\"},
    {"p": ["", None, {"\n": "\n"}], "q": 1.5},
]


@pytest.mark.parametrize("is_ascii", [True, False])
def test_an_array_contains_exactly_the_events_even_with_line_breaks_in_them(
    is_ascii: bool,
) -> None:
    lines = [json.dumps(each, ensure_ascii=is_ascii).encode() for each in AWKWARD]
    batch = batch_of(lines)
    assert AWKWARD == json.loads(batch.joined())
    assert {"batch": AWKWARD} == json.loads(batch.joined(b'{"batch":[', b"]}"))
    assert lines == batch.lines()
    assert b"\n".join(lines) + b"\n" == batch.ndjson()


def test_a_batch_of_one_event_is_an_array_of_one() -> None:
    batch = batch_of([b'{"a":1}'])
    assert (b'[{"a":1}]', [b'{"a":1}'], b'{"a":1}\n') == (
        batch.joined(),
        batch.lines(),
        batch.ndjson(),
    )
