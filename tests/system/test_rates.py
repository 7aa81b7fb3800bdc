"""One rate limit for all collectors of a real server."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

from tests.servers import Server, serving
from tests.waiting import wait_until

SETTINGS = """
[[sources]]
name = "web"
write_keys = ["web"]
rate_limit = 200
[[sources]]
name = "rare"
write_keys = ["rare"]
rate_limit = 0.001
[[destinations]]
name = "archive"
type = "file"
"""


def statuses(server: Server, key: str, counts: list[int]) -> list[int]:
    """Send this many pixels over each of these connections, all at once; return the statuses."""
    target = f"/pixel/v1/track?writeKey={key}&userId=u&event=E"
    request = f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    clients = [socket.create_connection(("127.0.0.1", server.port), 20.0) for _ in counts]
    for client, count in zip(clients, counts, strict=True):
        client.sendall(request * count)
        client.shutdown(socket.SHUT_WR)
    responses = b""
    for client in clients:
        with client:
            while data := client.recv(65536):
                responses += data
    found = [int(part[:3]) for part in responses.split(b"HTTP/1.1 ")[1:]]
    assert sum(counts) == len(found)
    return found


def is_restarted(server: Server) -> bool:
    text = server.admin("/metrics")
    starts = [f'pixelfast_process_starts_total{{process="collector-{n}"}} 2.0' for n in (0, 1)]
    return (
        all(line in text for line in starts) and text.count("pixelfast_stored_events_total{") == 2
    )


def test_a_rate_limit_holds_for_all_collectors_together(tmp_path: Path) -> None:
    with serving(tmp_path / "data", "--workers", "2", settings=SETTINGS) as server:
        # The events of one second may arrive at once, over one connection to one collector.
        assert [200] * 200 == statuses(server, "web", [200])
        # One of these is accepted, regardless of the collectors that receive them.
        rare = statuses(server, "rare", [1] * 20)
        assert [200] + [429] * 19 == sorted(rare)
        # A collector that is killed and restarted does not get its own budget either.
        for name, pid in server.children().items():
            if name.startswith("pf-collector"):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: is_restarted(server), "both collectors are restarted")
        assert [429] * 20 == statuses(server, "rare", [1] * 20)
