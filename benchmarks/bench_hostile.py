"""Rate of good events at a destination that rejects a quarter of what it is sent."""

from __future__ import annotations

import argparse
import asyncio
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import uvloop

from benchmarks.backlog import SOURCE, events, fill
from benchmarks.bench_delivery import delivered
from benchmarks.goals import goals_of
from benchmarks.machine import print_head
from benchmarks.report import Section, spread, table
from benchmarks.servers import free_port, wait_for, wait_until
from benchmarks.wrk import LOAD_CORE, SERVER_CORE, cpu_seconds

__all__ = ["run"]

METHOD = """\
A spool is filled, then delivery (one process on one core) brings it to a destination on the other
core that takes 2 ms for each response: first with good events only, then with the destination
rejecting every fourth event. One kind of destination rejects a whole batch for one bad event
(`http`, `json_array`, 500 events per batch, status 400); the other reports a status for each event
(`elasticsearch`, 1,000 events per batch). Figures are of good events, from the first to the last
that delivery records; a run that is not done after 30 s counts what arrived by then. CPU is user
and system time of the delivery process meanwhile, the bad events included. The `http` backlog with
bad events is smaller, since each bad event costs requests. Both runs of a kind in turn, round by
round; ratios are those of the runs of one round. Medians; in brackets the minimum and the
maximum."""

LATENCY_S = 0.002
PATIENCE_S = 30.0
BAD = b"reject-me"
_SETTINGS = """
data_dir = "{data}"
[log]
level = "error"
[[sources]]
name = "{source}"
write_keys = ["wk_live_8Jd3kQ0pXz"]
[[destinations]]
name = "hook"
start = "earliest"
max_age_s = 0.05
{destination}
"""
KINDS = {
    "http": 'type = "http"\nurl = "http://127.0.0.1:{port}/"\nmax_bytes = "4MiB"',
    "elasticsearch": 'type = "elasticsearch"\nurl = "http://127.0.0.1:{port}"\nindex = "pixels"\n'
    'api_key = "VnVhQ2ZHY0JDZGJrUW0tZTVhT3g6dWkybHAyYXhUTm1zeWFrdzl0dk5udw=="',
}
COUNTS = {  # events of a backlog: without bad ones, with bad ones
    "http": (400_000, 20_000),
    "elasticsearch": (400_000, 200_000),
}


class Drain(NamedTuple):
    """The time and CPU time that the good events of one backlog took."""

    events_per_s: float
    cpu_us: float  # of delivery, for each of them


@contextmanager
def _destination(kind: str) -> Iterator[int]:
    port = free_port()
    command = ["taskset", "-c", str(LOAD_CORE), sys.executable, "-m", "benchmarks.bench_hostile"]
    process = subprocess.Popen([*command, "--serve", kind, "--port", str(port)])
    try:
        wait_for(port, process)
        yield port
    finally:
        process.kill()
        process.wait()


def drain(kind: str, count: int, own: list[bytes]) -> Drain:
    """Deliver a backlog of `count` events, which are those of `own` again and again.

    Raises:
        RuntimeError: delivery ended.
    """
    good = count * sum(BAD not in each for each in own) // len(own)
    with (
        tempfile.TemporaryDirectory(prefix="pixelfast-bench-") as place,
        _destination(kind) as port,
    ):
        data, settings = Path(place) / "data", Path(place) / "pixelfast.toml"
        fill(data, count, own=own)
        destination = KINDS[kind].format(port=port)
        settings.write_text(_SETTINGS.format(data=data, source=SOURCE, destination=destination))
        command = ["taskset", "-c", str(SERVER_CORE), sys.executable, "-m", "pixelfast", "deliver"]
        process = subprocess.Popen([*command, "-c", str(settings)], stdout=subprocess.DEVNULL)
        path = data / "dest" / "hook" / "state.db"
        try:
            wait_until(lambda: delivered(path) > 0, "delivering")
            first, began_s, began_cpu_s = (
                delivered(path),
                time.monotonic(),
                cpu_seconds(process.pid),
            )
            while (arrived := delivered(path)) < good:
                if process.poll() is not None:
                    raise RuntimeError("delivery ended")
                if time.monotonic() - began_s > PATIENCE_S:
                    break
                time.sleep(0.01)  # delivery does not notify: poll its state
            took_s, cpu_s = time.monotonic() - began_s, cpu_seconds(process.pid) - began_cpu_s
            return Drain((arrived - first) / took_s, cpu_s * 1e6 / (arrived - first))
        finally:
            process.terminate()
            process.wait(30)


