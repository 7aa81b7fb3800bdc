"""Clients on real sockets, with uvloop and asyncio's own loop."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from pixelfast.collect import Worker
from tests.collect.wire import TRACK, http, read_responses, statuses
from tests.collect.workers import (
    CLOSE,
    Run,
    ask,
    client,
    connect_and_leave,
    read_response,
    stored,
    working,
)
from tests.waiting import until


def test_a_client_that_exceeds_a_limit_still_reads_its_response(run: Run, tmp_path: Path) -> None:
    """The kernel would reset a connection that is closed with unread bytes."""

    async def main() -> None:
        async with working(tmp_path) as (_, address):
            for request, status in (
                (http(headers=[b"X: " + b"y" * 300_000]), 431),
                (http(TRACK + b"&_=" + b"x" * 300_000), 414),
                (http(TRACK, b"POST", [b"Content-Length: 300000"], b"x" * 300_000), 413),
                (b"\x00" * 300_000, 400),
                (http(headers=CLOSE) + b"x" * 300_000, 200),
            ):
                assert [status] == statuses(await ask(address, request))

    run(main())


def test_a_client_that_half_closes_gets_its_responses(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with working(tmp_path) as (_, address), client(address) as (reader, writer):
            writer.write(http() * 3 + http(b"/"))
            writer.write_eof()
            assert [200, 200, 200, 404] == statuses(await reader.read())

    run(main())
    assert 3 == len(stored(tmp_path))


async def requests_of_a_full_connection(worker: Worker) -> int:
    """Run the loop until all buffers are full; return how many requests were read by then.

    Without a pending commit, only the loop moves data, because the loopback has no delay.
    """
    seen, idle_turns = -1, 0
    while idle_turns < 500:
        await asyncio.sleep(0)
        is_idle = seen == worker.connections.requests and not worker.collector.writer.waiting_bytes
        idle_turns = idle_turns + 1 if is_idle else 0
        seen = worker.connections.requests
    return seen


def test_a_client_that_reads_late_is_not_read_from_and_gets_every_response_in_order(
    run: Run, tmp_path: Path
) -> None:
    origins = [f"https://{number}.example" for number in range(5000)]
    requests = [http(headers=[b"Origin: " + origin.encode()]) for origin in origins]
    requests.append(http(headers=CLOSE))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        with socket.socket() as late:
            late.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            late.setblocking(False)
            async with working(tmp_path, listening) as (worker, address):
                await loop.sock_connect(late, address)
                sending = asyncio.create_task(loop.sock_sendall(late, b"".join(requests)))
                seen = await requests_of_a_full_connection(worker)
                assert 0 < seen < len(requests)
                received = bytearray()
                while data := await loop.sock_recv(late, 2**16):
                    received += data
                await sending
                late.close()
        responses = read_responses(bytes(received))
        found = [response.headers.get("Access-Control-Allow-Origin") for response in responses]
        assert [*origins, None] == found

    run(main())
    assert 5001 == len(stored(tmp_path))


@pytest.mark.parametrize("resets", [True, False], ids=["reset", "close"])
def test_clients_that_leave_without_their_responses_do_not_affect_others(
    run: Run, tmp_path: Path, resets: bool
) -> None:
    async def main() -> None:
        async with working(tmp_path) as (worker, address), client(address) as (reader, writer):
            for number in range(20):
                for data in (http() * 5 + http()[: number * 4], http(headers=CLOSE), b"\x00"):
                    connect_and_leave(address, data, resets=resets)
                writer.write(http())
                assert (await read_response(reader)).startswith(b"HTTP/1.1 200 ")
            writer.close()
            await until(lambda: not worker.connections.open)

    run(main())


def test_a_client_that_resets_immediately_is_not_a_trusted_proxy(run: Run, tmp_path: Path) -> None:
    """Its socket has no peer name when it is accepted, but its bytes can still be read."""

    async def main() -> None:
        async with working(tmp_path, trusted_proxies=("unix:",)) as (_, address):
            for _ in range(5):
                connect_and_leave(address, http(headers=[b"X-Forwarded-For: 6.6.6.6"]), resets=True)
            assert [200] == statuses(await ask(address, http(headers=CLOSE)))

    run(main())
    found = [event.get("request_ip") for _, event in stored(tmp_path)]
    # asyncio knows the peer from accept(2), uvloop does not.
    assert (6, set()) == (len(found), set(found) - {None, "127.0.0.1"})


@pytest.mark.parametrize(
    ("trusted", "expected"), [(("unix:",), "203.0.113.7"), ((), None)], ids=["trusted", "untrusted"]
)
def test_peers_of_a_unix_socket_are_trusted_proxies_if_configured(
    run: Run, tmp_path: Path, trusted: tuple[str, ...], expected: str | None
) -> None:
    async def main() -> None:
        path = tmp_path / "s"
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(os.fspath(path))
        listening.listen()
        async with working(tmp_path, listening, trusted_proxies=trusted) as (_, address):
            lines = [*CLOSE, b"X-Forwarded-For: 203.0.113.7"]
            assert [200] == statuses(await ask(address, http(headers=lines)))

    run(main())
    ((_, event),) = stored(tmp_path)
    assert expected == event.get("request_ip")
