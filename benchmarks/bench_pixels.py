"""Compare the cost of the most expensive pixel with that of the cheapest."""

from __future__ import annotations

import argparse
import random
import socket
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.machine import print_head
from benchmarks.report import Section, table
from benchmarks.servers import Running, collector
from pixelfast.errors import RequestError
from pixelfast.event import EventWriter, Rules
from pixelfast.spool import DataDir, Position, SlotReader

__all__ = ["run"]

METHOD = """\
One collector that syncs its events, one keep-alive connection, eight requests at a time. CPU is
what all threads of the collector ran, by /proc/PID/task/*/schedstat: HTTP, decoding, the commit and
the response. A row whose names are random sends others with every request, so that no cache has
them. Memory is the maximum that decoding and encoding one pixel allocate, by tracemalloc.
Stored is the event in the spool; where nothing is stored the pixel was rejected after that work."""

DEPTH = 8
LIMIT = 32_768
START = "/pixel/v1/track?writeKey={key}&userId=u&event=e"
_END_OF_HEAD = b"\r\n\r\n"
Make = Callable[[random.Random], str]


def name(choose: random.Random, length: int) -> str:
    return "".join(choose.choices("abcdefghijklmnopqrstuvwxyz", k=length))


def parameters(make: Callable[[random.Random, int], str], count: int = 253) -> Make:
    """Return a function that makes a query with as many parameters as are allowed, or fit."""

    def query(choose: random.Random) -> str:
        found, size = [], len(START) + 50
        for number in range(count):
            each = "&" + make(choose, number)
            size += len(each)
            if size > LIMIT:
                break
            found.append(each)
        return "".join(found)

    return query


def always(text: str) -> Make:
    return lambda _: text


def deep(first: str, segment: str, depth: int = 30) -> str:
    return f"properties.{first}{('.' + segment) * depth}=1"


# Additions to the query of the cheapest pixel.
QUERIES: dict[str, Make] = {
    "the cheapest": always(""),
    "32 KB of plain text": always("&properties.a=" + "x" * 32_000),
    "32 KB of escapes": always("&properties.a=" + "%41" * 10_800),
    "control characters, six bytes of JSON each": always("&properties.a=" + "%01" * 5_300),
    "the same, over the limit (413)": always("&properties.a=" + "%01" * 10_800),
    "invalid UTF-8, three bytes each": always("&properties.a=" + "%ff" * 10_500),
    "253 parameters": parameters(lambda _, n: f"properties.p{n}=1"),
    "253 decimals": parameters(lambda _, n: f"properties.p{n}=0.0000012345678"),
    "253 random names": parameters(lambda choose, _: f"properties.{name(choose, 8)}=1"),
    "253 random names of 110 bytes": parameters(
        lambda choose, _: f"properties.{name(choose, 110)}=1"
    ),
    "253 random names, 32 segments deep (413)": parameters(
        lambda choose, _: deep(name(choose, 2), name(choose, 1))
    ),
    "arrays in arrays by -1, random names": parameters(
        lambda choose, _: deep(name(choose, 3), "-1", 28)
    ),
    "a random name of 32 KB": lambda choose: f"&properties.{name(choose, 32_000)}=1",
    "16,000 segments (400)": lambda choose: f"&{name(choose, 3)}{'.a' * 16_000}=1",
    "7,900 backslashes in each of 4 names": lambda choose: "".join(
        f"&properties.{name(choose, 3)}{chr(92) * 7_900}=1" for _ in range(4)
    ),
    "200 losers against an object": always("&properties.a=1" * 200 + "&properties.a.b=1"),
    "gaps in arrays": always("".join(f"&properties.a{n}{'.63' * 10}=1" for n in range(10))),
    "gaps in arrays, over the limit (413)": always(
        "".join(f"&properties.a{n}{'.63' * 30}=1" for n in range(250))
    ),
    "253 warnings, random names": parameters(lambda choose, _: f"type.{name(choose, 20)}=1"),
    "16,000 parameters (400)": always("&a" * 16_000),
}
# Additional headers, and a body, of the cheapest pixel.
REQUESTS: dict[str, tuple[str, str, bytes]] = {
    "98 headers of 300 bytes": ("GET", "".join(f"X-{n}: {'y' * 290}\r\n" for n in range(98)), b""),
    "`X-Forwarded-For` of 3,201 addresses": (
        "GET",
        f"X-Forwarded-For: {'127.0.0.1,' * 3_200}127.0.0.1\r\n",
        b"",
    ),
    "95 `X-Forwarded-For` of 31 addresses": (
        "GET",
        f"X-Forwarded-For: {'127.0.0.1,' * 30}127.0.0.1\r\n" * 95,
        b"",
    ),
    "a `User-Agent` of 30 KB": ("GET", f"User-Agent: {'u' * 30_000}\r\n", b""),
    "a body of 64 KB": ("POST", "Content-Length: 65536\r\n", b"x" * 65_536),
    "a body of 64 KB in chunks of a byte": (
        "POST",
        "Transfer-Encoding: chunked\r\n",
        b"1\r\nx\r\n" * 65_536 + b"0\r\n\r\n",
    ),
    "440 KB of trailers": (
        "POST",
        "Transfer-Encoding: chunked\r\n",
        b"0\r\n" + b"a:b\r\n" * 88_000 + b"\r\n",
    ),
}


