"""Rejections of pixels: status, reason and counters."""

from __future__ import annotations

import errno
from collections.abc import Callable, Generator

import pytest
import structlog.testing

from tests.collect.wire import (
    CORS_HEADERS,
    GIF,
    ORIGIN,
    PAGE,
    PIXEL_HEADERS,
    TRACK,
    ask,
    fail_commit,
    http,
    read_responses,
    statuses,
)
from tests.fakes import FakeCollector

BAD_QUERIES = [
    (b"track", b"", 400, "no-write-key"),
    (b"page", b"userId=u", 400, "no-write-key"),
    (b"track", b"writeKey=&userId=u&event=E", 400, "no-write-key"),
    (b"track", b"writeKey&userId=u&event=E", 400, "no-write-key"),
    (b"track", b"writekey=wk-demo&userId=u&event=E", 400, "no-write-key"),
    (b"track", b"writeKey=&writeKey=%0A&userId=u&event=E", 400, "no-write-key"),
    (b"track", b"writeKey=WK-DEMO&userId=u&event=E", 401, "unknown-write-key"),
    (b"track", b"writeKey=wk%20-demo&userId=u&event=E", 401, "unknown-write-key"),
    (b"track", b"writeKey=&writeKey=%20&userId=u&event=E", 400, "no-write-key"),
    (b"track", b"writeKey=wk-demo%20x&userId=u&event=E", 401, "unknown-write-key"),
    (b"track", b"writeKey=%FF&userId=u&event=E", 401, "unknown-write-key"),
    (b"track", b"writeKey=wk-no&writeKey=wk-demo&userId=u&event=E", 401, "unknown-write-key"),
    (b"track", b"writeKey=wk-demo&event=E", 400, "no-identity"),
    (b"page", b"writeKey=wk-demo", 400, "no-identity"),
    (b"page", b"writeKey=wk-demo&userId=%20&anonymousId=%22%22", 400, "no-identity"),
    (b"page", b"writeKey=wk-demo&userId.x=u", 400, "no-identity"),
    (b"page", b"writeKey=wk-demo&userId=undefined", 400, "placeholder-identity"),
    (b"page", b"writeKey=wk-demo&userId={{user.id}}", 400, "placeholder-identity"),
    (b"track", b"writeKey=wk-demo&userId=u", 400, "no-event"),
    (b"track", b"writeKey=wk-demo&userId=u&event=", 400, "no-event"),
    (b"track", b"writeKey=wk-demo&userId=u&event=%E2%80%8B+", 400, "no-event"),
    (b"track", b"writeKey=wk-demo&userId=u&event=E" + b"&a=1" * 254, 400, "too-many-parameters"),
    (b"page", b"writeKey=wk-demo&userId=u&" + b"a." * 32 + b"a=1", 400, "too-deep"),
    (b"page", b"writeKey=wk-demo&userId=u&properties.a=" + b'"' * 20_000, 413, "event-too-large"),
    (b"page", b"writeKey=wk-demo&userId=u&_=" + b"a" * 32_768, 414, "target-too-long"),
]


@pytest.mark.parametrize(("route", "query", "status", "reason"), BAD_QUERIES)
def test_a_bad_query_is_rejected(route: bytes, query: bytes, status: int, reason: str) -> None:
    fake = FakeCollector()
    response = ask(fake, http(b"/pixel/v1/%b?%b" % (route, query)))
    assert (status, reason, GIF) == (response.status, response.reason, response.body)
    assert PIXEL_HEADERS.items() <= response.headers.items()
    assert "Retry-After" not in response.headers
    assert [] == fake.disk.events()
    assert {status: 1} == fake.connections.responses


