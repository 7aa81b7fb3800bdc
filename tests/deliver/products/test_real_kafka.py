"""Events through a real Kafka broker: what consumers read, and what faults of a broker do."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pixelfast.config import Config, KafkaDestination
from pixelfast.deliver.destinations.kafka import KafkaSender
from pixelfast.deliver.engine import Engine
from pixelfast.deliver.outcomes import Outcome, Retry
from pixelfast.spool import DataDir
from tests.deliver.products.engines import SHORT, ask, dead_letters, deliver
from tests.deliver.products.events import message_id, tracked
from tests.deliver.products.kafka_outage import SETTINGS, survive_outage
from tests.deliver.products.real.kafka_broker import PASSWORD, USER, KafkaBroker
from tests.deliver.products.topics import Topics
from tests.deliver.runners import make_engine, running
from tests.deliver.running import run
from tests.deliver.senders import batch
from tests.servers import Server, serving
from tests.spools import Feed, open_data
from tests.waiting import until

RECEIVED_MS = 1_769_817_600_000  # 2026-01-31T00:00:00Z
QUICK_LOOKUP = {"topic.metadata.propagation.max.ms": "300"}


@pytest.fixture
def data(tmp_path: Path) -> DataDir:
    return open_data(tmp_path / "data")


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    """A name for the topic of a test."""
    return f"pixels-{abs(hash(request.node.name)):x}"


def destination(kafka: KafkaBroker, topic: str, **more: Any) -> KafkaDestination:
    settings = {"name": "stream", "brokers": (kafka.address,), "topic": topic, **SHORT}
    return KafkaDestination(**{**settings, **more})


def feed(data: DataDir, *events: bytes, source: str = "web") -> None:
    with Feed(data, segment_bytes=2**20) as slot:
        slot.write(*events, source=source)


def figures_of(engine: Engine) -> dict[str, Any]:
    return engine.stats()["destinations"]["stream"]


# --- what consumers read --------------------------------------------------------------------------


def test_each_event_is_a_message_with_a_key_headers_and_its_time(
    kafka: KafkaBroker, topics: Topics, topic: str, data: DataDir
) -> None:
    topics.create(topic)
    events = [tracked(n, userId=f"u{n % 7}") for n in range(400)]
    figures = deliver(destination(kafka, topic), data, events)
    assert ("healthy", 400) == (figures["state"], figures["delivered"])
    messages = topics.read(topic)
    assert sorted(events) == sorted(each.value for each in messages)
    assert {RECEIVED_MS} == {each.timestamp_ms for each in messages}
    places: dict[bytes | None, set[int]] = {}
    orders: dict[bytes | None, list[int]] = {}
    for each in messages:
        event = json.loads(each.value)
        expected = {
            "messageId": event["messageId"].encode(),
            "type": b"track",
            "source": b"web",
            "content-type": b"application/json",
        }
        assert (event["userId"].encode(), expected) == (each.key, each.headers)
        places.setdefault(each.key, set()).add(each.partition)
        orders.setdefault(each.key, []).append(event["properties"]["number"])
    assert {1} == {len(partitions) for partitions in places.values()}
    assert all(order == sorted(order) for order in orders.values())


def test_consumers_read_keys_and_headers_with_control_characters_as_they_are(
    kafka: KafkaBroker, topics: Topics, topic: str, data: DataDir
) -> None:
    topics.create(topic)
    ids = [f"m\0{n}\x7f\n" for n in range(3)]
    events = [tracked(n, messageId=one, userId=f"u\0{n}") for n, one in enumerate(ids)]
    deliver(destination(kafka, topic), data, events)
    expected = {(one.encode(), f"u\0{n}".encode()) for n, one in enumerate(ids)}
    assert expected == {(each.headers["messageId"], each.key) for each in topics.read(topic)}


def test_a_batch_is_one_message_of_a_source_in_its_topic(
    kafka: KafkaBroker, topics: Topics, topic: str, data: DataDir
) -> None:
    for source in ("web", "mail"):
        topics.create(f"{topic}.{source}")
        feed(data, *(tracked(n) for n in range(100)), source=source)
    options = {"message.max.bytes": "9000"}
    stream = destination(
        kafka, f"{topic}.{{source}}", message="batch", key="source", options=options
    )
    figures = deliver(stream, data)
    assert ("healthy", 200) == (figures["state"], figures["delivered"])
    for source in ("web", "mail"):
        messages = topics.read(f"{topic}.{source}")
        assert 3 < len(messages) < 20
        assert all(len(each.value) < 9000 for each in messages)
        assert {source.encode()} == {each.key for each in messages}
        for each in messages:
            assert each.value.endswith(b"}\n")
            assert {
                "source": source.encode(),
                "content-type": b"application/x-ndjson",
                "events": str(each.value.count(b"\n")).encode(),
            } == each.headers
        lines = [line for each in messages for line in each.value.splitlines()]
        assert [tracked(n) for n in range(100)] == lines


@pytest.mark.parametrize("message", ["event", "batch"])
def test_other_programs_read_the_topic(
    kafka: KafkaBroker,
    topics: Topics,
    topic: str,
    data: DataDir,
    clickhouse_engine: str,
    message: str,
) -> None:
    if shutil.which("kcat") is None:
        pytest.skip("kcat is not installed: apt-get install kcat")
    topics.create(topic)
    events = [tracked(n) for n in range(300)]
    deliver(destination(kafka, topic, message=message), data, events)
    command = ["kcat", "-b", kafka.address, "-t", topic, "-C", "-e", "-q", "-f"]
    form = "%k\t%h\t%T\t%s\n" if message == "event" else "%s"
    done = subprocess.run([*command, form], capture_output=True, check=True, timeout=30.0)
    lines = done.stdout.splitlines()
    if message == "event":
        parts = {line.rpartition(b"\t")[2]: line.rpartition(b"\t")[0] for line in lines}
        kind = "type=track,source=web,content-type=application/json"
        head = f"a7\tmessageId={message_id(7)},{kind}\t{RECEIVED_MS}"
        assert head.encode() == parts[events[7]]
        lines = list(parts)
    assert sorted(events) == sorted(lines)
    rows = b"\n".join(lines).decode()
    counts = "count() AS rows, uniqExact(messageId) AS ids"
    query = f"SELECT {counts} FROM format(JSONEachRow, '{rows}')"  # noqa: S608 - made up
    assert {"rows": 300, "ids": 300} == {
        name: int(number) for name, number in ask(clickhouse_engine, "POST", query).items()
    }


# --- faults that a setting causes -----------------------------------------------------------------


def test_a_missing_topic_holds_the_destination_until_it_is_created(
    kafka: KafkaBroker, topics: Topics, topic: str, data: DataDir
) -> None:
    stream = destination(kafka, topic, options=QUICK_LOOKUP)
    figures = deliver(stream, data, [tracked(n) for n in range(200)], "held")
    assert ("held", 0) == (figures["state"], figures.get("delivered", 0))
    assert f"topic {topic}: Broker: Unknown topic or partition" == figures["last_error"]
    topics.create(topic)
    figures = deliver(stream, data)
    assert (200, 0) == (figures["delivered"], figures.get("dead", 0))
    assert {message_id(n): 1 for n in range(200)} == topics.counts(topic)


def test_the_events_of_other_topics_are_not_repeated_while_one_topic_is_missing(
    kafka: KafkaBroker, topics: Topics, topic: str, data: DataDir
) -> None:
    topics.create(f"{topic}.web")
    for source in ("web", "mail", "web"):
        feed(data, *(tracked(n) for n in range(20)), source=source)
    stream = destination(kafka, f"{topic}.{{source}}", options=QUICK_LOOKUP)

    async def main() -> None:
        engine = make_engine(data, config=Config(destinations=(stream,)))
        async with running(engine):
            await until(lambda: figures_of(engine).get("failures", 0) >= 4)
            await asyncio.to_thread(topics.create, f"{topic}.mail")
            await until(lambda: figures_of(engine)["delivered"] == 60)

    run(main())
    assert {message_id(n): 2 for n in range(20)} == topics.counts(f"{topic}.web")
    assert {message_id(n): 1 for n in range(20)} == topics.counts(f"{topic}.mail")


def test_a_deleted_topic_holds_the_destination_until_it_is_created_again(
    kafka: KafkaBroker, topics: Topics, topic: str, data: DataDir
) -> None:
    topics.create(topic)
    stream = destination(kafka, topic, options=QUICK_LOOKUP)

    async def main() -> None:
        engine = make_engine(data, config=Config(destinations=(stream,)))
        async with running(engine):
            with Feed(data, segment_bytes=2**20) as slot:
                slot.write(*(tracked(n) for n in range(100)))
                await until(lambda: figures_of(engine).get("delivered") == 100)
                await asyncio.to_thread(topics.delete, topic)
                slot.write(*(tracked(n) for n in range(100, 200)))
                await until(lambda: figures_of(engine)["state"] == "held")
                await asyncio.to_thread(topics.create, topic)
                slot.write(*(tracked(n) for n in range(200, 300)))
                await until(lambda: figures_of(engine)["delivered"] == 300)

    run(main())
    assert {message_id(n) for n in range(100, 300)} == set(topics.counts(topic))


def test_a_certificate_a_password_and_permissions_are_needed_where_the_broker_asks_for_them(
    kafka: KafkaBroker, topics: Topics, topic: str, data: DataDir
) -> None:
    topics.create(topic)
    secured = {
        "brokers": (kafka.sasl_address,),
        "security": "sasl_ssl",
        "tls_ca": kafka.ca,
        "tls_cert": kafka.client_cert,
        "tls_key": kafka.client_key,
        "username": USER,
        "password": PASSWORD,
    }

    def held(**more: Any) -> str:
        figures = deliver(destination(kafka, topic, **{**secured, **more}), data, state="held")
        assert ("held", 0) == (figures["state"], figures.get("delivered", 0))
        return str(figures["last_error"])

    feed(data, *(tracked(n) for n in range(100)))
    wrong = held(password="wr0ng-of-scram")
    assert "SASL authentication error: Authentication failed" in wrong
    assert "wr0ng" not in wrong
    assert "certificate verify failed" in held(tls_ca="")
    assert "alert bad certificate" in held(tls_cert="", tls_key="")
    assert f"tls_ca {kafka.ca}.missing: No such file or directory" in held(
        tls_ca=f"{kafka.ca}.missing"
    )
    assert f"topic {topic}: Broker: Topic authorization failed" == held()
    topics.allow(USER, topic)
    figures = deliver(destination(kafka, topic, **secured), data)
    assert (100, 0) == (figures["delivered"], figures.get("dead", 0))
    assert {message_id(n): 1 for n in range(100)} == topics.counts(topic)


def test_a_fatal_error_holds_the_destination_with_its_words(
    kafka: KafkaBroker, topic: str, data: DataDir
) -> None:
    feed(data, tracked(0))
    wrong = destination(kafka, topic, brokers=(kafka.controller_address,))
    figures = deliver(wrong, data, state="held")
    assert "held" == figures["state"]
    assert figures["last_error"].startswith("Idempotent producer not supported")


# --- faults of events -----------------------------------------------------------------------------


def large(number: int, size_bytes: int) -> bytes:
    return tracked(number, properties={"number": number, "text": os.urandom(size_bytes // 2).hex()})


@pytest.mark.parametrize("message", ["event", "batch"])
def test_only_events_that_are_too_large_themselves_become_dead_letters(
    kafka: KafkaBroker, topics: Topics, topic: str, data: DataDir, message: str
) -> None:
    topics.create(topic, max_message_bytes="3000")
    events = [tracked(n) for n in range(120)]
    for n in (3, 50, 51):
        events[n] = large(n, 5000)
    stream = destination(kafka, topic, message=message, compression="none")
    figures = deliver(stream, data, events)
    assert ("healthy", 117, 3) == tuple(figures[name] for name in ("state", "delivered", "dead"))
    letters = dead_letters(data, "stream")
    assert {message_id(n) for n in (3, 50, 51)} == {each.event["messageId"] for each in letters}
    assert {f"topic {topic}: Broker: Message size too large"} == {each.reason for each in letters}
    good = {message_id(n): 1 for n in range(120) if n not in (3, 50, 51)}
    assert good == topics.counts(topic)


def test_an_event_that_the_topic_does_not_accept_is_rejected_alone(
    kafka: KafkaBroker, topics: Topics, topic: str, data: DataDir
) -> None:
    topics.create(topic, cleanup_policy="compact")  # requires keys
    events = [tracked(n, anonymousId=f"a{n}" if n % 40 else "") for n in range(1, 121)]
    figures = deliver(destination(kafka, topic), data, events)
    assert ("healthy", 117, 3) == tuple(figures[name] for name in ("state", "delivered", "dead"))
    letters = dead_letters(data, "stream")
    assert {message_id(n) for n in (40, 80, 120)} == {each.event["messageId"] for each in letters}
    assert {message_id(n) for n in range(1, 121) if n % 40} == set(topics.counts(topic))


# --- faults of brokers ----------------------------------------------------------------------------


def test_events_that_a_frozen_broker_did_not_store_are_retried(
    kafka: KafkaBroker, topics: Topics, topic: str, data: DataDir
) -> None:
    topics.create(topic)

    async def main() -> None:
        stream = destination(kafka, topic, timeout_s=1.0)
        engine = make_engine(data, config=Config(destinations=(stream,)))
        async with running(engine):
            with Feed(data, segment_bytes=2**20) as slot:
                slot.write(*(tracked(n) for n in range(100)))
                await until(lambda: figures_of(engine).get("delivered") == 100)
                kafka.freeze()
                slot.write(*(tracked(n) for n in range(100, 200)))
                await until(lambda: "no report within 1 s" in str(figures_of(engine)["last_error"]))
                kafka.thaw()
                await until(lambda: figures_of(engine)["delivered"] == 200)

    run(main())
    counts = topics.counts(topic)
    assert {message_id(n) for n in range(200)} == set(counts)
    assert {1} == {counts[message_id(n)] for n in range(100)}


def test_closing_does_not_wait_for_a_frozen_broker(
    kafka: KafkaBroker, topics: Topics, topic: str
) -> None:
    topics.create(topic)

    async def main() -> None:
        sender = KafkaSender(destination(kafka, topic))
        await sender.open({})
        await sender.send(batch([tracked(0)]))
        kafka.freeze()
        has_begun = asyncio.Event()

        async def send() -> Outcome:
            has_begun.set()
            return await sender.send(batch([tracked(1)], "b2"))

        sending = asyncio.create_task(send())
        await has_begun.wait()
        async with asyncio.timeout(10.0):
            await sender.close()
            assert Retry("the producer was replaced") == await sending

    run(main())


@pytest.fixture
def server(kafka: KafkaBroker, topics: Topics, topic: str, tmp_path: Path) -> Iterator[Server]:
    topics.create(topic, partitions=4)
    settings = SETTINGS.format(address=kafka.address, topic=topic)
    with serving(tmp_path / "data", settings=settings) as server:
        yield server


def test_no_event_is_lost_when_the_broker_and_delivery_are_killed_under_load(
    kafka: KafkaBroker, topics: Topics, topic: str, server: Server
) -> None:
    outage = survive_outage(kafka, topic, server)
    assert set() == outage.lost
    assert set() == outage.stored.keys() - outage.sent
    assert 0 == server.check_sums()["stream"]["dead_events"]
    assert 0 < server.log_events().count("kafka_warning") < 20
    ids: dict[str, set[str]] = {}
    for each in topics.events(topic):
        ids.setdefault(each["event"], set()).add(each["messageId"])
    assert {1} == {len(of_event) for of_event in ids.values()}, "duplicates have the same messageId"
    print(f"{outage.stored.total()} messages of {len(outage.acked)} events")
