"""Batches and their sealed frames, which the reader's parser must read unchanged."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pixelfast.spool.batch import CommitBatch
from pixelfast.spool.format import Frame, SegmentId
from pixelfast.spool.frames import MAX_FRAME_BYTES, parse_frame
from tests.spool.test_format import build_frame
from tests.spools import seal

SEGMENT = SegmentId(bytes(range(16)), 3, 7)
NAMES = [b"web", b"a", b"n" * 63, b"seven77", b"eight888"]
MAX_EVENT_BYTES = 32_768

sizes = st.one_of(
    st.integers(0, 64),
    st.integers(0, 2000),
    st.integers(MAX_EVENT_BYTES - 8, MAX_EVENT_BYTES),
)
batches = st.lists(st.tuples(st.integers(0, len(NAMES) - 1), sizes), min_size=1, max_size=40)
offsets = st.integers(8, 2**28).map(lambda number: 8 * number)


def make_event(number: int, size: int) -> bytes:
    """Return bytes that are unique within a batch and contain no line feed."""
    return (b"%d," % number * (size // 2 + 1))[:size]


def parse_all(image: bytes, offset: int, segment: SegmentId = SEGMENT) -> list[Frame]:
    frames = []
    start = 0
    while start < len(image):
        frame = parse_frame(memoryview(image), start, offset + start, segment)
        assert isinstance(frame, Frame)
        frames.append(frame)
        start += frame.length
    assert start == len(image)
    return frames


def split(frame: Frame) -> list[bytes]:
    """Return the events of a frame; `splitlines` would also split at carriage returns."""
    *events, rest = bytes(frame.body).split(b"\n")
    assert rest == b""
    return events


@given(batches, offsets)
@example([(0, MAX_EVENT_BYTES)] * 32, 64)
@example([(number % 5, MAX_EVENT_BYTES) for number in range(33)], 64)
@example([(0, 0)], 64)
def test_a_sealed_batch_is_parsed_unchanged(layout: list[tuple[int, int]], offset: int) -> None:
    events = [(source, make_event(n, size)) for n, (source, size) in enumerate(layout)]
    batch = CommitBatch()
    for source, event in events:
        batch.add(source, event, 1700000000123)
    most = batch.sealed_bytes(NAMES)
    length = batch.seal(NAMES, SEGMENT, offset)
    frames = parse_all(batch.sealed(), offset)
    order = list(dict.fromkeys(source for source, _ in events))
    assert [frame.source for frame in frames] == [NAMES[source].decode() for source in order]
    for source, frame in zip(order, frames, strict=True):
        mine = [event for whose, event in events if whose == source]
        assert split(frame) == mine
        assert (frame.events, frame.received_ms) == (len(mine), 1700000000123)
        assert frame.offset % 8 == 0
        assert frame.length <= MAX_FRAME_BYTES
    assert length == len(batch.sealed()) <= most


@given(batches)
def test_a_batch_sealed_again_for_another_place_has_the_same_events(
    layout: list[tuple[int, int]],
) -> None:
    # A failed commit is retried in another segment.
    batch = CommitBatch()
    for number, (source, size) in enumerate(layout):
        batch.add(source, make_event(number, size))
    batch.seal(NAMES, SEGMENT, 1024)
    first = parse_all(batch.sealed(), 1024)
    other = SEGMENT._replace(number=8)
    batch.seal(NAMES, other, 64)
    second = parse_all(batch.sealed(), 64, other)
    assert [(f.source, bytes(f.body)) for f in first] == [(f.source, bytes(f.body)) for f in second]


@given(st.lists(batches, min_size=2, max_size=4))
def test_a_reused_batch_is_empty(rounds: list[list[tuple[int, int]]]) -> None:
    used = CommitBatch()
    for layout in rounds:
        used.clear()
        fresh = CommitBatch()
        for batch in (used, fresh):
            for number, (source, size) in enumerate(layout):
                batch.add(source, make_event(number, size), 5)
            batch.seal(NAMES, SEGMENT, 64)
        assert fresh.sealed() == used.sealed()


def test_the_bytes_match_the_specification() -> None:
    image = seal([(0, b'{"n":1}'), (0, b'{"n":22}')], [b"web"], SEGMENT, 64, 1700000000123, 5)
    body = b'{"n":1}\n{"n":22}\n'
    expected = build_frame(b"web", body, count=2, received_ms=1700000000123, first_number=5)
    assert expected == image


@pytest.mark.parametrize("name_bytes", range(1, 64))
def test_names_of_all_lengths_are_sealed_alone_and_mixed(name_bytes: int) -> None:
    name = b"n" * name_bytes
    expected = build_frame(name, b"{}\n", segment=SEGMENT)
    assert expected == seal([(0, b"{}")], [name], SEGMENT, 64)
    mixed = seal([(0, b"{}"), (1, b"[]")], [name, b"other"], SEGMENT, 64)
    second = build_frame(b"other", b"[]\n", offset=64 + len(expected), first_number=1)
    assert expected + second == mixed


def test_the_padding_is_zeros_even_in_reused_memory() -> None:
    batch = CommitBatch()
    batch.add(0, b"\xff" * 1000)
    batch.clear()
    for size in range(16):
        batch.clear()
        batch.add(0, b"x" * size)
        batch.seal([b"web"], SEGMENT, 64)
        assert batch.sealed() == build_frame(b"web", b"x" * size + b"\n", segment=SEGMENT)


def test_each_frame_of_a_mixed_commit_has_the_time_of_its_first_event() -> None:
    batch = CommitBatch()
    batch.add(0, b"{}", 1000)
    batch.add(1, b"[]", 2000)
    batch.add(0, b"{}", 3000)
    batch.seal([b"web", b"app"], SEGMENT, 64)
    frames = parse_all(batch.sealed(), 64)
    assert [("web", 1000), ("app", 2000)] == [(f.source, f.received_ms) for f in frames]


def test_a_new_batch_is_empty() -> None:
    batch = CommitBatch()
    assert (len(batch), batch.event_bytes, batch.sealed()) == (0, 0, b"")


def test_a_batch_counts_its_events_and_their_bytes_with_line_feeds() -> None:
    batch = CommitBatch()
    for size in (0, 1, 700):
        batch.add(0, b"x" * size)
    assert (len(batch), batch.event_bytes) == (3, 704)


def test_a_batch_that_fills_its_memory_is_sealed_completely() -> None:
    # The first buffer has 65,536 bytes, 112 of them in front: padding must not exceed it.
    for size in range(65_536 - 112 - 16, 65_536 - 112 + 16):
        image = seal([(0, b"x" * (size - 1))], [b"web"], SEGMENT, 64)
        (frame,) = parse_all(image, 64)
        assert size == len(frame.body)


def test_a_batch_that_grew_large_releases_memory_and_can_be_reused() -> None:
    batch = CommitBatch()
    for source in (0, 1):
        for number in range(100):
            batch.add(source, make_event(number, MAX_EVENT_BYTES))
    batch.seal(NAMES, SEGMENT, 64)
    batch.clear()
    batch.add(1, b"{}")
    batch.seal(NAMES, SEGMENT, 64)
    assert build_frame(b"a", b"{}\n", segment=SEGMENT) == batch.sealed()


def test_each_source_has_a_frame_in_the_order_of_the_first_events() -> None:
    names = [b"s%d" % number for number in range(300)]
    events = [(number * 7 % 300, b"%d" % number) for number in range(900)]
    frames = parse_all(seal(events, names, SEGMENT, 64), 64)
    assert [f"s{number * 7 % 300}" for number in range(300)] == [f.source for f in frames]
    assert sum(frame.events for frame in frames) == 900


def test_only_bytes_are_accepted() -> None:
    batch = CommitBatch()
    for wrong in ("text", bytearray(b"{}"), None):
        with pytest.raises(TypeError):
            batch.add(0, wrong)  # type: ignore[arg-type]
    assert len(batch) == 0


def test_events_of_a_mixed_commit_are_numbered_in_the_order_of_the_log() -> None:
    pairs = [(source, b"%d" % n) for n, source in enumerate([1, 0, 1, 1, 2, 0])]
    frames = parse_all(seal(pairs, NAMES, SEGMENT, 64, first_number=100), 64)
    assert [(100, 3), (103, 2), (105, 1)] == [(f.first_number, f.events) for f in frames]
