"""Batches for Kafka, and a fake producer that stands for the brokers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from confluent_kafka import KafkaError, KafkaException

from pixelfast.config import KafkaDestination
from pixelfast.deliver.batches import Batch, some_events

__all__ = [
    "SETTINGS",
    "Brokers",
    "FakeProducer",
    "Judge",
    "batch",
    "changed",
    "is_stored",
    "tracked",
]

SETTINGS = KafkaDestination(name="stream", brokers=("192.0.2.1:9092",), topic="pixels")


def changed(**settings: Any) -> KafkaDestination:
    return msgspec.structs.replace(SETTINGS, **settings)


def tracked(number: int, **more: Any) -> bytes:
    event = {
        "type": "track",
        "messageId": f"m{number}",
        "userId": f"u{number}",
        "anonymousId": f"a{number}",
        "receivedAt": "2026-01-31T00:00:00.250Z",
    }
    return msgspec.json.encode({**event, **more})


def batch(*events: bytes, sources: list[str] | None = None, name: str = "b1") -> Batch:
    made = some_events(list(events), sources or ["web"] * len(events), range(len(events)))
    made.id = name
    return made


Judge = Callable[["FakeProducer", bytes], KafkaError | None]


def is_stored(_producer: FakeProducer, _value: bytes) -> None:
    return None


@dataclass(eq=False)
class FakeProducer:
    """A producer that reports what the brokers' `judge` says about each message.

    Attributes:
        space: how many messages fit into the queue.
        hesitates: whether the queue is full at every second call.
    """

    brokers: Brokers
    properties: dict[str, Any]
    space: int = 1000
    hesitates: bool = False
    values: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._queue: list[tuple[Callable[..., None], bytes]] = []
        self._calls = 0

    def __len__(self) -> int:
        return len(self._queue)

    def produce(
        self, _topic: str, value: bytes, _key: bytes | None, *, on_delivery: Any, **_: object
    ) -> None:
        self._calls += 1
        if len(self._queue) >= self.space or (self.hesitates and self._calls % 2):
            raise BufferError
        self.values.append(value)
        if self.brokers.refuses is not None:
            raise KafkaException(self.brokers.refuses)
        self._queue.append((on_delivery, value))

    def poll(self, _timeout: float) -> int:
        for each in self.brokers.events:
            each(self)
        self.brokers.events.clear()
        if self.brokers.is_silent:
            return 0
        queue, self._queue = self._queue, []
        for on_delivery, value in queue:
            error = self.brokers.judge(self, value)
            if error is None:
                self.brokers.stored.append(value)
            on_delivery(error, None)
        return len(queue)

    def purge(self, *, blocking: bool) -> None:
        assert not blocking
        self._queue.clear()


@dataclass(eq=False)
class Brokers:
    """Stands for the brokers of all producers of a test.

    Attributes:
        judge: returns the error of a message, or None if it is stored.
        refuses: the error with which a producer rejects every message at once.
        is_silent: whether no message is reported.
        events: called once with the producer that polls next.
        producers, stored: all producers, and all stored messages.
    """

    judge: Judge = is_stored
    refuses: KafkaError | None = None
    is_silent: bool = False
    events: list[Callable[[FakeProducer], None]] = field(default_factory=list)
    producers: list[FakeProducer] = field(default_factory=list)
    stored: list[bytes] = field(default_factory=list)

    def connect(self, properties: dict[str, Any]) -> FakeProducer:
        self.producers.append(FakeProducer(self, properties))
        return self.producers[-1]