@pytest.mark.parametrize(
    "query",
    [
        b"writeKey=wk-demo&userId=u&event=E" + b"&a=1" * 253,
        b"writeKey=wk-demo&userId=u&event=E" + b"&&a=1" * 253 + b"&&",
        b"writeKey=wk-demo&userId=u&event=E&" + b"a." * 31 + b"a=1",
        b"writeKey=wk-demo&userId=u&event=E&writeKey=wk-no",
        b"%77riteKey=wk-demo&userId=u&event=E",
        b"writeKey=&+writeKey%0A=%20wk-demo%0A&userId=u&event=E",
        b"writeKey=&writeKey=wk-demo&userId=u&event=E",
        b"%20writeKey%0A=%09wk-demo%20%0D%0A&amp;userId=u&AMP;event=E",
    ],
    ids=[
        "256-parameters",
        "empty-pieces",
        "32-segments",
        "second",
        "escaped",
        "blank",
        "first",
        "blanks",
    ],
)
def test_queries_at_the_limits_are_accepted(query: bytes) -> None:
    assert 200 == ask(FakeCollector(), http(b"/pixel/v1/track?" + query)).status


def test_a_rejection_does_not_end_the_connection() -> None:
    fake = FakeCollector()
    bad = [http(b"/pixel/v1/%b?%b" % (route, query)) for route, query, *_ in BAD_QUERIES[:-1]]
    expected = [status for *_, status, _ in BAD_QUERIES[:-1]]
    assert [*expected, 200] == statuses(fake.exchange(b"".join(bad) + http()))


def fill_the_spool(fake: FakeCollector) -> None:
    fake.disk.other_bytes = 2**40
    fake.loop.advance(1.5)


def break_the_disk(error: int) -> Callable[[FakeCollector], None]:
    def break_it(fake: FakeCollector) -> None:
        connection, _ = fake.connect()
        connection.data_received(http())
        fake.loop.turn()
        fail_commit(fake, error)

    return break_it


def overload(fake: FakeCollector) -> None:
    connection, _ = fake.connect()
    connection.data_received(http() * 2)


def lose_the_brokers(fake: FakeCollector) -> None:
    fake.collector.writer.set_replicated(False)


UNAVAILABLE = {
    "spool-full": fill_the_spool,
    "disk-full": break_the_disk(errno.ENOSPC),
    "disk-error": break_the_disk(errno.EIO),
    "spool-overloaded": overload,
    "brokers-unavailable": lose_the_brokers,
}


@pytest.mark.parametrize("reason", UNAVAILABLE)
@pytest.mark.parametrize("origin", [False, True])
def test_an_event_that_cannot_be_stored_gets_503_immediately(reason: str, origin: bool) -> None:
    fake = FakeCollector(writer={"max_waiting_bytes": 600})
    UNAVAILABLE[reason](fake)
    connection, transport = fake.connect()
    connection.data_received(http(headers=[b"Origin: " + ORIGIN] if origin else []))
    (response,) = read_responses(transport.sent)
    assert (503, reason, GIF) == (response.status, response.reason, response.body)
    assert "1" == response.headers["Retry-After"]
    assert PIXEL_HEADERS.items() <= response.headers.items()
    assert origin == (CORS_HEADERS.items() <= response.headers.items())
    assert not response.closes


def test_enospc_is_reported_as_disk_full() -> None:
    fake = FakeCollector()
    break_the_disk(errno.ENOSPC)(fake)
    assert (503, "disk-full") == ((response := ask(fake, http())).status, response.reason)


def test_a_recovered_disk_accepts_events() -> None:
    fake = FakeCollector()
    break_the_disk(errno.EIO)(fake)
    assert 503 == ask(fake, http()).status
    fake.loop.advance(1.5)
    assert 200 == ask(fake, http()).status


class Awaited:
    """Stand in for the future that the writer awaits while it drains."""

    is_done = False

    def __await__(self) -> Generator[None]:
        while not self.is_done:
            yield

    def done(self) -> bool:
        return self.is_done

    def set_result(self, _result: None) -> None:
        self.is_done = True


