"""Frames are replicated in the order of the log, whatever happens to producers and brokers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from pixelfast.cluster.cursor import choose_partition, read_cursor
from pixelfast.cluster.message import WHOLE
from pixelfast.cluster.producer import FrameProducer
from pixelfast.cluster.replicator import Replicator
from pixelfast.config import Cluster
from pixelfast.spool import DataDir, Position
from pixelfast.spool.format import SegmentId
from tests.cluster.topic import FakeTopic, MockBrokers, Stored, events_in, unique_events
from tests.deliver.running import run
from tests.spools import Slot, open_data
from tests.waiting import until

SETTINGS = Cluster(brokers=("192.0.2.1:9092",), max_message_bytes=2**18)
SEGMENT_BYTES = 2**16


@pytest.fixture
def data(tmp_path: Path) -> DataDir:
    return open_data(tmp_path / "data")


@pytest.fixture
def slot(data: DataDir) -> Iterator[Slot]:
    slot = Slot(data, segment_bytes=SEGMENT_BYTES)
    yield slot
    slot.close()


@pytest.fixture
def brokers() -> Iterator[MockBrokers]:
    brokers = MockBrokers()
    yield brokers
    brokers.close()


@asynccontextmanager
async def replicating(data: DataDir, topic: FakeTopic, **more: Any) -> Any:
    replicator = Replicator(data, 0, SETTINGS, connect=topic.connect, **more)
    replicator.start()
    try:
        yield replicator
    finally:
        await replicator.close(0)


def event(number: int, size: int = 40) -> bytes:
    return b'{"n":%d,"x":"%s"}' % (number, b"x" * size)


def commit(slot: Slot, replicator: Replicator, *numbers: int, **more: Any) -> None:
    """Write a commit as the collector's writer does, and hand it over."""
    image = slot.image(*(event(number, **more) for number in numbers), received_ms=1000)
    if slot.segment.offset + len(image) > SEGMENT_BYTES - 48:
        slot.roll()
        image = slot.image(*(event(number, **more) for number in numbers), received_ms=1000)
    segment, offset = slot.segment.id, slot.segment.offset
    slot.write(*(event(number, **more) for number in numbers), received_ms=1000)
    replicator.note_commit(segment, offset, image)


def test_commits_are_sent_as_they_stand_in_the_segment(data: DataDir, slot: Slot) -> None:
    topic = FakeTopic()

    async def main() -> Position:
        async with replicating(data, topic) as replicator:
            commit(slot, replicator, 0, 1)
            commit(slot, replicator, 2)
            await until(lambda: replicator.is_complete)
            commit(slot, replicator, 3)  # from memory
            await until(lambda: len(topic.stored) == 3)
            position: Position = replicator.position
            return position

    position = run(main())
    assert slot.position == position
    segment = slot.path().read_bytes()
    for each in topic.stored:
        assert segment[each.place.offset :].startswith(each.value)
        assert (data.node, 0, 1, WHOLE) == (*each.place[:3], each.place.part)
        assert 1000 == each.received_ms
    assert [event(n) for n in range(4)] == events_in(topic.stored)


def test_a_commit_of_several_sources_is_one_message_for_each(data: DataDir, slot: Slot) -> None:
    topic = FakeTopic()

    async def main() -> None:
        async with replicating(data, topic) as replicator:
            commit(slot, replicator, 0)
            await until(lambda: replicator.is_complete)
            pairs = [("web", event(1)), ("mail", event(2)), ("web", event(3))]
            segment, offset = slot.segment.id, slot.segment.offset
            slot.commit(pairs)
            image = slot.path().read_bytes()[offset : slot.segment.offset]
            replicator.note_commit(segment, offset, image)
            await until(lambda: replicator.is_complete)

    run(main())
    assert [event(n) for n in (0, 1, 3, 2)] == events_in(topic.stored)
    assert 3 == len(topic.stored)


def test_frames_of_several_segments_and_of_earlier_collectors_are_in_order(
    data: DataDir, slot: Slot
) -> None:
    topic = FakeTopic()
    for number in range(100):
        if number % 30 == 29:
            slot.roll()
        slot.write(event(number))

    async def main() -> None:
        async with replicating(data, topic) as replicator:
            for number in range(100, 4000):
                commit(slot, replicator, number)
            await until(lambda: replicator.is_complete)

    run(main())
    assert [event(n) for n in range(4000)] == events_in(topic.stored)
    assert len({each.place.segment for each in topic.stored}) > 5


def test_while_brokers_are_silent_a_limited_number_of_bytes_is_in_flight(
    data: DataDir, slot: Slot
) -> None:
    topic = FakeTopic()

    async def main() -> list[int]:
        sizes = []
        async with replicating(data, topic, max_in_flight_bytes=1000) as replicator:
            commit(slot, replicator, 0)
            await until(lambda: replicator.is_complete)
            topic.is_up = False
            for number in range(1, 200):
                commit(slot, replicator, number)
                sizes.append(replicator.in_flight_bytes)
            topic.is_up = True
            await until(lambda: replicator.is_complete)
        return sizes

    assert max(run(main())) < 1200
    assert [event(n) for n in range(200)] == events_in(topic.stored)