class Cost(NamedTuple):
    """The cost of one request of a row."""

    pixel: str
    status: int
    request_bytes: int
    cpu_us: float
    memory_bytes: int
    stored_bytes: int


def request(target: str, method: str = "GET", headers: str = "", body: bytes = b"") -> bytes:
    return f"{method} {target} HTTP/1.1\r\nHost: px.example.com\r\n{headers}\r\n".encode() + body


def rows(key: str, distinct: int) -> Iterator[tuple[str, list[bytes], str]]:
    """Return the requests of each row, and the query of the first."""
    start = START.format(key=key)
    for pixel, make in QUERIES.items():
        choose = random.Random(pixel)
        targets = [start + make(choose) for _ in range(distinct if "random" in pixel else 1)]
        yield pixel, [request(target) for target in targets], targets[0].partition("?")[2]
    for pixel, more in REQUESTS.items():
        yield pixel, [request(start, *more)], start.partition("?")[2]


def cpu_s(pid: int) -> float:
    """Return the CPU time of all threads of a process."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((each / "schedstat").read_text().split()[0]) for each in tasks) * 1e-9


def ask(client: socket.socket, requests: list[bytes]) -> int:
    """Send all requests at once and read the responses; return the status of the last."""
    received = b""
    client.sendall(b"".join(requests))
    # Every response has the GIF, which contains no empty line.
    while received.count(_END_OF_HEAD) < len(requests) or not received.endswith(b"\x01\x00;"):
        piece = client.recv(65_536)
        if not piece:
            raise RuntimeError(f"closed after {received[-300:]!r}")
        received += piece
    return int(received.rpartition(b"HTTP/1.1 ")[2][:3])


def memory_bytes(query: str) -> int:
    """Return the maximum memory of decoding and encoding, without what caches keep."""
    events, rules, target = EventWriter(), Rules(), f"/pixel/v1/track?{query}".encode()
    tracemalloc.start()
    try:
        events.open(target)
        events.write(rules, 0, address="192.0.2.1")
    except RequestError:
        pass
    finally:
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return most


def stored_bytes(folder: Path) -> int:
    """Return the length of the event that was stored last."""
    reader = SlotReader(DataDir.open(folder), 0, Position())
    last = 0
    while frames := reader.read():
        last = len(bytes(frames[-1].body).splitlines()[-1])
    reader.close()
    return last


def cost_of(server: Running, folder: Path, pixel: str, requests: list[bytes], query: str,
            least_s: float) -> Cost:  # fmt: skip
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        status, count, place = 0, 0, 0
        began_s = cpu_s(server.pid)
        while (ran_s := cpu_s(server.pid) - began_s) < least_s:
            some = [requests[(place + n) % len(requests)] for n in range(DEPTH)]
            status = ask(client, some)
            place, count = place + DEPTH, count + DEPTH
    return Cost(
        pixel,
        status,
        len(requests[0]),
        ran_s / count * 1e6,
        memory_bytes(query),
        stored_bytes(folder) if status == 200 else 0,
    )


def run(least_s: float = 0.4, distinct: int = 800) -> Section:
    """Measure, and print each result at once."""
    print_head(__doc__ or "", METHOD)
    found: list[Cost] = []
    with tempfile.TemporaryDirectory(prefix="pixelfast-bench-") as place:
        folder = Path(place) / "data"
        with collector(folder) as server:
            for pixel, requests, query in rows(server.write_key, distinct):
                cost_of(server, folder, pixel, requests[:DEPTH], query, 0.01)
                found.append(cost_of(server, folder, pixel, requests, query, least_s))
                print(f"  {found[-1]}", flush=True)
    text = report(found)
    print(f"\n{text}\n", flush=True)
    figures: dict[str, Any] = {"pixels": [each._asdict() for each in found]}
    return Section(text, figures)


def report(found: list[Cost]) -> str:
    cheapest = found[0]
    head = "pixel, status, request, CPU, times, times a byte, memory, stored, times sent"
    lines = [
        (
            each.pixel,
            each.status,
            f"{each.request_bytes:,} B",
            f"{each.cpu_us:,.0f} µs",
            f"{each.cpu_us / cheapest.cpu_us:,.0f}",
            f"{_per_byte(each) / _per_byte(cheapest):.1f}",
            f"{each.memory_bytes / 1024:,.0f} KiB",
            f"{each.stored_bytes:,} B",
            f"{each.stored_bytes / each.request_bytes:.1f}",
        )
        for each in found
    ]
    return table(head.split(", "), lines)


def _per_byte(cost: Cost) -> float:
    return cost.cpu_us / cost.request_bytes


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.4, help="of CPU for each row")
    options = parser.parse_args()
    run(options.seconds)