def test_a_closing_writer_rejects_new_events_and_stores_accepted_ones() -> None:
    fake = FakeCollector()
    fake.loop.create_future = Awaited  # type: ignore[attr-defined]
    connection, transport = fake.connect()
    connection.data_received(http())
    fake.loop.turn()
    closing = fake.collector.writer.close()
    closing.send(None)
    connection.data_received(http() + http(b"/"))
    fake.disk.settle()
    first, rejected, other = read_responses(transport.sent)
    assert [200, 503, 404] == [first.status, rejected.status, other.status]
    assert ("shutting-down", "1") == (rejected.reason, rejected.headers["Retry-After"])
    with pytest.raises(StopIteration):
        closing.send(None)
    assert fake.disk.is_closed
    assert 1 == len(fake.disk.events())


def test_an_event_that_waits_too_long_gets_503() -> None:
    fake = FakeCollector(writer={"max_wait_s": 2.0})
    connection, transport = fake.connect()
    connection.data_received(http())
    fake.loop.advance(1.9)
    assert b"" == transport.sent
    fake.loop.advance(0.6)
    (response,) = read_responses(transport.take())
    assert (503, "not-stored") == (response.status, response.reason)
    fake.disk.settle()  # the disk recovers and stores it after all
    assert b"" == transport.sent
    fake.loop.advance(0.5)
    connection.data_received(http())
    fake.disk.settle()
    assert [200] == statuses(transport.sent)


@pytest.mark.parametrize("ack", ["received", "written", "synced"])
def test_the_response_waits_for_the_configured_ack(ack: str) -> None:
    fake = FakeCollector(writer={"ack": ack})
    connection, transport = fake.connect()
    connection.data_received(http())
    assert (ack == "received") == (transport.take() != b"")
    fake.loop.turn()
    assert b"" == transport.sent
    syncs = fake.disk.syncs
    fake.disk.complete()
    assert (ack != "received") == (transport.take() != b"")
    if ack == "synced":
        assert syncs + 1 == fake.disk.syncs
    fake.disk.settle()
    assert b"" == transport.sent
    assert 1 == len(fake.disk.events())


def test_rejections_are_counted_by_source_and_reason() -> None:
    fake = FakeCollector()
    for route, query, *_ in BAD_QUERIES:
        fake.exchange(http(b"/pixel/v1/%b?%b" % (route, query)))
    (demo,), unknown = fake.collector.sources.all, fake.collector.sources.unknown
    assert {
        "no-identity": 4,
        "placeholder-identity": 2,
        "no-event": 3,
        "too-deep": 1,
        "event-too-large": 1,
    } == demo.rejected
    assert {
        "no-write-key": 7,
        "unknown-write-key": 5,
        "too-many-parameters": 1,
        "target-too-long": 1,
    } == unknown.rejected
    assert 0 == demo.accepted


def test_accepted_events_and_warnings_are_counted() -> None:
    fake = FakeCollector()
    fake.exchange(http() + http(TRACK + b"&type=x&a..b=1&a.b..=2") + http(PAGE + b"&sentAt=now"))
    (demo,) = fake.collector.sources.all
    assert (3, {}) == (demo.accepted, demo.rejected)
    assert 4 == sum(demo.warned.values())
    fake.exchange(http(PAGE + b"&amp;a=1&userId=null&b[]=1&b[]=2&timestamp=0"))
    assert {
        "reserved-name": 1,
        "empty-segment": 2,
        "invalid-time": 2,
        "html-escaped": 1,
        "placeholder": 1,
        "repeated-array-name": 1,
    } == demo.warned


def test_a_rejected_request_is_not_logged_without_a_rejection_log() -> None:
    fake = FakeCollector()
    with structlog.testing.capture_logs() as logs:
        for route, query, *_ in BAD_QUERIES:
            fake.exchange(http(b"/pixel/v1/%b?%b" % (route, query)))
    assert [] == logs
