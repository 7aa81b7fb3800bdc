"""The names of machines, without brokers."""

from __future__ import annotations

import socket
import time

import pytest

from pixelfast.cluster.nodes import Node, live_namesake
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
        assert live_namesake(Cluster(brokers=brokers, node="web-1"), NODE) is None
        assert time.monotonic() - begun_s < 2.9  # it would wait for 3 s


def test_a_start_does_not_wait_long_for_brokers_that_do_not_respond() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        brokers = (f"127.0.0.1:{silent.getsockname()[1]}",)
        begun_s = time.monotonic()
        assert live_namesake(Cluster(brokers=brokers, node="web-1"), NODE) is None
        assert 2.5 < time.monotonic() - begun_s < 30


def test_a_host_name_is_not_checked() -> None:
    assert live_namesake(Cluster(brokers=("192.0.2.1:9092",)), NODE) is None