def run(rounds: int = 3, only: Sequence[str] = ()) -> Section:
    """Measure, and print each result at once; the figures are rates and CPU times by round."""
    print_head(__doc__ or "", METHOD)
    clean = events()
    bad = set(random.Random(25).sample(range(len(clean)), len(clean) // 4))
    mixed = [
        orjson.dumps(orjson.loads(each) | {"userId": BAD.decode()}) if n in bad else each
        for n, each in enumerate(clean)
    ]
    found: dict[str, list[tuple[Drain, Drain]]] = {}
    for number in range(rounds):
        for kind in only or KINDS:
            alone, beside = map(drain, (kind, kind), COUNTS[kind], (clean, mixed))
            found.setdefault(kind, []).append((alone, beside))
            for name, each in (("good alone", alone), ("beside bad", beside)):
                print(
                    f"  round {number + 1}: {kind:14} {name} {each.events_per_s:10,.0f}/s"
                    f" {each.cpu_us:7.2f} µs",
                    flush=True,
                )
    rows, figures = [], []
    for kind, pairs in found.items():
        rates = [alone.events_per_s for alone, _ in pairs], [each.events_per_s for _, each in pairs]
        costs = [alone.cpu_us for alone, _ in pairs], [each.cpu_us for _, each in pairs]
        rate_ratios = [beside / alone for alone, beside in zip(*rates, strict=True)]
        cost_ratios = [alone / beside for alone, beside in zip(*costs, strict=True)]
        rows += [
            (kind, "events/s", *(spread(each, 0) for each in rates), spread(rate_ratios, 3)),
            (kind, "CPU µs/event", *map(spread, costs), spread(cost_ratios, 3)),
        ]
        figures.append(
            {
                "kind": kind,
                "good_per_s": rates[0],
                "good_beside_bad_per_s": rates[1],
                "good_cpu_us": costs[0],
                "good_beside_bad_cpu_us": costs[1],
            }
        )
    head = ("destination", "good events", "alone", "beside 25 % bad ones", "of the rate alone")
    section = Section(table(head, rows), {"destinations": figures})
    print(f"\n{section.text}\n\n{goals_of('hostile', section.figures)}")
    return section


# --- the destination -------------------------------------------------------------------------


def _judge(kind: str, body: bytes) -> tuple[int, bytes]:
    if kind == "http":
        return (400, b"") if BAD in body else (200, b"")
    lines = body.split(b"\n")
    if BAD not in body:
        return 200, b'{"errors":false}'
    items = [
        {"create": _rejection(action) if BAD in document else {"status": 201}}
        for action, document in zip(lines[::2], lines[1::2], strict=False)
    ]
    return 200, orjson.dumps({"errors": True, "items": items})


def _rejection(action: bytes) -> dict[str, Any]:
    """Return the response of Elasticsearch 8 to a document with a field of the wrong type."""
    identity = orjson.loads(action)["create"]["_id"]
    reason = f"failed to parse field [userId] of type [long] in document with id '{identity}'."
    return {
        "status": 400,
        "error": {
            "type": "document_parsing_exception",
            "reason": f"[1:411] {reason} Preview of field's value: '{BAD.decode()}'",
            "caused_by": {
                "type": "illegal_argument_exception",
                "reason": f'For input string: "{BAD.decode()}"',
            },
        },
    }


class _Connection(asyncio.Protocol):
    """Read requests with a Content-Length, and respond to each after a while."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._data = bytearray()
        self._body_at = self._end = 0  # of the current request, once its head has arrived

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport  # uvloop's is not an asyncio.Transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self._end:
            head, found, _ = self._data.partition(b"\r\n\r\n")
            if not found:
                return
            _, _, rest = head.lower().partition(b"content-length: ")
            self._body_at = len(head) + 4
            self._end = self._body_at + int(rest.partition(b"\r\n")[0])
        if len(self._data) < self._end:
            return
        status, response = _judge(self._kind, bytes(self._data[self._body_at : self._end]))
        del self._data[: self._end]
        self._end = 0
        fields = f"HTTP/1.1 {status} Judged\r\nContent-Type: application/json\r\n"
        fields += f"Content-Length: {len(response)}\r\n\r\n"
        loop = asyncio.get_running_loop()
        loop.call_later(LATENCY_S, self._transport.write, fields.encode() + response)


async def _serve(kind: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(kind), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("only", nargs="*", help=f"of {', '.join(KINDS)}; else all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", choices=list(KINDS), help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        uvloop.run(_serve(options.serve, options.port))
    else:
        run(options.rounds, options.only)
