"""A destination of a cluster in a process, with runners that fail."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from confluent_kafka import Producer
from structlog.testing import capture_logs

from pixelfast.config import Cluster, Config, HttpDestination, Redactor
from pixelfast.deliver.cluster.checkpoint import Checkpoint, Place
from pixelfast.deliver.cluster.dead import DeadLetterTopic
from pixelfast.deliver.cluster.dead_index import DeadLetterIndex
from pixelfast.deliver.cluster.group import Group
from pixelfast.deliver.cluster.home import PartitionHome
from pixelfast.deliver.cluster.member import Member
from pixelfast.deliver.outlet import Outlet
from pixelfast.deliver.runner import Runner
from pixelfast.deliver.selection import Selection
from pixelfast.errors import DestinationError
from tests.cluster.topic import MockBrokers
from tests.deliver.runners import QUICK, FakeSender
from tests.deliver.running import run
from tests.waiting import until

SECRET = "s3cr3t-of-the-hook"
HOOK = HttpDestination(name="hook", url=f"https://user:{SECRET}@192.0.2.1/")
CLUSTER = Cluster(brokers=("127.0.0.1:1",))


def make_member(
    sender: FakeSender,
    on_made: Callable[[Runner], None] = lambda _: None,
    cluster: Cluster = CLUSTER,
) -> Member:
    def make_runner(_: Any, outlet: Outlet, home: PartitionHome, share_bytes: int) -> Runner:
        runner = Runner("hook", outlet, home, share_bytes=share_bytes, timings=QUICK)
        on_made(runner)
        return runner

    log: Any = None
    sender.redactor = Redactor(Config(destinations=(HOOK,)))
    return Member(
        HOOK,
        cluster,
        "AAAAAAAAAAAAAAAAAAAAAQ",
        Outlet("hook", sender, QUICK),
        make_runner,
        12 * 2**20,
        Selection,
        DeadLetterTopic(CLUSTER, log),
        DeadLetterIndex(log),
        QUICK,
        0,
    )


def test_a_failure_of_all_partitions_is_logged_once_and_without_secrets() -> None:
    async def main() -> None:
        sender = FakeSender()
        sender.open_errors = [DestinationError(f"not with {SECRET}") for _ in range(3)]
        member = make_member(sender)
        with capture_logs() as logs:
            for partition in range(3):
                await member.assign(partition, Checkpoint(Place(0)))
            await until(lambda: not sender.open_errors)
            await until(lambda: "failing" == member.stats()["state"])
            figures = member.stats()
            await member.stop()
        told = [each for each in logs if each["event"] == "partition_failed"]
        assert 1 == len(told)
        assert not [line for line in map(str, (figures, *logs)) if SECRET in line]
        assert "not with" in figures["last_error"]
        assert ["0", "1", "2"] == sorted(figures["by_partition"])

    run(main())


def test_the_partitions_of_a_destination_share_its_memory() -> None:
    async def main() -> None:
        runners: list[Runner] = []
        member = make_member(FakeSender(), runners.append)
        for partition in range(3):
            await member.assign(partition, Checkpoint(Place(0)))
        shares = [runner._memory.buffer_bytes for runner in runners]
        assert [4 * 2**20 // 16] * 3 == shares
        await member.revoke([0], is_lost=True)
        assert [6 * 2**20 // 16] * 2 == [runner._memory.buffer_bytes for runner in runners[1:]]
        await member.stop()

    run(main())


def test_committed_totals_are_reported_before_a_partition_is_open() -> None:
    async def main() -> None:
        member = make_member(FakeSender())
        totals = {"stored": 30, "delivered": 20, "dead": -2, "expired": 5, "invalid_messages": 1}
        await member.assign(3, Checkpoint(Place(7), totals=totals))
        figures = member.stats()
        names = ("stored", "delivered", "dead", "expired", "pending", "invalid_messages")
        assert (30, 20, -2, 5, 7, 1) == tuple(figures[name] for name in names)
        assert -2 == figures["by_partition"]["3"]["dead"]
        await member.stop()

    run(main())


def test_the_reason_why_a_consumer_cannot_be_created_is_shown() -> None:
    async def main() -> None:
        options = {"session.timeout.ms": "600000"}  # more than max.poll.interval.ms
        cluster = Cluster(brokers=CLUSTER.brokers, options=options)
        member = make_member(FakeSender(), cluster=cluster)
        running = asyncio.create_task(member.run())
        await until(lambda: member.stats()["last_error"])
        figures = member.stats()
        await member.stop()
        await running
        assert "failing" == figures["state"]
        assert "session.timeout.ms" in figures["last_error"]

    run(main())


def test_the_reason_why_commits_fail_is_shown() -> None:
    async def main() -> None:
        member = make_member(FakeSender())
        member._group.commit_error = "Group authorization failed"
        assert "Group authorization failed" == member.stats()["last_error"]
        await member.stop()

    run(main())


@pytest.fixture
def brokers() -> Iterator[MockBrokers]:
    mock = MockBrokers()
    yield mock
    mock.close()


@pytest.mark.parametrize("callback", ["assign", "revoke"])
def test_a_failed_consumer_does_not_stay_in_memory(brokers: MockBrokers, callback: str) -> None:
    class Owner:
        def waiting_bytes(self, _partition: int) -> int:
            return 0

        def add(self, _partition: int, _messages: Sequence[Any]) -> int:
            return 0

        async def assign(self, _partition: int, _checkpoint: Checkpoint) -> None:
            if callback == "assign":
                raise DestinationError("not now")

        async def revoke(self, _partitions: Sequence[int], **_: bool) -> None:
            if callback == "revoke":
                raise DestinationError("not now")

    async def fail() -> weakref.ref[Group]:
        owner: Any = Owner()
        cluster = brokers.settings("pixels")
        group = Group(cluster, "AAAAAAAAAAAAAAAAAAAAAQ", "hook", "earliest", 0, owner)
        running = asyncio.create_task(group.run())
        if callback == "revoke":
            await until(lambda: group.is_member)
            group.stop()
        with pytest.raises(DestinationError, match="not now"):
            await running
        return weakref.ref(group)

    producer = Producer({"bootstrap.servers": ",".join(brokers.addresses)})
    producer.produce("pixels", b"")  # creates the topic
    assert 0 == producer.flush(30)
    group = run(fail())
    gc.collect()
    assert group() is None
