"""Random frames, limits and restarts: each event is cut once, in order."""

from __future__ import annotations

import tempfile
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pixelfast.deliver.batches import BatchLimits, Cut
from pixelfast.deliver.cutter import Cutter
from pixelfast.deliver.event_log import SpoolLog
from pixelfast.spool import DataDir, Position
from tests.deliver.spools import cut_all, event, lines_of, taking, whole
from tests.spools import Feed, open_data

SOURCES = ("a", "b", "c")
SEGMENT_BYTES = 1024

# A group commit: its slot, and its events as (source, bytes of padding).
commits = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.lists(st.tuples(st.sampled_from(SOURCES), st.integers(0, 90)), min_size=1, max_size=6),
    ),
    max_size=12,
)
limits = st.builds(
    BatchLimits,
    max_events=st.integers(1, 8),
    max_bytes=st.integers(1, 300),
    max_age_s=st.just(0.0),
)
choices = st.sampled_from([None, frozenset(), frozenset("a"), frozenset("ac"), frozenset(SOURCES)])


class Written:
    """Return the events of each slot in order, with their sources."""

    def __init__(self, plan: list[tuple[int, list[tuple[str, int]]]], data: DataDir) -> None:
        self.slots: dict[int, list[tuple[str, bytes]]] = {}
        self._number = 0
        feeds: dict[int, Feed] = {}
        for slot, sizes in plan:
            if slot not in feeds:
                feeds[slot] = Feed(data, slot, segment_bytes=SEGMENT_BYTES)
            self.write(feeds[slot], sizes)
        for feed in feeds.values():
            feed.close()

    def write(self, feed: Feed, sizes: list[tuple[str, int]]) -> None:
        made = [(source, self._next(feed.number, size)) for source, size in sizes]
        feed.commit(made)
        # One frame per source, in the order of their first events.
        names = list(dict.fromkeys(source for source, _ in made))
        made.sort(key=lambda pair: names.index(pair[0]))
        self.slots.setdefault(feed.number, []).extend(made)

    def _next(self, slot: int, padding: int) -> bytes:
        self._number += 1
        return event(self._number * 10 + slot, padding)

    def wanted(self, sources: frozenset[str] | None) -> dict[int, list[bytes]]:
        return {
            slot: [each for source, each in pairs if sources is None or source in sources]
            for slot, pairs in self.slots.items()
        }

    @property
    def count(self) -> int:
        return sum(len(pairs) for pairs in self.slots.values())


def by_slot(lines: list[bytes], slots: Any) -> dict[int, list[bytes]]:
    found: dict[int, list[bytes]] = {slot: [] for slot in slots}
    for line in lines:
        found[int(line.split(b",")[0].rpartition(b":")[2]) % 10].append(line)
    return found


def check_bounds(batch: Cut, limit: BatchLimits) -> None:
    body = whole(batch).ndjson()
    assert len(body) == batch.size_bytes
    assert body.count(b"\n") == batch.events
    assert batch.events <= limit.max_events
    assert batch.size_bytes <= limit.max_bytes or batch.events == 1


@settings(max_examples=40)
@given(plan=commits, limit=limits, sources=choices)
def test_each_event_is_cut_once_in_order_and_within_limits(
    plan: list[Any], limit: BatchLimits, sources: frozenset[str] | None
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = open_data(folder)
        written = Written(plan, data)
        batches = cut_all(data, limit, sources=sources)
        for batch in batches:
            check_bounds(batch, limit)
        assert written.wanted(sources) == by_slot(lines_of(batches), written.slots)
        assert written.count == sum(batch.events + batch.filtered for batch in batches)


@settings(max_examples=30)
@given(plan=commits, limit=limits, again=limits, sources=choices)
def test_reading_continues_exactly_after_every_batch(
    plan: list[Any], limit: BatchLimits, again: BatchLimits, sources: frozenset[str] | None
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = open_data(folder)
        written = Written(plan, data)
        batches = cut_all(data, limit, sources=sources)
        cursors: dict[int, Position] = {}
        for count in range(len(batches) + 1):
            rest = cut_all(data, again, cursors, sources)
            done = [*batches[:count], *rest]
            assert written.wanted(sources) == by_slot(lines_of(done), written.slots)
            assert written.count == sum(batch.events + batch.filtered for batch in done)
            if count < len(batches):
                cursors |= batches[count].after


@settings(max_examples=40)
@given(plan=commits, limit=limits)
def test_batches_are_as_large_as_the_limits_allow(plan: list[Any], limit: BatchLimits) -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = open_data(folder)
        Written([(0, sizes) for _, sizes in plan], data)
        batches = cut_all(data, limit)
        for batch, following in pairwise(batches):
            next_bytes = len(lines_of([following])[0]) + 1
            may_cut = batch.size_bytes + next_bytes <= limit.max_bytes
            assert batch.events == limit.max_events or not may_cut


@settings(max_examples=40)
@given(
    rounds=st.lists(st.tuples(commits, st.integers(0, 5)), max_size=5),
    limit=limits,
    sources=choices,
)
def test_a_cutter_follows_its_writers(
    rounds: list[Any], limit: BatchLimits, sources: frozenset[str] | None
) -> None:
    """Frames and slots are added meanwhile, and some batches are closed before they are full."""
    with tempfile.TemporaryDirectory() as folder:
        data = open_data(folder)
        written = Written([], data)
        feeds: dict[int, Feed] = {}
        cutter = Cutter(SpoolLog(data), {}, limit, taking(sources))
        batches: list[Cut] = []
        for plan, cuts in rounds:
            for slot, sizes in plan:
                if slot not in feeds:
                    feeds[slot] = Feed(data, slot, segment_bytes=SEGMENT_BYTES)
                written.write(feeds[slot], sizes)
            cutter.find_slots()
            for _ in range(cuts):
                cutter.cut()
                batches.append(cutter.close_batch())
        while cutter.cut() or cutter.has_moved():
            batches.append(cutter.close_batch())
        for batch in batches:
            check_bounds(batch, limit)
        cutter.close()
        for feed in feeds.values():
            feed.close()
        assert written.wanted(sources) == by_slot(lines_of(batches), written.slots)
