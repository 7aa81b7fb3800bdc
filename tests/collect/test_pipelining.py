"""Responses are sent in the order of the requests, whatever the order in which they get ready."""

from __future__ import annotations

import errno
import itertools
import random
from typing import Any

import pytest

from pixelfast.collect import Connection
from tests.collect.wire import (
    ORIGIN,
    PAGE,
    TRACK,
    events,
    fail_commit,
    http,
    read_responses,
    statuses,
)
from tests.fakes import FakeCollector, FakeTransport

HEAD = http(TRACK, b"HEAD")
NOT_FOUND = http(b"/")
NO_KEY = http(b"/pixel/v1/page")
NO_ID = http(b"/pixel/v1/page?writeKey=wk-demo")


def waiting(fake: FakeCollector, count: int) -> list[tuple[Connection, FakeTransport]]:
    """Return connections with one event each; all of them wait for the same commit."""
    pairs = [fake.connect() for _ in range(count)]
    for connection, _ in pairs:
        connection.data_received(http())
    return pairs


def test_ready_responses_wait_for_earlier_ones(fake: FakeCollector) -> None:
    connection, transport = fake.connect()
    connection.data_received(NOT_FOUND + http() + HEAD + NO_KEY + http(PAGE) + NOT_FOUND)
    assert [404] == statuses(transport.take())
    fake.settle()
    assert [200, 200, 400, 200, 404] == statuses(transport.sent, b"GET", b"HEAD")


def test_responses_without_an_event_do_not_wait_for_the_disk(fake: FakeCollector) -> None:
    connection, transport = fake.connect()
    connection.data_received(HEAD + NOT_FOUND + NO_KEY + NO_ID)
    assert [200, 404, 400, 400] == statuses(transport.sent, b"HEAD")
    assert not fake.disk.is_busy


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_acknowledgements_may_arrive_in_any_order(
    fake: FakeCollector, order: tuple[int, ...]
) -> None:
    connection, transport = fake.connect()
    (waiter,) = fake.connections.open
    origins = [b"https://%d.example" % number for number in range(4)]
    for origin in origins:
        connection.data_received(http(headers=[b"Origin: " + origin]) + NOT_FOUND)
    acked: set[int] = set()
    for place in order:
        fake.connections.on_stored([waiter], place + 1, True)
        acked.add(place)
        ready = next((n for n in range(4) if n not in acked), 4)
        assert [200, 404] * ready == statuses(transport.sent)
    found = [a.headers.get("Access-Control-Allow-Origin") for a in read_responses(transport.sent)]
    assert [origin.decode() for origin in origins] == found[::2]


def test_only_the_events_of_a_failed_commit_are_rejected(fake: FakeCollector) -> None:
    connection, transport = fake.connect()
    other, transport_of_other = fake.connect()
    connection.data_received(http() + NOT_FOUND)
    fake.loop.turn()  # the first commit begins
    connection.data_received(http(headers=[b"Origin: " + ORIGIN]) + NO_KEY + http())
    other.data_received(http())
    fake.disk.complete()
    fake.loop.turn()
    fail_commit(fake, errno.EIO)
    fake.loop.advance(1.5)  # the disk recovers
    connection.data_received(http() + HEAD)
    fake.settle()
    responses = read_responses(transport.sent, *[b"GET"] * 6, b"HEAD")
    assert [200, 404, 503, 400, 503, 200, 200] == [response.status for response in responses]
    assert [None, "not-found", "not-stored", "no-write-key", "not-stored", None, None] == [
        response.reason for response in responses
    ]
    assert ORIGIN.decode() == responses[2].headers["Access-Control-Allow-Origin"]
    assert [503] == statuses(transport_of_other.sent)
    assert 2 == len(events(fake))
    assert {200: 3, 400: 1, 404: 1, 503: 3} == fake.connections.responses
    assert {"no-write-key": 1, "not-stored": 3} == fake.collector.sources.unknown.rejected


def test_a_commit_that_fails_once_is_retried_without_rejecting_its_events(
    fake: FakeCollector,
) -> None:
    connection, transport = fake.connect()
    connection.data_received(http() * 3)
    fake.loop.turn()
    fake.disk.complete(errno.EIO)
    assert b"" == transport.sent
    fake.settle()
    assert [200] * 3 == statuses(transport.sent)
    assert 3 == len(events(fake))


def test_one_commit_is_one_write_for_each_connection(fake: FakeCollector) -> None:
    pairs = waiting(fake, 5)
    for connection, _ in pairs:
        connection.data_received(NOT_FOUND + http() + HEAD)
    fake.loop.turn()
    assert [0] * 5 == [len(transport.writes) for _, transport in pairs]
    fake.disk.complete()
    assert [1] * 5 == [len(transport.writes) for _, transport in pairs]
    assert [[200, 404, 200, 200]] * 5 == [
        statuses(transport.sent, b"GET", b"GET", b"GET", b"HEAD") for _, transport in pairs
    ]


