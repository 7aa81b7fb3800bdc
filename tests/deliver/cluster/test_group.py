"""A member of a consumer group, whose brokers reject requests."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from structlog.testing import capture_logs

from pixelfast.config import Cluster
from pixelfast.deliver.cluster.group import Group
from pixelfast.deliver.cluster.offsets import GroupOffsets
from tests.deliver.running import run
from tests.waiting import until

TOPIC_ID = "AAAAAAAAAAAAAAAAAAAAAQ"
CLUSTER = Cluster(brokers=("192.0.2.1:9092",))


class FakeConsumer:
    """A consumer of two partitions with the messages 100 to 149; nothing is committed yet."""

    error: KafkaError | None = None

    def __init__(self, *_: object, **__: object) -> None:
        self.places: list[TopicPartition] = []
        self._is_asked = threading.Event()

    def subscribe(self, *_: object, **__: object) -> None: ...

    def consume(self, _count: int, timeout_s: float) -> list[Any]:
        self._is_asked.wait(timeout_s)
        return []

    def commit(self, offsets: list[TopicPartition], **_: object) -> list[TopicPartition]:
        if self.error is not None:
            raise KafkaException(self.error)
        self.places = offsets
        return offsets

    def committed(self, places: list[TopicPartition], *_: object) -> list[TopicPartition]:
        return [each for each in self.places if each.partition in {own.partition for own in places}]

    def list_topics(self, topic: str, *_: object) -> Any:
        return SimpleNamespace(topics={topic: SimpleNamespace(partitions={0: None, 1: None})})

    def get_watermark_offsets(self, *_: object) -> tuple[int, int]:
        return 100, 150

    def offsets_for_times(self, places: list[TopicPartition], *_: object) -> list[TopicPartition]:
        return [TopicPartition(each.topic, each.partition, -1) for each in places]

    def close(self) -> None: ...


@pytest.fixture(autouse=True)
def consumer(monkeypatch: pytest.MonkeyPatch) -> type[FakeConsumer]:
    monkeypatch.setattr("confluent_kafka.Consumer", FakeConsumer)
    monkeypatch.setattr(FakeConsumer, "error", None)
    return FakeConsumer


@pytest.mark.parametrize(
    "code", [KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.OFFSET_METADATA_TOO_LARGE]
)
def test_a_commit_that_is_rejected_is_shown_and_logged_once(
    consumer: type[FakeConsumer], code: int
) -> None:
    owner: Any = SimpleNamespace(waiting_bytes=lambda _: 0)

    async def main() -> None:
        group = Group(CLUSTER, TOPIC_ID, "hook", "newest", 0, owner)
        running = asyncio.create_task(group.run())
        try:
            consumer.error = KafkaError(code)
            with capture_logs() as logs:
                for _ in range(3):
                    assert not await committed(group)
            told = [each["error"] for each in logs if each["event"] == "offset_not_committed"]
            assert [group.commit_error] == told
            assert KafkaError(code).str() == group.commit_error
            consumer.error = None
            assert await committed(group)
            assert "" == group.commit_error
        finally:
            group.stop()
            await running

    run(main())


async def committed(group: Group) -> bool:
    await until(lambda: group._consumer is not None)
    return await asyncio.to_thread(group.commit, 0, 7, "")


@pytest.mark.parametrize(
    ("start", "skipped", "level"), [("newest", 100, "warning"), ("earliest", 0, "info")]
)
def test_the_messages_before_the_start_of_a_new_destination_are_logged(
    start: str, skipped: int, level: str
) -> None:
    log = structlog.get_logger()
    errors: list[str] = []
    stopping = threading.Event()
    offsets = GroupOffsets("pixels", TOPIC_ID, start, 0, {}, stopping, errors.append, log)
    member: Any = FakeConsumer()
    with capture_logs() as logs:
        found = offsets.checkpoints(member, [0, 1])
    offsets.close()
    first = 150 if start == "newest" else 100
    assert [first, first] == [each.place.offset for each in found.values()]
    assert [] == errors
    (told,) = logs
    assert {
        "event": "destination_registered",
        "log_level": level,
        "start": start,
        "skipped_messages": skipped,
    } == told
