"""Valid requests with random damage. The seed is fixed, so that failures are reproducible."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import structlog.testing

from tests.collect.wire import PAGE, TRACK, events, http, is_over, read_responses
from tests.fakes import FakeCollector

KEY = b"wk-very-secret"
VALID = [
    http(TRACK.replace(b"wk-demo", KEY) + b"&properties.hidden=treasure"),
    http(
        PAGE.replace(b"wk-demo", KEY) + b"&properties.a.0.b=hidden-treasure", headers=[b"Origin: a"]
    ),
    http(TRACK.replace(b"wk-demo", KEY), b"POST", [b"Content-Length: 8"], b"treasure"),
    http(
        TRACK.replace(b"wk-demo", KEY),
        b"POST",
        [b"Transfer-Encoding: chunked"],
        b"8;a=b\r\ntreasure\r\n0\r\nT: u\r\n\r\n",
    ),
    http(TRACK.replace(b"wk-demo", KEY), b"HEAD", [b"User-Agent: hidden-treasure"]),
    http(TRACK, b"OPTIONS", [b"Origin: https://a.example", b"Connection: keep-alive"]),
    http(PAGE, version=b"HTTP/1.0", headers=[b"Connection: keep-alive", b"Expect: 100-continue"]),
    http(b"http://pixel.example" + PAGE, headers=[b"Connection: Upgrade", b"Upgrade: h2c"]),
    http(headers=[b"X-Forwarded-For: 1.2.3.4, 5.6.7.8", b"X-Real-IP: 9.9.9.9", b"X-E:"]),
]

Mutation = Callable[[random.Random, bytearray], None]


def flip(choose: random.Random, data: bytearray) -> None:
    data[choose.randrange(len(data))] ^= 1 << choose.randrange(8)


def replace(choose: random.Random, data: bytearray) -> None:
    data[choose.randrange(len(data))] = choose.choice(b"\x00\r\n \t:;=&?%./\\#\x7f\x80\xff019aZ")


def delete(choose: random.Random, data: bytearray) -> None:
    start = choose.randrange(len(data))
    del data[start : start + choose.choice([1, 1, 2, 10])]


def insert(choose: random.Random, data: bytearray) -> None:
    start = choose.randrange(len(data))
    data[start:start] = choose.choice(
        [b"\x00", b"\r\n", b"\r", b"\n", b" ", b"%", b"\r\n\r\n", b"\xff" * 9]
    )


def duplicate(choose: random.Random, data: bytearray) -> None:
    start = choose.randrange(len(data))
    end = min(len(data), start + choose.choice([1, 5, 30, 200]))
    data[start:start] = data[start:end] * choose.choice([1, 1, 2, 50])


def cut(choose: random.Random, data: bytearray) -> None:
    del data[choose.randrange(len(data)) :]


def splice(choose: random.Random, data: bytearray) -> None:
    other = choose.choice(VALID)
    data[choose.randrange(len(data)) :] = other[choose.randrange(len(other)) :]


MUTATIONS: list[Mutation] = [flip, replace, delete, insert, duplicate, cut, splice]


def mutated(choose: random.Random, mutate: Mutation) -> bytes:
    data = bytearray(b"".join(choose.choices(VALID, k=choose.choice([1, 1, 2, 3]))))
    for _ in range(choose.choice([1, 1, 1, 2, 5])):
        if data:
            mutate(choose, data)
    return bytes(data)


def play(fake: FakeCollector, choose: random.Random, data: bytes) -> bytes:
    """Play one connection from start to end and return everything it was sent."""
    connection, transport = fake.connect(("10.0.0.1", 40000))
    while data:
        size = choose.choice([1, 3, 50, 10_000, 10_000])
        connection.data_received(data[:size])
        data = data[size:]
        if choose.random() < 0.3:
            fake.disk.settle()
    if choose.random() < 0.3:
        connection.eof_received()
    fake.disk.settle()
    for seconds in (11.0, 76.0, 3.0):  # slow, idle, lingering
        fake.clock.advance(seconds)
        fake.connections.sweep()
    assert is_over(transport), "the connection never ends"
    connection.connection_lost(None)
    return transport.sent


def check(sent: bytes) -> None:
    """Check that only complete responses were sent. Any of them may belong to HEAD and have no
    body."""
    for part in sent.split(b"HTTP/1.1 ")[1:]:
        head, separator, body = part.partition(b"\r\n\r\n")
        assert separator, part
        status = int(head[:3])
        assert status in {100, 200, 204, 400, 401, 404, 405, 408, 413, 414, 431}, head
        assert len(body) in {0, 43, 26, 60}, (head, body)
    assert not sent or sent.startswith(b"HTTP/1.1 ")


@pytest.mark.parametrize("mutate", MUTATIONS)
def test_a_damaged_request_gets_a_response_or_its_connection_is_closed(mutate: Mutation) -> None:
    fake = FakeCollector(trusted_proxies=["10.0.0.0/8"])
    good, of_good = fake.connect()
    with structlog.testing.capture_logs() as logs:
        for seed in range(300):
            choose = random.Random(f"{mutate.__name__} {seed}")
            data = mutated(choose, mutate)
            try:
                check(play(fake, choose, data))
            except BaseException as error:
                error.add_note(f"seed {seed}: {data!r}")
                raise
            if seed % 10 == 0:
                good.data_received(http())
                fake.disk.settle()
                (response,) = read_responses(of_good.take())
                assert 200 == response.status
    assert {good} == fake.connections.open
    assert 0 == fake.connections.responses.get(500, 0)
    told = repr(logs)
    assert "secret" not in told
    assert "treasure" not in told
    assert [] == logs
    assert all(event["type"] in {"track", "page"} for event in events(fake))


def test_the_mutations_reach_many_statuses() -> None:
    """Otherwise the test above could not fail: it must see rejections as well as events."""
    fake = FakeCollector(trusted_proxies=["10.0.0.0/8"])
    for mutate in MUTATIONS:
        for seed in range(60):
            choose = random.Random(f"{mutate.__name__} {seed}")
            play(fake, choose, mutated(choose, mutate))
    assert {200, 204, 400, 401, 404, 408} <= fake.connections.responses.keys()
    assert len(fake.disk.events()) > 50
