"""The names of machines, without brokers."""

from __future__ import annotations

import socket
import time

import pytest
from confluent_kafka import KafkaException

from pixelfast.cluster.nodes import Node, live_namesake, members_of
from pixelfast.config import Cluster

NODE = bytes(16)


@pytest.mark.parametrize(
    ("other", "is_excluded"),
    [
        (Node("events", "web-1", "01"), True),
        (Node("events", "web-1", "00"), False),
        (Node("events", "web-2", "01"), False),
        (Node("other", "web-1", "01"), False),
    ],
)
def test_a_name_belongs_to_one_data_directory_of_a_cluster(other: Node, is_excluded: bool) -> None:
    assert is_excluded == Node("events", "web-1", "00", "192.0.2.7").excludes(other)


@pytest.mark.parametrize("text", ["", "pixelfast", "pixelfast/a/b", "pixelfast/a/b/c/d", "x/a/b/c"])
def test_other_members_of_the_group_are_ignored(text: str) -> None:
    assert Node.parse(text, "/192.0.2.7") is None


def test_a_start_does_not_wait_for_brokers_that_accept_no_connection() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        brokers = (f"127.0.0.1:{closed.getsockname()[1]}",)
        begun_s = time.monotonic()
        with pytest.raises(KafkaException):
            members_of(Cluster(brokers=brokers), timeout_s=60.0)
        assert time.monotonic() - begun_s < 30


def test_a_start_does_not_wait_long_for_brokers_that_do_not_respond() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        brokers = (f"127.0.0.1:{silent.getsockname()[1]}",)
        begun_s = time.monotonic()
        assert live_namesake(Cluster(brokers=brokers, node="web-1"), NODE) is None
        assert 2.5 < time.monotonic() - begun_s < 30


def test_only_a_name_of_the_settings_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []

    def members(settings: Cluster) -> list[Node]:
        looks.append(settings.node_name)
        return []

    monkeypatch.setattr("pixelfast.cluster.nodes.members_of", members)
    for name in ("", "web-1"):
        assert live_namesake(Cluster(brokers=("192.0.2.1:9092",), node=name), NODE) is None
    assert ["web-1"] == looks


@pytest.mark.parametrize(("timeout", "seconds"), [("0x2710", 10.0), ("6000", 6.0), ("900000", 60)])
def test_a_start_waits_for_the_session_of_a_machine_but_not_for_long(
    monkeypatch: pytest.MonkeyPatch, timeout: str, seconds: float
) -> None:
    now = [0.0]
    other = Node("pixelfast-events", "web-1", "01")
    monkeypatch.setattr("pixelfast.cluster.nodes.members_of", lambda _: [other])
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda pause_s: now.__setitem__(0, now[0] + pause_s))
    options = {"session.timeout.ms": timeout}
    cluster = Cluster(brokers=("192.0.2.1:9092",), node="web-1", options=options)
    assert other == live_namesake(cluster, NODE)
    assert seconds <= now[0] <= seconds + 4