def test_one_read_is_one_write(fake: FakeCollector) -> None:
    connection, transport = fake.connect()
    connection.data_received(NOT_FOUND * 100)
    assert 1 == len(transport.writes)
    assert [404] * 100 == statuses(transport.take())
    connection.data_received(NOT_FOUND * 60)
    assert 1 == len(transport.writes)
    assert [404] * 60 == statuses(transport.take())


def test_one_read_is_one_commit(fake: FakeCollector) -> None:
    connection, transport = fake.connect()
    connection.data_received(http() * 70)
    fake.settle()
    assert (1, 70, 1) == (
        fake.collector.writer.commits,
        len(events(fake)),
        len(transport.writes),
    )


def test_events_that_arrive_during_a_commit_are_in_the_next_one(fake: FakeCollector) -> None:
    first = waiting(fake, 3)
    fake.loop.turn()
    second = waiting(fake, 4)
    fake.loop.turn()
    fake.disk.complete()
    assert [[200]] * 3 == [statuses(transport.sent) for _, transport in first]
    assert [b""] * 4 == [transport.sent for _, transport in second]
    fake.disk.complete()
    assert [[200]] * 4 == [statuses(transport.sent) for _, transport in second]


def test_the_response_that_closes_waits_for_earlier_ones(fake: FakeCollector) -> None:
    connection, transport = fake.connect()
    connection.data_received(http() + http(b"/", headers=[b"Connection: close"]))
    assert (b"", False) == (transport.sent, transport.has_eof)
    fake.settle()
    first, last = read_responses(transport.sent)
    assert (200, False, 404, True) == (first.status, first.closes, last.status, last.closes)
    assert transport.has_eof


def test_each_pipelined_request_says_for_itself_whether_the_connection_stays_open(
    fake: FakeCollector,
) -> None:
    """The scan reads the requests with `keep-alive`, and the parser those with other values."""
    kept = http(headers=[b"Connection: keep-alive"])
    listed = http(headers=[b"Connection: keep-alive, x"])
    last = http(headers=[b"Connection: keep-alive, close"])
    sent = fake.exchange(kept + http() + listed + kept + last + kept)
    responses = read_responses(sent)
    assert [200] * 5 == [response.status for response in responses]
    said = [response.headers.get("Connection") for response in responses]
    assert ["keep-alive", None, None, "keep-alive", "close"] == said
    assert 5 == len(events(fake))


def test_a_bad_request_gets_its_response_after_the_requests_before_it(fake: FakeCollector) -> None:
    connection, transport = fake.connect()
    connection.data_received(http() * 2 + b"\x00\x01\x02" + http())
    assert b"" == transport.sent
    fake.settle()
    assert [200, 200, 400] == statuses(transport.sent)
    assert [False, False, True] == [response.closes for response in read_responses(transport.sent)]
    assert transport.has_eof
    assert 2 == len(events(fake))


@pytest.mark.parametrize("seed", range(20))
def test_any_mix_of_requests_reads_and_commits_keeps_the_order(
    fake: FakeCollector, seed: int
) -> None:
    choose = random.Random(seed)
    peers: list[Any]
    peers = [(*fake.connect(), [], []) for _ in range(3)]  # with the methods and expected statuses
    kinds = [(http(), 200), (HEAD, 200), (NOT_FOUND, 404), (NO_KEY, 400), (NO_ID, 400)]
    data = [b"", b"", b""]
    for which, (_, _, methods, expected) in enumerate(peers):
        for _ in range(60):
            request, status = choose.choice(kinds)
            data[which] += request
            methods.append(request.split(b" ")[0])
            expected.append(status)
    while any(data):
        which = choose.randrange(3)
        size = choose.choice([1, 20, 200, 2000])
        if data[which]:
            peers[which][0].data_received(data[which][:size])
            data[which] = data[which][size:]
        if choose.random() < 0.4:
            fake.loop.turn()
        if fake.disk.is_busy and choose.random() < 0.4:
            fake.disk.complete()
    fake.settle()
    for _, transport, methods, expected in peers:
        assert expected == statuses(transport.sent, *methods)
    assert sum(peer[3].count(200) - peer[2].count(b"HEAD") for peer in peers) == len(events(fake))


def test_line_ends_between_requests_do_not_add_up(fake: FakeCollector) -> None:
    """See RFC 9112 section 2.2: they are ignored, however many requests a connection sends."""
    connection, transport = fake.connect()
    for _ in range(20):
        connection.data_received(NOT_FOUND)
        connection.data_received(b"\r\n" * 2500)
    assert [404] * 20 == statuses(transport.sent)
    assert not transport.has_eof
