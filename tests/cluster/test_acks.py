"""A pixel's response goes out when the brokers have its event, or what the settings allow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pixelfast.cluster.acks import AckMode, ReplicatedAcks
from pixelfast.cluster.pace import CommitPace
from pixelfast.cluster.replicator import Replicator
from pixelfast.config import Cluster
from pixelfast.spool import Committer, DataDir, Position, SlotFiles, SpoolWriter
from pixelfast.spool.format import SegmentId
from tests.cluster.topic import FakeTopic, events_in, unique_events
from tests.deliver.running import run
from tests.spools import open_data
from tests.waiting import until

SEGMENT_BYTES = 2**17


@pytest.fixture
def data(tmp_path: Path) -> DataDir:
    return open_data(tmp_path / "data")


class Collector:
    """A writer that replicates, and what it has acknowledged."""

    def __init__(
        self, data: DataDir, topic: FakeTopic, interval_s: float = 0.0, **settings: Any
    ) -> None:
        self.topic = topic
        self.stored: list[int] = []
        self.failed: list[int] = []
        loop = asyncio.get_running_loop()
        cluster = Cluster(brokers=("192.0.2.1:9092",), **settings)
        files = SlotFiles(data, 0, SEGMENT_BYTES)
        self.replicator = Replicator(data, 0, cluster, connect=topic.connect)
        self.replicator.start()
        self.acks = ReplicatedAcks(
            loop,
            self.replicator,
            cluster,
            self._on_stored,
            1.0,
            calm_s=0.05,
            pace=CommitPace(loop, interval_s=interval_s),
        )
        self.writer = SpoolWriter(
            loop, files, Committer(), ["web"], self._on_stored, ack="written", acks=self.acks
        )
        self.acks.attach(self.writer)

    def _on_stored(self, waiters: list[int], _first_ticket: int, is_stored: bool) -> None:
        (self.stored if is_stored else self.failed).extend(waiters)

    def add(self, number: int, size: int = 10) -> str:
        """Offer an event; return why it was rejected."""
        return self.writer.add(0, event(number, size), 0, number)[1]

    async def close(self) -> None:
        await self.writer.close()
        await self.replicator.close(0)
        self.acks.close()


def event(number: int, size: int = 10) -> bytes:
    return b'{"n":%d,"x":"%s"}' % (number, b"x" * size)


@asynccontextmanager
async def collecting(data: DataDir, topic: FakeTopic, **settings: Any) -> AsyncIterator[Collector]:
    collector = Collector(data, topic, **settings)
    await until(lambda: collector.writer.is_ready and collector.replicator.is_connected)
    try:
        yield collector
    finally:
        await collector.close()


def test_an_event_is_acknowledged_when_the_brokers_have_it(data: DataDir) -> None:
    topic = FakeTopic()

    async def main() -> None:
        async with collecting(data, topic, max_replication_wait_s=30) as collector:
            collector.add(0)
            await until(lambda: collector.stored == [0])
            topic.is_up = False
            collector.add(1)
            await until(lambda: collector.writer.commits == 2)
            await asyncio.sleep(0.1)
            assert [0] == collector.stored
            topic.is_up = True
            await until(lambda: collector.stored == [0, 1])
            assert {"replicated": 2, "spooled": 0} == collector.acks.acknowledged

    run(main())
    assert [event(0), event(1)] == events_in(topic.stored)


def test_many_events_are_acknowledged_in_order(data: DataDir) -> None:
    topic = FakeTopic()

    async def main() -> list[int]:
        async with collecting(data, topic, max_replication_wait_s=30) as collector:
            for number in range(3000):
                collector.add(number, 400)
                if not number % 50:
                    await asyncio.sleep(0)
            await until(lambda: len(collector.stored) == 3000)
            return collector.stored

    assert list(range(3000)) == run(main())
    assert [event(n, 400) for n in range(3000)] == unique_events(topic.stored)
    assert len({each.place.segment for each in topic.stored}) > 5


def test_events_that_arrive_soon_after_a_commit_are_in_one_commit(data: DataDir) -> None:
    topic = FakeTopic()

    async def main() -> list[int]:
        settings = {"interval_s": 0.3, "max_replication_wait_s": 30}
        async with collecting(data, topic, **settings) as collector:
            collector.add(0)
            await until(lambda: collector.stored == [0])
            for number in range(1, 20):
                collector.add(number)
                await asyncio.sleep(0.002)  # long enough for a commit
            await until(lambda: len(collector.stored) == 20)
            return [collector.writer.commits, len(topic.stored)]

    assert [2, 2] == run(main())
    assert [event(n) for n in range(20)] == events_in(topic.stored)


def test_without_brokers_commits_do_not_wait_for_each_other(data: DataDir) -> None:
    topic = FakeTopic()

    async def main() -> None:
        settings = {"interval_s": 60, "max_replication_wait_s": 0.1}
        async with collecting(data, topic, **settings) as collector:
            topic.is_up = False
            for number in range(5):
                collector.add(number)
                await until(lambda number=number: collector.stored[-1:] == [number])
            assert (5, 5) == (collector.writer.commits, collector.acks.acknowledged["spooled"])

    run(main())


def test_without_brokers_the_local_disk_acknowledges_and_events_are_forwarded_later(
    data: DataDir,
) -> None:
    topic = FakeTopic()

    async def main() -> None:
        async with collecting(data, topic, max_replication_wait_s=0.3) as collector:
            collector.add(0)
            await until(lambda: collector.stored == [0])
            topic.is_up = False
            for number in range(1, 10):
                collector.add(number)
                await until(lambda number=number: collector.stored[-1] == number)
            assert AckMode.UNAVAILABLE is collector.acks.mode
            assert [] == collector.failed
            assert 9 == collector.acks.acknowledged["spooled"]
            topic.is_up = True
            await until(lambda: collector.acks.mode is AckMode.REPLICATING)
            collector.add(10)
            await until(lambda: collector.stored[-1] == 10)
            assert 2 == collector.acks.acknowledged["replicated"]

    run(main())
    assert [event(n) for n in range(11)] == unique_events(topic.stored)


def test_without_brokers_events_are_rejected_if_the_settings_say_so(data: DataDir) -> None:
    topic = FakeTopic()

    async def main() -> None:
        settings = {"max_replication_wait_s": 0.3, "when_unavailable": "reject"}
        async with collecting(data, topic, **settings) as collector:
            collector.add(0)
            await until(lambda: collector.stored == [0])
            topic.is_up = False
            assert "" == collector.add(1)
            await until(lambda: collector.failed == [1])
            assert "brokers-unavailable" == collector.add(2)
            assert ("brokers-unavailable", False) == (
                collector.writer.rejection,
                collector.writer.is_ready,
            )
            topic.is_up = True
            await until(lambda: collector.writer.is_ready)
            assert "" == collector.add(3)
            await until(lambda: collector.stored == [0, 3])

    run(main())
    assert [event(0), event(1), event(3)] == unique_events(topic.stored)


class FakeReplicator:
    """A replicator whose position a test moves."""

    slot = 0
    last_error = ""
    is_complete = False

    def __init__(self) -> None:
        self.position = Position()
        self.on_progress: Any = None

    def note_commit(self, *_: object) -> None:
        pass

    def backlog_s(self) -> float:
        return 9.0


class FakeWriter:
    def sync_each(self, is_each_synced: bool) -> None:
        self.is_each_synced = is_each_synced

    def resume(self) -> None:
        pass


async def spooling() -> tuple[ReplicatedAcks, Any, list[int], list[int]]:
    """Return acks in the mode UNAVAILABLE with a commit in segment 1 and one in segment 2."""
    stored: list[int] = []
    failed: list[int] = []
    replicator: Any = FakeReplicator()
    writer: Any = FakeWriter()
    loop = asyncio.get_running_loop()
    acks = ReplicatedAcks(
        loop,
        replicator,
        Cluster(brokers=("192.0.2.1:9092",), max_replication_wait_s=0.05),
        lambda waiters, _, is_stored: (stored if is_stored else failed).extend(waiters),
        1.0,
    )
    acks.attach(writer)
    acks.on_written(SegmentId(bytes(16), 0, 1), 64, bytes(36), [1], 1, loop.time())
    return acks, replicator, stored, failed


def second(acks: ReplicatedAcks) -> None:
    now_s = asyncio.get_running_loop().time()
    acks.on_written(SegmentId(bytes(16), 0, 2), 64, bytes(36), [2], 2, now_s)
    acks.on_synced(2, 100)


def test_the_local_disk_acknowledges_only_if_earlier_segments_are_on_it_too() -> None:
    async def main() -> None:
        acks, _, stored, _ = await spooling()
        is_synced: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        acks.on_left(1, is_synced)
        second(acks)
        await until(lambda: acks.mode is AckMode.UNAVAILABLE)
        assert [] == stored
        is_synced.set_result(True)
        await until(lambda: stored == [1, 2])
        acks.close()

    run(main())


def test_a_segment_that_could_not_be_synced_is_acknowledged_only_by_the_brokers() -> None:
    async def main() -> None:
        acks, replicator, stored, failed = await spooling()
        is_synced: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        acks.on_left(1, is_synced)
        is_synced.set_result(False)
        second(acks)
        await until(lambda: acks.mode is AckMode.UNAVAILABLE)
        await until(lambda: failed == [1, 2])
        assert [] == stored
        replicator.position = Position(2, 64)
        now_s = asyncio.get_running_loop().time()
        acks.on_written(SegmentId(bytes(16), 0, 2), 100, bytes(36), [3], 3, now_s)
        acks.on_synced(2, 136)
        assert [3] == stored
        acks.close()

    run(main())


def test_a_segment_whose_commits_were_synced_may_fail_afterwards() -> None:
    async def main() -> None:
        acks, _, stored, _ = await spooling()
        acks.on_synced(1, 100)
        is_synced: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        acks.on_left(1, is_synced)
        is_synced.set_result(False)
        second(acks)
        await until(lambda: stored == [1, 2])
        acks.close()

    run(main())


@pytest.mark.parametrize("when_unavailable", ["spool", "reject"])
def test_a_collector_that_rejects_is_not_ready_until_a_broker_has_responded(
    data: DataDir, when_unavailable: str
) -> None:
    topic = FakeTopic()

    async def main() -> None:
        async with collecting(data, topic, when_unavailable=when_unavailable) as collector:
            await until(lambda: collector.replicator.is_complete)
            collector.acks.note_disconnected()
            is_ready = when_unavailable == "spool"
            assert is_ready == (collector.acks.mode is AckMode.REPLICATING)
            assert (is_ready, is_ready) == (collector.writer.is_ready, not collector.add(0))
            await until(lambda: collector.writer.is_ready)
            assert "" == collector.add(1)
            await until(lambda: collector.stored[-1:] == [1])

    run(main())
