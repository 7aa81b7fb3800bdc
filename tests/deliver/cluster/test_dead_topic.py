"""The producer of the topic of dead letters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import structlog
from confluent_kafka import KafkaError, KafkaException

from pixelfast.config import Cluster
from pixelfast.deliver.cluster.dead import DeadLetterTopic
from pixelfast.errors import DestinationError


def test_a_fatal_error_of_librdkafka_replaces_the_producer(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    class FencedOnce:
        """confluent-kafka raises fatal errors in `poll`."""

        def __init__(self, *_: object, **__: object) -> None:
            self._reports: list[Callable[[KafkaError | None, object], None]] = []
            made.append(self)

        def produce(self, *_: object, on_delivery: Any) -> None:
            self._reports.append(on_delivery)

        def poll(self, _timeout_s: float) -> None:
            if len(made) == 1:
                raise KafkaException(KafkaError(KafkaError._FATAL, "fenced", fatal=True))
            self._reports.pop()(None, None)

    monkeypatch.setattr("confluent_kafka.Producer", FencedOnce)
    topic = DeadLetterTopic(Cluster(brokers=("192.0.2.1:9092",)), structlog.get_logger())
    with pytest.raises(DestinationError, match="topic pixelfast-events-dead: fenced"):
        topic.write([(b"hook/a/0", b"{}")])
    topic.write([(b"hook/a/0", b"{}")])
    assert 2 == len(made)
