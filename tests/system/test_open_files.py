"""At the limit of open files, every client still gets a response, and processes restart."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.servers import Server, serving
from tests.waiting import wait_until

OPEN_FILES = 200
FLOOD = 300

pytestmark = pytest.mark.skipif(
    shutil.which("prlimit") is None, reason="needs prlimit of util-linux"
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path / "data", "--workers", "1", open_files=OPEN_FILES) as running:
        yield running


def flood(stack: ExitStack, port: int, count: int) -> None:
    for _ in range(count):
        stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))


def test_a_new_client_gets_503_while_others_hold_every_connection(server: Server) -> None:
    assert 200 == server.track("before")
    with ExitStack() as stack:
        flood(stack, server.port, FLOOD)
        seen = Counter(server.track("during") for _ in range(50))
        assert {503: 50} == seen
        response = server.get("/pixel/v1/page")
        assert "too-many-connections" == response.headers["X-Pixelfast-Error"]
        assert response.body[:6] == b"GIF89a"  # type: ignore[attr-defined]
    wait_until(lambda: server.track("after") == 200, "the flood is over")
    assert ["before", "after"] == [event["event"] for event in server.wait_for_events(2)]
    assert "max_connections_lowered" in server.log


def test_many_new_clients_at_once_also_get_503(server: Server) -> None:
    with ExitStack() as stack:
        flood(stack, server.port, FLOOD)
        clients = []
        for _ in range(FLOOD):
            clients.append(stack.enter_context(socket.socket()))
            clients[-1].setblocking(False)
            clients[-1].connect_ex(("127.0.0.1", server.port))
        responses = []
        for client in clients:
            client.settimeout(20)
            responses.append(client.recv(4096)[:12])
        assert {b"HTTP/1.1 503": FLOOD} == Counter(responses)


def test_a_collector_starts_again_while_others_hold_the_admin_address(server: Server) -> None:
    with ExitStack() as stack:
        flood(stack, server.admin_port, FLOOD)
        busy = stack.enter_context(socket.create_connection(("127.0.0.1", server.admin_port)))
        busy.settimeout(20)
        assert busy.recv(4096).startswith(b"HTTP/1.1 503 ")
        os.kill(server.children()["pf-collector-0"], signal.SIGKILL)
        assert 200 == server.track("again")
    assert "process_not_started" not in server.log
