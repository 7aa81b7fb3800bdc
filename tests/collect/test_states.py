"""The states of a connection: each transition of the table is reached, and no other is legal."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise, product

import pytest

from pixelfast.collect import Connection, connection
from pixelfast.collect.connection import State, check_transition
from tests.collect.wire import TRACK, http, statuses
from tests.fakes import FakeCollector, FakeTransport

IDLE, HEAD, BODY, LAST, HALF_CLOSED, LINGERING, CLOSED = State

TRANSITIONS = {
    IDLE: {HEAD, BODY, LAST, HALF_CLOSED, CLOSED},
    HEAD: {IDLE, BODY, LAST, HALF_CLOSED, CLOSED},
    BODY: {IDLE, LAST, HALF_CLOSED, CLOSED},
    LAST: {HALF_CLOSED, LINGERING, CLOSED},
    HALF_CLOSED: {LINGERING, CLOSED},
    LINGERING: {CLOSED},
    CLOSED: set(),
}
POST = http(TRACK, b"POST", [b"Content-Length: 3"], b"abc")
LAST_GET = http(headers=[b"Connection: close"])
LAST_POST = http(TRACK, b"POST", [b"Connection: close", b"Content-Length: 3"], b"abc")
MALFORMED = b"GET / HTTP/1.1\r\nA : b\r\n\r\n"

Step = Callable[[FakeCollector, Connection], object]


def receive(data: bytes) -> Step:
    return lambda _, connection: connection.data_received(data)


def store(fake: FakeCollector, _: Connection) -> None:
    fake.disk.settle()


def receive_eof(_: FakeCollector, connection: Connection) -> None:
    assert connection.eof_received()


def lose(_: FakeCollector, connection: Connection) -> None:
    connection.connection_lost(None)


def drain(fake: FakeCollector, _: Connection) -> None:
    fake.connections.drain()


def pause(_: FakeCollector, connection: Connection) -> None:
    connection.pause_writing()


def wait(seconds: float) -> Step:
    def sweep(fake: FakeCollector, _: Connection) -> None:
        fake.clock.advance(seconds)
        fake.connections.sweep()

    return sweep


# Each scenario is a list of steps and the state after each; a connection starts IDLE. A response
# that waits for the disk delays LINGERING.
SCENARIOS: dict[str, list[tuple[Step, State]]] = {
    "a whole GET": [(receive(http()), IDLE), (lose, CLOSED)],
    "a whole POST": [(receive(POST), IDLE), (store, IDLE)],
    "line ends": [(receive(b"\r\n\r\n"), IDLE)],
    "a GET in pieces": [(receive(http()[:9]), HEAD), (receive(http()[9:]), IDLE)],
    "a GET in three pieces": [
        (receive(http()[:9]), HEAD),
        (receive(http()[9:30]), HEAD),
        (receive(http()[30:]), IDLE),
    ],
    "a GET and a part": [(receive(http() + b"G"), HEAD), (store, HEAD)],
    "a POST without its body": [(receive(POST[:-1]), BODY), (receive(b"c"), IDLE)],
    "a POST in pieces": [(receive(POST[:9]), HEAD), (receive(POST[9:-1]), BODY), (lose, CLOSED)],
    "a POST in two pieces": [(receive(POST[:9]), HEAD), (receive(POST[9:]), IDLE)],
    "a body and a part": [(receive(POST[:-1]), BODY), (receive(b"cGET"), HEAD)],
    "the last request": [(receive(LAST_GET), LAST), (store, LINGERING), (lose, CLOSED)],
    "the last request in pieces": [(receive(LAST_GET[:9]), HEAD), (receive(LAST_GET[9:]), LAST)],
    "the last request by its body": [(receive(LAST_POST[:-1]), BODY), (receive(b"c"), LAST)],
    "input after the last": [(receive(LAST_GET), LAST), (receive(http()), LAST), (lose, CLOSED)],
    "a bad request": [(receive(MALFORMED), LINGERING), (receive(http()), LINGERING)],
    "a bad request behind a good one": [(receive(http() + MALFORMED), LAST), (store, LINGERING)],
    "a bad method": [(receive(http() + b"G"), HEAD), (receive(b"\x00"), LAST)],
    "EOF": [(receive(http()), IDLE), (receive_eof, HALF_CLOSED), (store, LINGERING)],
    "EOF in a head": [(receive(http() + b"GET"), HEAD), (receive_eof, HALF_CLOSED)],
    "EOF in a body": [(receive(http() + POST[:-1]), BODY), (receive_eof, HALF_CLOSED)],
    "EOF after the last": [(receive(LAST_GET), LAST), (receive_eof, HALF_CLOSED)],
    "EOF twice": [
        (receive(http()), IDLE),
        (receive_eof, HALF_CLOSED),
        (receive_eof, HALF_CLOSED),
        (lose, CLOSED),
    ],
    "a drain": [(receive(http()), IDLE), (drain, LAST), (drain, LAST), (store, LINGERING)],
    "a drain between requests": [(receive(http(b"/")), IDLE), (drain, LINGERING), (lose, CLOSED)],
    "a drain before a request": [(drain, IDLE), (receive(http()), LAST), (store, LINGERING)],
    "a drain without a request": [(drain, IDLE), (wait(0.9), IDLE), (lose, CLOSED)],
    "a drain in a head": [
        (receive(http()[:9]), HEAD),
        (drain, HEAD),
        (receive(http()[9:]), LAST),
        (store, LINGERING),
    ],
    "too slow": [(receive(b"GET"), HEAD), (wait(10.1), LINGERING), (wait(2.1), CLOSED)],
    "too slow a body": [(receive(POST[:-1]), BODY), (wait(10.1), LINGERING)],
    "does not read": [
        (receive(http()), IDLE),
        (pause, IDLE),
        (receive(http()), IDLE),
        (wait(75.1), CLOSED),
        (lose, CLOSED),
    ],
    "does not read the last": [
        (receive(LAST_GET), LAST),
        (pause, LAST),
        (store, LAST),
        (wait(75.1), CLOSED),
    ],
    "lost in a head": [(receive(b"GET"), HEAD), (lose, CLOSED)],
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_each_step_leads_to_its_state(name: str) -> None:
    fake = FakeCollector()
    connection, _ = fake.connect()
    assert IDLE == connection.state
    for number, (step, expected) in enumerate(SCENARIOS[name]):
        step(fake, connection)
        assert expected == connection.state, f"step {number}"


def test_the_scenarios_reach_every_transition() -> None:
    """Only single transitions count: a step with two would hide the state between them."""
    reached: dict[State, set[State]] = {state: set() for state in State}
    for scenario in SCENARIOS.values():
        for old, new in pairwise([IDLE, *(state for _, state in scenario)]):
            if old != new and new in TRANSITIONS[old]:
                reached[old].add(new)
    assert TRANSITIONS == reached


@pytest.mark.parametrize(("old", "new"), list(product(State, State)))
def test_every_other_transition_raises(old: State, new: State) -> None:
    if new in TRANSITIONS[old]:
        check_transition(old, new)
        return
    with pytest.raises(AssertionError, match=rf"from {old.name} to {new.name}\Z"):
        check_transition(old, new)


def test_a_connection_over_the_limit_lingers_after_its_503() -> None:
    fake = FakeCollector(connections={"max_connections": 1})
    fake.connect()
    connection, transport = fake.connect()
    assert (LINGERING, [503]) == (connection.state, statuses(transport.sent))
    assert (True, False) == (transport.has_eof, transport.is_closed)


def test_a_connection_far_over_the_limit_is_closed_immediately() -> None:
    fake = FakeCollector(connections={"max_connections": 1})
    pairs = [fake.connect() for _ in range(18)]
    connection, transport = pairs[-1]
    assert (LINGERING, [503]) == (connection.state, statuses(transport.sent))
    assert (False, True) == (transport.has_eof, transport.is_closed)


def test_a_connection_over_max_memory_is_aborted() -> None:
    fake = FakeCollector(connections={"max_memory": 1000})
    connection, transport = fake.connect()
    connection.data_received(b"GET /" + b"x" * 1000)
    assert (CLOSED, True) == (connection.state, transport.is_aborted)


def test_a_connection_whose_fin_fails_is_aborted() -> None:
    class Gone(FakeTransport):
        def write_eof(self) -> None:
            raise OSError("the peer has reset the connection")

    fake = FakeCollector()
    connection, transport = fake.connections.connect(), Gone()
    connection.connection_made(transport)  # type: ignore[arg-type]
    connection.data_received(http(b"/", headers=[b"Connection: close"]))
    assert (CLOSED, True) == (connection.state, transport.is_aborted)


def test_the_table_in_the_docstring_matches_the_code() -> None:
    assert connection.__doc__ is not None
    told: dict[str, set[str]] = {}
    old = ""
    for first, new in re.findall(
        r"^ {4}([A-Za-z_]+|\s+) +([A-Z_]+) {2,}\w", connection.__doc__, re.MULTILINE
    ):
        old = first.strip() or old
        told.setdefault(old, set()).add(new)
    after_any = told.pop("any")
    assert {"CLOSED"} == after_any
    assert {
        state.name: {each.name for each in after if each != CLOSED}
        for state, after in TRANSITIONS.items()
        if after - {CLOSED}
    } == told
