"""The topic of a cluster for tests: a fake one, or that of librdkafka's simulated brokers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Producer

from pixelfast.cluster.message import FramePlace, parse_headers
from pixelfast.config import Cluster
from pixelfast.spool.format import Frame, SegmentId
from pixelfast.spool.frames import parse_frame
from tests.messages import QUIET, read_messages

__all__ = [
    "FakeTopic",
    "FakeTransport",
    "MockBrokers",
    "Stored",
    "events_in",
    "read_topic",
    "unique_events",
]


class Stored(NamedTuple):
    """A message that the brokers have stored."""

    place: FramePlace
    value: bytes
    partition: int
    received_ms: int


def _frame_of(message: Stored) -> Frame:
    place = message.place
    segment = SegmentId(place.node, place.slot, place.segment)
    frame = parse_frame(memoryview(message.value), 0, place.offset, segment)
    assert isinstance(frame, Frame), message.place
    return frame


def events_in(messages: list[Stored]) -> list[bytes]:
    """Return the events of all messages, copies included."""
    return [line for each in messages for line in bytes(_frame_of(each).body).split(b"\n")[:-1]]


def unique_events(messages: list[Stored]) -> list[bytes]:
    """Return the events as delivery reads them, which drops what is not beyond the last one."""
    last: dict[tuple[bytes, int], FramePlace] = {}
    kept = []
    for each in messages:
        slot = each.place[:2]
        if slot in last and each.place <= last[slot]:
            continue
        last[slot] = each.place
        kept.append(each)
    return events_in(kept)


class FakeTransport:
    """A producer whose reports a test gives."""

    def __init__(self, topic: FakeTopic, max_message_bytes: int, on_fatal: Any) -> None:
        self.topic = topic
        self.max_message_bytes = max_message_bytes
        self.on_fatal = on_fatal
        self.queue: deque[tuple[Stored, Callable[[Any, object], None]]] = deque()
        self.events: list[Callable[[], None]] = []
        self.is_closed = False

    def produce(
        self,
        place: FramePlace,
        value: bytes,
        partition: int,
        received_ms: int,
        on_report: Callable[[KafkaError | None, object], None],
    ) -> None:
        assert not self.is_closed
        if partition >= self.topic.partitions:
            raise KafkaException(KafkaError(KafkaError._UNKNOWN_PARTITION))
        self.queue.append((Stored(place, value, partition, received_ms), on_report))

    def poll(self) -> int:
        called = len(self.events)
        events, self.events = self.events, []
        for each in events:
            each()
        while self.queue and self.topic.is_up:
            message, on_report = self.queue.popleft()
            error = self.topic.judge(message)
            if error is not None:
                on_report(error, None)
                self.queue.clear()  # as with `enable.gapless.guarantee`
                self.on_fatal("a gap")
                return called + 1
            self.topic.stored.append(message)
            on_report(None, None)
            called += 1
        return called

    def look_up_partitions(self) -> int:
        if self.topic.lookups:
            raise self.topic.lookups.pop(0)
        return self.topic.partitions

    def close(self) -> None:
        self.is_closed = True


class FakeTopic:
    """Stands for the brokers of all producers of a test.

    Attributes:
        is_up: whether the brokers respond.
        judge: returns the error of a message, or None if it is stored.
        lookups: errors of the next times that the topic is looked up.
    """

    def __init__(self, partitions: int = 4) -> None:
        self.partitions = partitions
        self.is_up = True
        self.judge: Callable[[Stored], KafkaError | None] = lambda _: None
        self.lookups: list[Exception] = []
        self.stored: list[Stored] = []
        self.transports: list[FakeTransport] = []

    def connect(self, max_message_bytes: int, on_fatal: Any, _on_error: Any) -> FakeTransport:
        self.transports.append(FakeTransport(self, max_message_bytes, on_fatal))
        return self.transports[-1]


class MockBrokers:
    """Three brokers that librdkafka simulates in this process."""

    def __init__(self) -> None:
        self._host = Producer(
            {"bootstrap.servers": "127.0.0.1:1", "test.mock.num.brokers": 3, "logger": QUIET}
        )
        found = self._host.list_topics(timeout=10).brokers.values()
        self.addresses = tuple(f"{each.host}:{each.port}" for each in found)

    def settings(self, topic: str, **more: Any) -> Cluster:
        return Cluster(brokers=self.addresses, topic=topic, **more)

    def read(self, topic: str) -> list[Stored]:
        """Return everything that is stored in a topic, by partition."""
        return read_topic(self.addresses, topic)

    def close(self) -> None:
        del self._host


def read_topic(addresses: tuple[str, ...], topic: str) -> list[Stored]:
    """Return everything that is stored in a topic, by partition."""
    found = read_messages(",".join(addresses), topic)
    for one, other in pairwise(found):
        assert one.partition != other.partition or one.offset + 1 == other.offset, other
    return [
        Stored(parse_headers(each.headers.items()), each.value, each.partition, each.timestamp_ms)
        for each in found
    ]
