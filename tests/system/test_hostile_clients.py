"""Hostile clients have a limited effect on the memory of a real collector and on others."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.servers import Server, serving
from tests.waiting import wait_until

CLIENTS = 300
MOST_EACH = 80 * 1024  # of memory: 64 KiB, and the fixed memory of a connection
SPARE = 12 * 2**20  # buffers of the collector itself, and memory that malloc does not release
MAX_MEMORY = 2**20
SEND_S = 2.0


def patterns(key: str) -> dict[str, bytes]:
    target = f"/pixel/v1/track?writeKey={key}&userId=u&event=hostile".encode()
    plain = b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % target
    large = b"POST %b&_=%b HTTP/1.1\r\nHost: x\r\n" % (target, b"x" * 32_000)
    large += (b"A: " + b"a" * 400 + b"\r\n") * 70
    chunked = b"Transfer-Encoding: chunked\r\n\r\n"
    return {
        "pipelines and does not read": plain * 3000,
        "pipelines other paths and does not read": b"GET / HTTP/1.1\r\nHost:\r\n\r\n" * 20_000,
        "half a head": large,
        "half a body": large + b"Content-Length: 9\r\n\r\n1234",
        "half a trailer": b"POST %b HTTP/1.1\r\nHost: x\r\n" % target
        + chunked
        + b"0\r\nT: "
        + b"t" * 400_000,
    }


def resident_bytes(pid: int, name: str = "VmRSS") -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no {name}")


def most_bytes_beside(server: Server, data: bytes) -> int:
    """Return the memory growth of the collector while many clients send and one gets responses."""
    pid = server.children()["pf-collector-0"]
    assert 200 == server.track("before")
    before = resident_bytes(pid)
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # reset VmHWM
    with ExitStack() as stack:
        left = {}
        for _ in range(CLIENTS):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", server.port))
            client.setblocking(False)
            left[client] = memoryview(data)
        end = time.monotonic() + SEND_S
        while left and time.monotonic() < end:
            for client, rest in list(left.items()):
                try:
                    left[client] = rest[client.send(rest[:65_536]) :]
                except BlockingIOError:
                    pass
                except OSError:
                    del left[client]  # closed for memory
                    continue
                if not left[client]:
                    del left[client]
            assert 200 == server.track("honest")
    return resident_bytes(pid, "VmHWM") - before


@pytest.mark.parametrize("name", patterns(""))
def test_a_hostile_client_uses_no_more_than_its_share(name: str, tmp_path: Path) -> None:
    with serving(tmp_path / "data", "--workers", "1") as server:
        grown = most_bytes_beside(server, patterns(server.write_key)[name])
        assert grown <= CLIENTS * MOST_EACH + SPARE
        assert 0 == server.metrics()["pixelfast_evicted_connections_total"]


@pytest.mark.parametrize("name", ["pipelines and does not read", "half a head", "half a body"])
def test_hostile_clients_take_no_more_than_max_memory(name: str, tmp_path: Path) -> None:
    settings = (
        f'[server]\nmax_memory = {MAX_MEMORY}\n[[sources]]\nname = "s"\nwrite_keys = ["wk"]\n'
    )
    with serving(tmp_path / "data", "--workers", "1", settings=settings) as server:
        grown = most_bytes_beside(server, patterns(server.write_key)[name])
        assert grown <= MAX_MEMORY + SPARE
        evicted = "pixelfast_evicted_connections_total"
        wait_until(lambda: server.metrics()[evicted], "connections are closed for memory")
        assert 200 == server.track("after")
    assert "connections_evicted" in server.log