def test_commits_during_a_catch_up_do_not_precede_what_is_behind(data: DataDir, slot: Slot) -> None:
    topic = FakeTopic()

    async def main() -> None:
        async with replicating(data, topic, max_in_flight_bytes=1000) as replicator:
            commit(slot, replicator, 0)
            await until(lambda: replicator.is_complete)
            for number in range(1, 400):
                topic.is_up = number % 40 > 20
                commit(slot, replicator, number)
                if not number % 4:
                    await asyncio.sleep(0.001)
            topic.is_up = True
            await until(lambda: replicator.is_complete)

    run(main())
    assert [event(n) for n in range(400)] == events_in(topic.stored)


def test_a_new_producer_continues_with_the_first_frame_that_is_not_stored(
    data: DataDir, slot: Slot
) -> None:
    topic = FakeTopic()
    failing = [event(7), event(7), event(12)]

    def judge(message: Stored) -> KafkaError | None:
        if failing and events_in([message]) == [failing[0]]:
            failing.pop(0)
            return KafkaError(KafkaError.NOT_ENOUGH_REPLICAS)
        return None

    topic.judge = judge

    async def main() -> int:
        async with replicating(data, topic) as replicator:
            commit(slot, replicator, 0)
            await until(lambda: replicator.is_complete)
            for number in range(1, 20):
                commit(slot, replicator, number)
            await until(lambda: replicator.is_complete)
            failures: int = replicator.failures
            return failures

    assert 3 == run(main())
    assert 4 == len(topic.transports)
    assert [event(n) for n in range(20)] == events_in(topic.stored)


def test_a_fatal_error_ends_a_producer_for_good(data: DataDir, slot: Slot) -> None:
    topic = FakeTopic()

    async def main() -> None:
        async with replicating(data, topic) as replicator:
            commit(slot, replicator, 0)
            await until(lambda: replicator.is_complete)
            first = topic.transports[0]
            topic.is_up = False
            commit(slot, replicator, 1)
            first.events.append(lambda: first.on_fatal("fenced"))
            await until(lambda: len(topic.transports) == 2)
            late = list(first.queue)
            topic.is_up = True
            await until(lambda: replicator.is_complete)
            for _, on_report in late:  # of the first producer, which was purged
                on_report(KafkaError(KafkaError._PURGE_QUEUE), None)
            commit(slot, replicator, 2)
            await until(lambda: replicator.is_complete)
            assert (True, 2) == (first.is_closed, len(topic.transports))

    run(main())
    assert [event(0), event(1), event(2)] == events_in(topic.stored)


def test_a_topic_that_cannot_be_found_is_looked_up_again(data: DataDir, slot: Slot) -> None:
    topic = FakeTopic()
    topic.lookups = [KafkaException(KafkaError(KafkaError._TRANSPORT)), OSError("no network")]

    async def main() -> tuple[str, int]:
        async with replicating(data, topic) as replicator:
            commit(slot, replicator, 0)
            await until(lambda: replicator.last_error == "no network")
            await until(lambda: replicator.is_complete)
            return replicator.last_error, replicator.failures

    assert ("", 2) == run(main())
    assert [event(0)] == events_in(topic.stored)


def test_a_frame_that_is_too_large_for_the_topic_is_split(data: DataDir) -> None:
    topic = FakeTopic()
    limit = 2**17

    def judge(message: Stored) -> KafkaError | None:
        is_large = len(message.value) > limit
        return KafkaError(KafkaError.MSG_SIZE_TOO_LARGE) if is_large else None

    topic.judge = judge
    large = Slot(data, 1, 2**20)
    large.write(*(event(n, 1000) for n in range(200)))
    large.write(event(200, 10))

    async def main() -> None:
        replicator = Replicator(data, 1, SETTINGS, connect=topic.connect)
        replicator.start()
        await until(lambda: replicator.position == large.position)
        await replicator.close(0)

    run(main())
    large.close()
    assert [event(n, 1000) for n in range(200)] + [event(200, 10)] == unique_events(topic.stored)
    assert [0, 1, 2, 3, WHOLE] == [each.place.part for each in topic.stored]
    assert 2**17 == topic.transports[-1].max_message_bytes


