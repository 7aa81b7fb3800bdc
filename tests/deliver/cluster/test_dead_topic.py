"""The topic of dead letters, whose brokers or options fail."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from confluent_kafka import KafkaError, KafkaException
from structlog.testing import capture_logs

from pixelfast.config import Cluster
from pixelfast.deliver.cluster.dead import DeadLetterTopic
from pixelfast.deliver.cluster.dead_index import DeadLetterIndex
from pixelfast.errors import DestinationError
from tests.waiting import wait_until


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


@pytest.mark.parametrize(
    ("code", "is_checked_later"),
    [
        (KafkaError._TIMED_OUT, True),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, False),
        (KafkaError._UNSUPPORTED_FEATURE, False),
    ],
)
def test_only_brokers_that_hide_settings_leave_the_topic_unchecked(
    monkeypatch: pytest.MonkeyPatch, code: int, is_checked_later: bool
) -> None:
    class Admin:
        def __init__(self, *_: object, **__: object) -> None:
            """Connect to nothing."""

        def list_topics(self, timeout: float) -> Any:
            del timeout
            topic = SimpleNamespace(partitions={0: SimpleNamespace(replicas=[1, 2])})
            return SimpleNamespace(topics={"pixelfast-events-dead": topic})

        def describe_configs(self, resources: list[Any], **_: object) -> dict[Any, Future[Any]]:
            found: Future[Any] = Future()
            found.set_exception(KafkaException(KafkaError(code)))
            return {resources[0]: found}

    monkeypatch.setattr("confluent_kafka.admin.AdminClient", Admin)
    topic = DeadLetterTopic(Cluster(brokers=("192.0.2.1:9092",)), structlog.get_logger())
    with capture_logs() as logs:
        if is_checked_later:
            with pytest.raises(KafkaException):
                topic.prepare()
        else:
            topic.prepare()
    assert is_checked_later != ("topic_not_checked" in [each["event"] for each in logs])


def test_options_that_consumers_do_not_accept_are_logged_and_reading_is_retried() -> None:
    cluster = Cluster(brokers=("192.0.2.1:9092",), options={"session.timeout.ms": "600000"})
    log = structlog.get_logger()
    topic, is_stopping = DeadLetterTopic(cluster, log), threading.Event()
    following = threading.Thread(target=topic.follow, args=(DeadLetterIndex(log), is_stopping))
    with capture_logs() as logs:
        following.start()
        try:
            wait_until(lambda: logs or not following.is_alive(), "the first attempt")
            assert following.is_alive()
        finally:
            is_stopping.set()
            following.join()
    (told,) = logs
    assert "dead_letters_unreadable" == told["event"]
    assert "session.timeout.ms" in told["error"]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "does not exist, or this user may not read it; "),
        (KafkaError.POLICY_VIOLATION, "pixelfast-events-dead cannot be created: "),
    ],
)
def test_a_topic_that_is_not_visible_may_exist(
    monkeypatch: pytest.MonkeyPatch, code: int, expected: str
) -> None:
    class Admin:
        """An administrator who sees only the topic of events."""

        def __init__(self, *_: object, **__: object) -> None: ...

        def list_topics(self, **_: object) -> Any:
            return SimpleNamespace(topics={"pixelfast-events": SimpleNamespace(partitions={})})

        def create_topics(self, new: list[Any], **_: object) -> dict[str, Future[None]]:
            created: Future[None] = Future()
            created.set_exception(KafkaException(KafkaError(code)))
            return {each.topic: created for each in new}

    monkeypatch.setattr("confluent_kafka.admin.AdminClient", Admin)
    topic = DeadLetterTopic(Cluster(brokers=("192.0.2.1:9092",)), structlog.get_logger())
    with pytest.raises(DestinationError, match=expected) as caught:
        topic.prepare()
    assert "create it with 1 partition and cleanup.policy=compact" in str(caught.value)
