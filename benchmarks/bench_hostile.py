"""How fast do good events reach a destination that rejects a quarter of what it is sent?"""

from __future__ import annotations

import argparse
import asyncio
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import uvloop

from benchmarks.backlog import SOURCE, events, fill
from benchmarks.bench_delivery import delivered
from benchmarks.machine import print_head
from benchmarks.report import Section, spread, table
from benchmarks.servers import free_port, wait_for, wait_until
from benchmarks.wrk import LOAD_CORE, SERVER_CORE

__all__ = ["run"]

METHOD = """\
A spool is filled, then delivery brings it to a destination on the other core that takes 2 ms for
each answer: first where all events are good, then where the destination rejects every fourth event.
One kind of destination rejects a whole batch for one bad event (`http`, `json_array`, 500 events a
batch, status 400), the other answers for each event (`elasticsearch`, 1,000). From the first plan
to the record of the last good event; a run that is not done after 30 s counts what arrived by then.
Events of the `http` backlog are fewer: each bad event costs requests there. Medians; in brackets
the least and the most."""

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
COUNTS = {"http": 20_000, "elasticsearch": 200_000}


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


def drain(kind: str, count: int, own: list[bytes]) -> float:
    """Good events a second that reach a destination.

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
            wait_until(path.exists, "started: delivery")
            began_s = time.monotonic()
            while (arrived := delivered(path)) < good:
                if process.poll() is not None:
                    raise RuntimeError("delivery ended")
                if time.monotonic() - began_s > PATIENCE_S:
                    break
                time.sleep(0.01)  # delivery tells nobody: its books are read again
            return arrived / (time.monotonic() - began_s)
        finally:
            process.terminate()
            process.wait(30)


def run(rounds: int = 3) -> Section:
    """Measure and print as it goes; the figures are rates, round by round."""
    print_head(__doc__ or "", METHOD)
    clean = events()
    bad = set(random.Random(25).sample(range(len(clean)), len(clean) // 4))
    mixed = [
        orjson.dumps(orjson.loads(each) | {"userId": BAD.decode()}) if n in bad else each
        for n, each in enumerate(clean)
    ]
    found: dict[tuple[str, str], list[float]] = {}
    for number in range(rounds):
        for kind, count in COUNTS.items():
            for name, own in (("good", clean), ("mixed", mixed)):
                rate = drain(kind, count, own)
                found.setdefault((kind, name), []).append(rate)
                print(f"  round {number + 1}: {kind:14} {name:6} {rate:10,.0f} good/s", flush=True)
    rows, figures = [], []
    for kind in KINDS:
        alone, beside = found[kind, "good"], found[kind, "mixed"]
        ratios = [each / one for each, one in zip(beside, alone, strict=True)]
        rows.append((kind, spread(alone, 0), spread(beside, 0), spread(ratios)))
        figures.append({"kind": kind, "good_per_s": alone, "good_beside_bad_per_s": beside})
    head = ("destination", "good events/s", "beside 25 % that it rejects", ": alone")
    text = table(head, rows)
    print("\n" + text)
    return Section(text, {"destinations": figures})


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
    """What Elasticsearch 8 says of a document whose field has another type than its mapping."""
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
    """Reads requests with a Content-Length to their ends and answers each after a while."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._data = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport  # uvloop's is no asyncio.Transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            return
        at = self._data.lower().index(b"content-length: ", 0, end) + 16
        stop = end + 4 + int(self._data[at : self._data.index(b"\r\n", at)])
        if len(self._data) < stop:
            return
        status, answer = _judge(self._kind, bytes(self._data[end + 4 : stop]))
        del self._data[:stop]
        head = f"HTTP/1.1 {status} Judged\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {len(answer)}\r\n\r\n"
        loop = asyncio.get_running_loop()
        loop.call_later(LATENCY_S, self._transport.write, head.encode() + answer)


async def _serve(kind: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(kind), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", choices=list(KINDS), help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        uvloop.run(_serve(options.serve, options.port))
    else:
        run(options.rounds)
