"""The producer of frames."""

from __future__ import annotations

import asyncio
import socket
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException

from pixelfast.cluster.message import FramePlace
from pixelfast.cluster.producer import FrameProducer, TopicUnusable
from pixelfast.config import Cluster
from tests.cluster.topic import MockBrokers
from tests.deliver.running import run


def test_the_error_of_a_connection_says_why_the_topic_was_not_found() -> None:
    errors: list[str] = []

    async def main() -> None:
        looking_up = asyncio.create_task(asyncio.to_thread(producer.look_up_partitions))
        while not looking_up.done():
            producer.poll()
            await asyncio.sleep(0.01)
        await looking_up

    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    producer = FrameProducer(
        Cluster(brokers=(f"127.0.0.1:{port}",)),
        *(1_000_000, errors.append, errors.append),
        topic_timeout_s=1.0,
    )
    try:
        with pytest.raises(TopicUnusable, match="Connection refused"):
            run(main())
    finally:
        producer.close()


def test_a_fatal_error_of_librdkafka_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fenced:
        """confluent-kafka raises fatal errors in `poll` instead of passing them to `error_cb`."""

        def __init__(self, _properties: object) -> None: ...

        def poll(self, _timeout_s: float) -> int:
            raise KafkaException(KafkaError(KafkaError._FATAL, "fenced", fatal=True))

        def purge(self, **_: bool) -> None: ...

    monkeypatch.setattr("confluent_kafka.Producer", Fenced)
    fatal: list[str] = []
    others: list[str] = []
    producer = FrameProducer(
        Cluster(brokers=("192.0.2.1:9092",)), 1_000_000, fatal.append, others.append
    )
    assert 0 == producer.poll()
    producer.close()
    assert ([], ["fenced"]) == (others, [each[-6:] for each in fatal])


def test_a_message_is_never_from_the_future(monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[int] = []

    class Noting:
        """Notes the time of each message."""

        def __init__(self, _properties: object) -> None: ...

        def produce(self, *_: object, timestamp: int, **_more: object) -> None:
            times.append(timestamp)

        def purge(self, **_: bool) -> None: ...

    monkeypatch.setattr("confluent_kafka.Producer", Noting)
    settings = Cluster(brokers=("192.0.2.1:9092",))
    producer = FrameProducer(settings, 1_000_000, print, print, wall_s=lambda: 1000.0)
    for received_ms in (999_000, 1_000_000, 1_000_001, 9_000_000_000):
        producer.produce(FramePlace(bytes(16), 0, 1, 64), b"", 0, received_ms, print)
    producer.close()
    assert [999_000, 1_000_000, 1_000_000, 1_000_000] == times


def test_a_topic_with_fewer_replicas_than_must_be_in_sync_is_unusable() -> None:
    brokers = MockBrokers()
    producer = FrameProducer(
        brokers.settings("few-replicas"),
        *(1_000_000, print, print),
        read_settings=lambda _: {"min.insync.replicas": "4"},
    )
    expected = (
        "topic few-replicas: partition 0 has 3 replicas; expected at least 4 (min.insync.replicas)"
    )
    try:
        with pytest.raises(TopicUnusable) as raised:
            producer.look_up_partitions()
        assert expected == str(raised.value)
    finally:
        producer.close()
        brokers.close()


def test_too_few_replicas_in_sync_are_an_error_with_which_the_topic_is_usable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Short:
        """A producer of a topic that has lost a broker, which simulated brokers cannot."""

        def __init__(self, _properties: object) -> None: ...

        def list_topics(self, topic: str, timeout: float) -> object:
            assert timeout > 0
            whole = SimpleNamespace(replicas=[1, 2], isrs=[2, 1])
            short = SimpleNamespace(replicas=[1, 2], isrs=[2])
            found = SimpleNamespace(error=None, partitions={0: whole, 1: short})
            return SimpleNamespace(topics={topic: found})

        def purge(self, **_: bool) -> None: ...

    monkeypatch.setattr("confluent_kafka.Producer", Short)
    errors: list[str] = []
    producer = FrameProducer(
        Cluster(brokers=("192.0.2.1:9092",), topic="t"),
        *(1_000_000, print, errors.append),
        read_settings=lambda _: {"min.insync.replicas": "2"},
    )
    assert 2 == producer.look_up_partitions()
    producer.close()
    expected = "topic t: partition 1 has 1 in-sync replica; expected at least 2"
    assert [f"{expected} (min.insync.replicas)"] == errors