def test_after_a_crash_frames_behind_the_recorded_position_are_sent_again_to_the_same_partition(
    data: DataDir, slot: Slot
) -> None:
    topic = FakeTopic(partitions=1)

    async def main(first: int, *, is_killed: bool) -> None:
        replicator = Replicator(data, 0, SETTINGS, connect=topic.connect)
        replicator.start()
        for number in range(first, first + 10):
            commit(slot, replicator, number)
        await until(lambda: replicator.is_complete)
        record = (data.path / "shards" / "0.replicated").read_bytes()
        await replicator.close(0)
        if is_killed:  # before it recorded its position
            (data.path / "shards" / "0.replicated").write_bytes(record)

    run(main(0, is_killed=True))
    topic.partitions = next(n for n in range(2, 99) if choose_partition(data.node, 0, n))
    slot.roll()
    run(main(10, is_killed=False))
    assert [event(n) for n in (*range(10), *range(20))] == events_in(topic.stored)
    assert [event(n) for n in range(20)] == unique_events(topic.stored)
    assert 1 == len({each.partition for each in topic.stored})
    assert slot.position == read_cursor(data, 0).position
    for _ in range(9):  # segments that have no partition yet
        slot.roll()
    run(main(20, is_killed=False))
    assert 2 == len({each.partition for each in topic.stored})


def test_a_topic_that_was_created_again_with_fewer_partitions_gets_the_frames(
    data: DataDir, slot: Slot
) -> None:
    topic = FakeTopic(next(n for n in range(2, 99) if choose_partition(data.node, 0, n)))

    async def main() -> None:
        async with replicating(data, topic) as replicator:
            for number in range(10):
                commit(slot, replicator, number)
            await until(lambda: replicator.is_complete)
            topic.partitions = 1
            for number in range(10, 30):
                commit(slot, replicator, number)
                if number == 20:
                    await until(lambda: len(topic.stored) > 20)
                    slot.roll()
            await until(lambda: replicator.is_complete)

    run(main())
    assert [event(n) for n in range(30)] == unique_events(topic.stored)
    assert {0} == {each.partition for each in topic.stored[10:]}


def test_segments_are_released_after_the_position_is_on_the_disk(data: DataDir, slot: Slot) -> None:
    topic = FakeTopic()

    async def main() -> None:
        async with replicating(data, topic) as replicator:
            for number in range(2000):
                commit(slot, replicator, number)
            await until(lambda: replicator.is_complete)
            await until(lambda: data.segments(0) == [slot.position.segment])
            assert slot.position.segment == read_cursor(data, 0).position.segment

    run(main())


def test_one_process_replicates_a_slot(data: DataDir, slot: Slot) -> None:
    topic, other = FakeTopic(), FakeTopic()

    async def main() -> None:
        async with replicating(data, topic) as first:
            commit(slot, first, 0)
            await until(lambda: first.is_complete)
            second = Replicator(data, 0, SETTINGS, connect=other.connect)
            second.start()
            commit(slot, first, 1)
            await until(lambda: first.is_complete)
            assert [] == other.transports
        commit(slot, second, 2)
        await until(lambda: second.is_complete)
        await second.close(0)

    run(main())
    assert [event(0), event(1)] == events_in(topic.stored)
    assert [event(2)] == events_in(other.stored)


def test_simulated_brokers_store_what_a_producer_of_librdkafka_sends(
    data: DataDir, slot: Slot, brokers: MockBrokers
) -> None:
    async def main() -> None:
        settings = brokers.settings("replicated")
        connect = partial(FrameProducer, settings, read_settings=lambda _: {})  # they have none
        replicator = Replicator(data, 0, settings, connect=connect)
        replicator.start()
        for number in range(300):
            commit(slot, replicator, number)
        await until(lambda: replicator.is_complete)
        for number in range(300, 500):
            commit(slot, replicator, number)
        await replicator.close(10)

    run(main())
    stored = brokers.read("replicated")
    assert [event(n) for n in range(500)] == events_in(stored)
    assert {(data.node, 0)} == {each.place[:2] for each in stored}
    segment = SegmentId(data.node, 0, 1)
    assert segment.number == stored[0].place.segment


def test_after_a_power_cut_the_log_may_end_before_the_recorded_position(data: DataDir) -> None:
    topic = FakeTopic()
    slot = Slot(data, segment_bytes=SEGMENT_BYTES)

    async def before() -> Position:
        async with replicating(data, topic) as replicator:
            for number in range(8):
                commit(slot, replicator, number)
            await until(lambda: replicator.is_complete)
            return slot.position

    end = run(before())
    slot.close()
    assert end == read_cursor(data, 0).position
    path, is_from = slot.path(), end.offset // 2
    content = path.read_bytes()
    path.write_bytes(content[:is_from] + bytes(len(content) - is_from))  # not synced

    async def after() -> None:
        again = Slot(data, segment_bytes=SEGMENT_BYTES)
        assert again.segment.id.number > end.segment
        async with replicating(data, topic) as replicator:
            commit(again, replicator, 100)
            await until(lambda: replicator.is_complete)
            commit(again, replicator, 101)
            await until(lambda: replicator.is_complete)
        again.close()

    run(after())
    assert [event(n) for n in (*range(8), 100, 101)] == unique_events(topic.stored)
