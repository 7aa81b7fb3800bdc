"""From reports to outcomes: a fake producer stands for the brokers."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import confluent_kafka
import pytest
from confluent_kafka import KafkaError, KafkaException
from structlog.testing import capture_logs

from pixelfast.config import Config, KafkaDestination, Redactor
from pixelfast.deliver.batches import Batch
from pixelfast.deliver.destinations.kafka import KafkaSender
from pixelfast.deliver.kafka.client import Reports
from pixelfast.deliver.kafka.messages import Messages
from pixelfast.deliver.outcomes import Accepted, Held, Outcome, Partial, Rejected, Retry
from tests.deliver.kafka import (
    SETTINGS,
    Brokers,
    FakeProducer,
    Judge,
    batch,
    changed,
    is_stored,
    tracked,
)
from tests.deliver.running import run
from tests.waiting import until


@pytest.fixture
def brokers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Brokers]:
    found = Brokers()
    monkeypatch.setattr(confluent_kafka, "Producer", found.connect)
    yield found
    found.producers.clear()


def send(settings: KafkaDestination, *batches: Batch) -> list[Outcome]:
    """Return the outcomes of batches that one sender sends one after the other."""

    async def main() -> list[Outcome]:
        sender = KafkaSender(settings)
        await sender.open({})
        try:
            return [await sender.send(each) for each in batches]
        finally:
            await sender.close()

    return run(main())


def failing(error: KafkaError, *numbers: int) -> Judge:
    """Return a judge that rejects the events with these numbers, by default all."""
    values = {tracked(n) for n in numbers}
    return lambda _, value: error if not numbers or value in values else None


def test_a_batch_is_delivered_when_every_message_is_stored(brokers: Brokers) -> None:
    events = [tracked(n) for n in range(100)]
    assert [Accepted()] == send(SETTINGS, batch(*events))
    assert events == brokers.stored


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (KafkaError.NOT_LEADER_FOR_PARTITION, Retry),
        (KafkaError.NOT_ENOUGH_REPLICAS, Retry),
        (KafkaError.REQUEST_TIMED_OUT, Retry),
        (KafkaError.KAFKA_STORAGE_ERROR, Retry),
        (KafkaError._TRANSPORT, Retry),
        (KafkaError._PURGE_INFLIGHT, Retry),
        (KafkaError._INVALID_DIFFERENT_RECORD, Retry),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, Held),
        (KafkaError._UNKNOWN_TOPIC, Held),
        (KafkaError._UNKNOWN_PARTITION, Held),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, Held),
        (KafkaError.CLUSTER_AUTHORIZATION_FAILED, Held),
        (KafkaError._AUTHENTICATION, Held),
        (KafkaError.POLICY_VIOLATION, Held),
        (KafkaError._FATAL, Held),
    ],
)
def test_an_error_of_all_messages_is_the_outcome_of_the_batch(
    brokers: Brokers, code: int, expected: type[Retry | Held]
) -> None:
    brokers.judge = failing(KafkaError(code, "Broker: the words"))
    assert [expected("topic pixels: Broker: the words")] == send(SETTINGS, batch(tracked(1)))


@pytest.mark.parametrize("code", [KafkaError.INVALID_RECORD, KafkaError.INVALID_TIMESTAMP])
def test_an_event_that_a_broker_rejects_is_rejected_alone(brokers: Brokers, code: int) -> None:
    brokers.judge = failing(KafkaError(code, "Broker: no"), 1)
    expected = Partial.of({1: Rejected("topic pixels: Broker: no")})
    assert [expected] == send(SETTINGS, batch(tracked(0), tracked(1), tracked(2)))


@pytest.mark.usefixtures("brokers")
def test_an_unexpected_error_is_logged_and_the_batch_is_retried() -> None:
    def fails(_producer: FakeProducer, *_: object, **__: object) -> None:
        raise ZeroDivisionError

    with pytest.MonkeyPatch.context() as patch, capture_logs() as logs:
        patch.setattr(FakeProducer, "produce", fails)
        assert [Retry("internal error: ZeroDivisionError")] == send(SETTINGS, batch(tracked(1)))
    assert ["send_failed"] == [each["event"] for each in logs if each.get("exc_info")]


def test_only_the_messages_that_are_not_stored_are_retried(brokers: Brokers) -> None:
    brokers.judge = failing(KafkaError(KafkaError.NOT_ENOUGH_REPLICAS, "Broker: no"), 1, 2)
    (outcome,) = send(SETTINGS, batch(*(tracked(n) for n in range(4))))
    why = Retry("topic pixels: Broker: no")
    assert Partial.of({1: why, 2: why}) == outcome


def test_a_held_batch_is_sent_again_without_the_events_that_are_stored(brokers: Brokers) -> None:
    brokers.judge = failing(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, "Broker: no"), 1)
    whole = batch(tracked(0), tracked(1), tracked(2))

    async def main() -> None:
        sender = KafkaSender(SETTINGS)
        await sender.open({})
        for _ in range(2):
            assert Held("topic pixels: Broker: no") == await sender.send(whole)
        brokers.judge = is_stored
        assert Accepted() == await sender.send(whole)
        assert Accepted() == await sender.send(batch(tracked(3), name="b2"))
        await sender.close()

    run(main())
    assert [tracked(n) for n in (0, 2, 1, 3)] == brokers.stored
    sent = [each.values for each in brokers.producers]
    assert [[tracked(0), tracked(1), tracked(2)], [tracked(1)], [tracked(1), tracked(3)]] == sent


def test_the_stored_events_of_the_last_16_held_batches_are_remembered(brokers: Brokers) -> None:
    bad = [tracked(100 + n) for n in range(17)]
    error = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, "Broker: no")
    brokers.judge = lambda _, value: error if value in bad else None
    held = [batch(tracked(n), bad[n], name=f"b{n}") for n in range(17)]
    send(SETTINGS, *held, held[0], held[16])
    assert [tracked(0), bad[0]] == brokers.producers[17].values
    assert [bad[16]] == brokers.producers[18].values


def test_a_part_of_a_held_batch_is_sent_without_the_events_that_are_stored(
    brokers: Brokers,
) -> None:
    brokers.judge = failing(KafkaError(KafkaError.TOPIC_EXCEPTION, "Broker: no"), 1)
    part = batch(tracked(1), tracked(2), name="b1-part")
    part.root, part.numbers = "b1", [1, 2]
    outcomes = send(SETTINGS, batch(tracked(0), tracked(1), tracked(2)), part)
    assert [Held("topic pixels: Broker: no")] * 2 == outcomes
    assert [tracked(1)] == brokers.producers[1].values


def test_only_events_that_are_too_large_are_rejected_of_a_message_set_that_is(
    brokers: Brokers,
) -> None:
    too_large = KafkaError(KafkaError.MSG_SIZE_TOO_LARGE, "Broker: Message size too large")

    def judge(producer: FakeProducer, value: bytes) -> KafkaError | None:
        is_alone = producer.properties.get("batch.num.messages") == 1
        return None if is_alone and value != tracked(1) else too_large

    brokers.judge = judge
    with capture_logs() as logs:
        first, _ = send(SETTINGS, batch(tracked(0), tracked(1)), batch(tracked(2), name="b2"))
    rejected = Rejected("topic pixels: Broker: Message size too large")
    assert Partial.of({1: rejected}) == first
    assert [tracked(0), tracked(2)] == brokers.stored
    sizes = [each.properties["batch.size"] for each in brokers.producers]
    assert [1_000_000, 1_000_000, 500_000] == sizes
    assert [500_000, 250_000] == [each["max_bytes"] for each in logs]


def test_a_message_of_several_events_is_divided_until_it_is_small_enough(brokers: Brokers) -> None:
    events = [tracked(n, text="x" * 300) for n in range(40)]
    events[7] = tracked(7, text="x" * 3000)
    too_large = KafkaError(KafkaError.MSG_SIZE_TOO_LARGE, "Broker: no")
    brokers.judge = lambda _, value: too_large if len(value) > 2000 else None
    options = {"message.max.bytes": "20000"}
    (outcome,) = send(changed(message="batch", options=options), batch(*events))
    assert Partial.of({7: Rejected("topic pixels: Broker: no")}) == outcome
    stored = [line for value in brokers.stored for line in value.splitlines()]
    assert sorted(events[:7] + events[8:]) == sorted(stored)


def test_a_message_that_librdkafka_does_not_accept_is_rejected(brokers: Brokers) -> None:
    brokers.refuses = KafkaError(KafkaError.MSG_SIZE_TOO_LARGE, "Message too large")
    assert [Partial.of({0: Rejected("topic pixels: Message too large")})] == send(
        SETTINGS, batch(tracked(0))
    )


def test_a_full_queue_delays_messages_and_drops_none(brokers: Brokers) -> None:
    async def main() -> Outcome:
        sender = KafkaSender(SETTINGS)
        await sender.open({})
        await sender.send(batch(tracked(0)))
        brokers.producers[0].space = 3
        outcome = await sender.send(batch(*(tracked(n) for n in range(1, 50)), name="b2"))
        await sender.close()
        return outcome

    assert Accepted() == run(main())
    assert [tracked(n) for n in range(50)] == brokers.stored


def test_batches_that_are_sent_at_the_same_time_stay_in_order(brokers: Brokers) -> None:
    async def main() -> None:
        sender = KafkaSender(changed(concurrency=4))
        await sender.open({})
        await sender.send(batch(tracked(0)))
        brokers.producers[0].hesitates = True
        events = [[tracked(10 * n + each) for each in range(10)] for n in range(1, 5)]
        whole = [batch(*own, name=f"b{n}") for n, own in enumerate(events)]
        assert [Accepted()] * 4 == await asyncio.gather(*map(sender.send, whole))
        await sender.close()

    run(main())
    assert [tracked(0), *(tracked(n) for n in range(10, 50))] == brokers.stored


def report_errors(*errors: KafkaError) -> Callable[[FakeProducer], None]:
    """Return a function that reports errors as confluent-kafka does; `poll` raises fatal ones."""

    def report(producer: FakeProducer) -> None:
        for each in errors:
            if each.fatal():
                producer.brokers.events.clear()
                raise KafkaException(each)
            producer.properties["error_cb"](each)

    return report


DENIED = KafkaError(
    KafkaError._AUTHENTICATION,
    "sasl_ssl://192.0.2.1:9092/1: SASL authentication error: no (after 3ms in state AUTH_REQ)",
)
UNTRUSTED = KafkaError(KafkaError._SSL, "192.0.2.1:9092/1: SSL routines::certificate verify failed")
NO_CERTIFICATE = KafkaError(
    KafkaError._TRANSPORT, "192.0.2.1:9092/1: SSL routines::alert bad certificate"
)
ALL_DOWN = KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down")
UNREACHABLE = KafkaError(
    KafkaError._TRANSPORT,
    "192.0.2.1:9092/1: Connect failed"
    " (after 0ms in state CONNECT, 1 identical error(s) suppressed)",
)
FATAL = KafkaError(KafkaError._FATAL, "Fatal error: sequence", fatal=True)


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([DENIED, ALL_DOWN], "sasl_ssl://192.0.2.1:9092/1: SASL authentication error: no"),
        ([UNTRUSTED, ALL_DOWN], "192.0.2.1:9092/1: SSL routines::certificate verify failed"),
        ([NO_CERTIFICATE, ALL_DOWN], "192.0.2.1:9092/1: SSL routines::alert bad certificate"),
        ([FATAL], "Fatal error: sequence"),
    ],
    ids=["denied", "untrusted", "no certificate", "fatal"],
)
def test_an_error_that_ends_the_producer_holds_the_destination_at_once(
    brokers: Brokers, errors: list[KafkaError], expected: str
) -> None:
    brokers.is_silent = True
    brokers.events = [report_errors(*errors)]

    async def main() -> None:
        sender = KafkaSender(changed(timeout_s=86_400.0))
        await sender.open({})
        assert Held(expected) == await sender.send(batch(tracked(0)))
        brokers.is_silent = False
        assert Accepted() == await sender.send(batch(tracked(0)))
        await sender.close()

    run(main())
    assert 2 == len(brokers.producers)


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([], Retry("no report within 30 s")),
        ([UNREACHABLE, ALL_DOWN], Retry("no report within 30 s: 192.0.2.1:9092/1: Connect failed")),
        ([DENIED], Held("sasl_ssl://192.0.2.1:9092/1: SASL authentication error: no")),
    ],
    ids=["no cause", "unreachable", "denied"],
)
def test_a_message_that_times_out_names_the_last_error_of_a_connection(
    brokers: Brokers, errors: list[KafkaError], expected: Outcome
) -> None:
    brokers.judge = failing(KafkaError(KafkaError._MSG_TIMED_OUT, "Local: Message timed out"))
    brokers.events = [report_errors(*errors)]
    assert [expected] == send(SETTINGS, batch(tracked(0), tracked(1)))


def test_a_broker_that_denied_a_connection_once_does_not_hold_the_destination_later(
    brokers: Brokers,
) -> None:
    timed_out = KafkaError(KafkaError._MSG_TIMED_OUT, "Local: Message timed out")
    brokers.judge = failing(timed_out, 1)
    brokers.events = [report_errors(DENIED)]
    expected = [Accepted(), Retry("no report within 30 s")]
    assert expected == send(SETTINGS, batch(tracked(0)), batch(tracked(1), name="b2"))


def test_a_message_that_times_out_names_the_last_lost_connection(brokers: Brokers) -> None:
    def report(producer: FakeProducer) -> None:
        line = "[thrd:192.0.2.1:9092/1]: 192.0.2.1:9092/1: Disconnected (after 3ms in state UP)"
        producer.properties["logger"].log(20, "%s [%s] %s", "FAIL", "rdkafka#producer-1", line)

    brokers.judge = failing(KafkaError(KafkaError._MSG_TIMED_OUT, "Local: Message timed out"))
    brokers.events = [report]
    expected = Retry("no report within 30 s: 192.0.2.1:9092/1: Disconnected")
    assert [expected] == send(SETTINGS, batch(tracked(0)))


@pytest.mark.parametrize("error", [UNREACHABLE, DENIED], ids=["unreachable", "denied"])
def test_an_error_before_a_delivered_batch_does_not_explain_a_later_failure(
    brokers: Brokers, error: KafkaError
) -> None:
    brokers.events = [report_errors(error)]
    brokers.judge = failing(KafkaError(KafkaError._MSG_TIMED_OUT, "Local: Message timed out"), 1)
    outcomes = send(SETTINGS, batch(tracked(0)), batch(tracked(1), name="b2"))
    assert [Accepted(), Retry("no report within 30 s")] == outcomes


def test_messages_without_a_report_have_failed() -> None:
    async def main() -> None:
        reports = Reports()
        first, second = Messages(SETTINGS).of(batch(tracked(0), tracked(1)), 10**6)
        reports.expect(first)(None, None)
        reports.expect(second)
        await reports.wait(0.0, asyncio.get_running_loop().create_future())
        assert [(1, None, "pixels")] == [tuple(each) for each in reports.failed.values()]
        assert [1] == list(reports.failed)

    run(main())


def test_closing_ends_attempts_and_purges_their_messages(brokers: Brokers) -> None:
    brokers.is_silent = True

    async def main() -> None:
        sender = KafkaSender(SETTINGS)
        await sender.open({})
        sending = asyncio.create_task(sender.send(batch(tracked(0))))
        await until(lambda: brokers.producers and brokers.producers[0].values)
        await sender.close()
        assert Retry("the producer was replaced") == await sending

    run(main())
    assert 0 == len(brokers.producers[0])


def test_a_producer_is_replaced_after_an_unexpected_error(brokers: Brokers) -> None:
    def fail(_producer: FakeProducer) -> None:
        brokers.events.clear()
        raise RuntimeError("a bug")

    brokers.events = [fail]
    with capture_logs() as logs:
        first, second = send(SETTINGS, batch(tracked(0)), batch(tracked(0)))
    assert Retry("the producer failed because of an unexpected error") == first
    assert Accepted() == second
    assert ["kafka_client_failed"] == [each["event"] for each in logs]
    assert 2 == len(brokers.producers)


def threads() -> set[str]:
    """Return the ids of all threads of this process, with those of librdkafka."""
    return {each.name for each in Path("/proc/self/task").iterdir()}


def test_closing_ends_the_threads_of_librdkafka_without_a_garbage_collection() -> None:
    async def main() -> None:
        before = threads()
        sender = KafkaSender(changed(brokers=("127.0.0.1:1",)))  # nothing listens
        await sender.open({})
        sending = asyncio.create_task(sender.send(batch(tracked(0))))
        await until(lambda: threads() - before)  # those of an earlier test may end meanwhile
        await sender.close()
        assert Retry("the producer was replaced") == await sending
        assert set() == threads() - before

    gc.disable()
    try:
        run(main())
    finally:
        gc.enable()


def test_properties_that_librdkafka_does_not_accept_hold_the_destination() -> None:
    (outcome,) = send(changed(options={"no.such.property": "1"}), batch(tracked(0)))
    assert Held('No such configuration property: "no.such.property"') == outcome


def test_a_file_for_tls_that_cannot_be_used_holds_the_destination() -> None:
    settings = changed(security="ssl", tls_ca="/nonexistent/ca.pem")
    (outcome,) = send(settings, batch(tracked(0)))
    assert Held("tls_ca /nonexistent/ca.pem: No such file or directory") == outcome


# --- logs and figures -----------------------------------------------------------------------------


def test_lines_of_librdkafka_are_logged_as_errors_that_are_sampled(brokers: Brokers) -> None:
    def report(producer: FakeProducer) -> None:
        log = producer.properties["logger"].log
        log(40, "%s [%s] %s", "FAIL", "rdkafka#producer-1", "Connect failed")
        what = "[thrd:app]: Configuration property enable.gapless.guarantee is experimental: When"
        log(40, "%s [%s] %s", "CONFWARN", "rdkafka#producer-1", what)
        log(20, "%s [%s] %s", "PARTCNT", "rdkafka#producer-1", "partition count changed")

    brokers.events = [report]
    with capture_logs() as logs:
        send(SETTINGS, batch(tracked(0)))
    found = [
        (each["log_level"], each["event"], each.get("error", each.get("line"))) for each in logs
    ]
    assert [
        ("warning", "kafka_warning", "FAIL [rdkafka#producer-1] Connect failed"),
        ("info", "kafka_notice", "PARTCNT [rdkafka#producer-1] partition count changed"),
    ] == found
    assert {"stream"} == {each["destination"] for each in logs}


def statistics(retries: int, round_trip_us: int = 1500, **more: object) -> str:
    broker = {
        "nodeid": 1,
        "nodename": "kafka-1:9092",
        "rtt": {"avg": round_trip_us, "p99": 3000},
        "txretries": retries,
        "outbuf_msg_cnt": 2,
        "waitresp_msg_cnt": 3,
    }
    bootstrap = {"nodeid": -1, "nodename": "kafka:9092", "rtt": {"avg": 9}, "txretries": 5}
    brokers = {"kafka-1:9092/1": broker, "kafka:9092/bootstrap": bootstrap}
    return json.dumps(
        {"name": "p", "msg_cnt": 7, "msg_size": 900, "brokers": brokers, "topics": {}} | more
    )


def test_statistics_of_librdkafka_become_figures(brokers: Brokers) -> None:
    def report(*reports: str) -> Callable[[FakeProducer], None]:
        def read(producer: FakeProducer) -> None:
            for each in reports:
                producer.properties["stats_cb"](each)

        return read

    async def main() -> None:
        sender = KafkaSender(SETTINGS)
        await sender.open({})
        assert {} == sender.figures()
        brokers.events = [report(statistics(2), statistics(6, round_trip_us=0), "[]")]
        await sender.send(batch(tracked(0)))
        assert {
            "kafka_queued_messages": 7,
            "kafka_queued_bytes": 900,
            "kafka_brokers": {"kafka-1:9092": {"queued_messages": 5, "round_trip_s": 0.0015}},
        } == sender.figures()
        assert {"kafka-1:9092": 6} == sender.attempts.figures()["broker_retries"]
        await sender.close()
        assert {} == sender.figures()
        brokers.events = [report(statistics(1))]
        await sender.send(batch(tracked(1)))
        assert {"kafka-1:9092": 7} == sender.attempts.figures()["broker_retries"]
        await sender.close()

    run(main())


# --- librdkafka -----------------------------------------------------------------------------------


def test_librdkafka_delivers_both_kinds_of_messages_to_its_own_simulation() -> None:
    options = {"test.mock.num.brokers": "3"}
    events = [tracked(n) for n in range(500)]
    for kind in ("event", "batch"):
        settings = changed(brokers=("127.0.0.1:1",), message=kind, options=options)
        assert [Accepted()] * 2 == send(settings, batch(*events), batch(*events, name="b2"))


def test_a_secret_in_the_words_of_a_broker_is_masked(brokers: Brokers) -> None:
    brokers.judge = failing(KafkaError(KafkaError.TOPIC_EXCEPTION, "Broker: no s3cr3t-word"))
    settings = changed(security="sasl_ssl", username="u", password="s3cr3t-word")

    async def main() -> Outcome:
        sender = KafkaSender(settings)
        sender.redactor = Redactor(Config(destinations=(settings,)))
        await sender.open({})
        outcome = await sender.deliver(batch(tracked(0)))
        await sender.close()
        return outcome

    assert Held("topic pixels: Broker: no …") == run(main())
