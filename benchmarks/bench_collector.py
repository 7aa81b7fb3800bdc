"""What does one collector cost, against nginx writing the same hit to a log file?"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import median

from benchmarks.corpus import write_wrk_script
from benchmarks.machine import print_head
from benchmarks.report import Section, spread, table
from benchmarks.servers import Running, collector, nginx, stored_events
from benchmarks.wrk import Round, measure

__all__ = ["run"]

METHOD = """\
Each server is one process on one core, wrk (one thread, keep-alive) is on the other; 1,000 pixels
like the documented track call, with ten headers. In turn, round by round, so that a machine that
drifts drifts for all. A warm-up first. CPU is user and system time of the server's process, all
threads, from /proc/PID/stat. Any answer but 200 is an error, and so is an answered event that is
missing in the spool at the end. Medians; in brackets the least and the most."""

CONNECTIONS = (64, 256)
Server = Callable[[Path], AbstractContextManager[Running]]
SERVERS: dict[str, Server] = {
    "nginx empty_gif + buffered access log": nginx,
    "pixelfast collector, synced before the GIF": collector,
}


def run(rounds: int = 5, seconds: int = 4) -> Section:
    """Measure and print as it goes; the figures are rounds by server and connections."""
    print_head(__doc__ or "", METHOD)
    results: dict[tuple[str, int], list[Round]] = {}
    answered = stored = 0
    for number in range(rounds):
        for name, server in SERVERS.items():
            with tempfile.TemporaryDirectory(prefix="pixelfast-bench-") as folder:
                place = Path(folder)
                with server(place / "data") as running:
                    script = place / "pixels.lua"
                    write_wrk_script(script, running.write_key)
                    warm = measure(running.pid, running.port, script, 64, 1)
                    answered += warm.requests if server is collector else 0
                    for connections in CONNECTIONS:
                        one = measure(running.pid, running.port, script, connections, seconds)
                        results.setdefault((name, connections), []).append(one)
                        answered += one.requests if server is collector else 0
                        print(
                            f"  round {number + 1} c{connections:<4} {name:44} "
                            f"{one.requests_per_s:9,.0f}/s {one.cpu_us:6.2f} µs "
                            f"p50 {one.p50_ms:.2f} p99 {one.p99_ms:.2f} ms",
                            flush=True,
                        )
                if server is collector:
                    stored += stored_events(place / "data")
    if stored < answered:
        raise RuntimeError(f"{answered:,} events were answered 200, {stored:,} are stored")
    text = _table(results)
    print("\n" + text)
    print(f"\n{answered:,} events answered 200, {stored:,} in the spool: none is missing.")
    figures: dict[str, dict[int, list[dict[str, float]]]] = {}
    for (name, connections), own in results.items():
        figures.setdefault(name, {})[connections] = [each._asdict() for each in own]
    return Section(text, figures)


def _table(results: dict[tuple[str, int], list[Round]]) -> str:
    head = "server, connections, requests/s, CPU µs/request, p50 ms, p99 ms, CPU : nginx"
    rows = []
    first = next(iter(SERVERS))
    for (name, connections), rounds in sorted(results.items(), key=lambda item: item[0][1]):
        base = results[first, connections]
        ratios = [own.cpu_us / other.cpu_us for own, other in zip(rounds, base, strict=True)]
        rows.append(
            (
                name,
                connections,
                spread([r.requests_per_s for r in rounds], 0),
                spread([r.cpu_us for r in rounds]),
                f"{median(r.p50_ms for r in rounds):.2f}",
                f"{median(r.p99_ms for r in rounds):.2f}",
                spread(ratios),
            )
        )
    return table(head.split(", "), rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    options = parser.parse_args()
    run(options.rounds, options.seconds)
