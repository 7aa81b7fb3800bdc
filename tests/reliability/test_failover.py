"""Behind nginx, no request is lost or rejected while pixelfast servers restart and die."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from tests.reliability.failover import WRITE_KEY, Fleet, behind_nginx, fail_over, why_no_nginx

needs_nginx = pytest.mark.skipif(bool(why_no_nginx()), reason=why_no_nginx())

# A start may take long on a busy machine; otherwise, it is far below the shipped timeouts.
PATIENT = [("proxy_read_timeout 10s", "proxy_read_timeout 60s")]


@needs_nginx
@pytest.mark.parametrize(
    ("site", "upstream"),
    [
        ("pixelfast-tls.conf", "two-tcp.conf"),
        ("rudderstack.conf", "two-unix.conf"),
        ("pixelfast.conf", "backup.conf"),
    ],
)
def test_one_of_two_servers_may_end_at_any_time(site: str, upstream: str, tmp_path: Path) -> None:
    with behind_nginx(tmp_path, upstream, site=site) as (fleet, nginx):
        # The second one ends soon after the first: a 502 with the default max_fails of nginx.
        steps = [lambda: fleet.restart(0), lambda: fleet.crash(1)]
        outcome = fail_over(fleet, nginx.port, steps)
    assert outcome.is_clean, outcome
    assert outcome.sent == outcome.acked


@needs_nginx
@pytest.mark.parametrize("upstream", ["one-tcp.conf", "one-unix.conf"])
def test_the_only_server_may_restart_if_its_socket_stays(upstream: str, tmp_path: Path) -> None:
    with behind_nginx(tmp_path, upstream, holds_sockets=True, changes=PATIENT) as (fleet, nginx):
        outcome = fail_over(fleet, nginx.port, [lambda: fleet.restart(0)])
    assert outcome.is_clean, outcome
    assert outcome.sent == outcome.acked


def test_clients_that_have_just_connected_get_a_response_during_a_restart(tmp_path: Path) -> None:
    """Their request is on its way when the drain begins; nginx would not send it again."""
    seen: Counter[bytes] = Counter()
    target = f"/pixel/v1/track?writeKey={WRITE_KEY}&userId=u&event=E"
    request = f"GET {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode()

    async def connect_anew(port: int, stop: asyncio.Event) -> None:
        while not stop.is_set():
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.sleep(0.002)  # as long as a connection takes over a network
            writer.write(request)
            seen[(await reader.read())[9:12]] += 1
            writer.close()
            await writer.wait_closed()

    async def drive(fleet: Fleet) -> None:
        stop = asyncio.Event()
        port = int(fleet.listen[0].rpartition(":")[2])
        clients = [asyncio.create_task(connect_anew(port, stop)) for _ in range(16)]
        for _ in range(2):
            await asyncio.to_thread(fleet.restart, 0)
        stop.set()
        await asyncio.gather(*clients)

    fleet = Fleet(tmp_path, 1, holds_sockets=True)
    try:
        asyncio.run(drive(fleet))
    finally:
        fleet.close()
    assert {b"200"} == set(seen)
    assert seen[b"200"] > 16
