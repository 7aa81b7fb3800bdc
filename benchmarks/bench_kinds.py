"""Cost of a pixel by its headers, its source and its shape."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.bench_scaling import CONNECTIONS, Round, Server, Size, load
from benchmarks.corpus import HEADERS, targets, write_script
from benchmarks.machine import print_head
from benchmarks.report import Section, spread, table
from benchmarks.servers import collector
from benchmarks.wrk import LOAD_CORE
from pixelfast.spool import DataDir, LogEnd

__all__ = ["run"]

METHOD = """\
One collector that syncs its events runs on one core, and wrk (one thread, 256 keep-alive
connections) on the other. All kinds of pixels go to the same process and take turns in each round.
Each figure covers two seconds with all connections open and busy: CPU (user and system, all threads
of the collector) per event that reached the spool in that time. A response other than 200 is an
error, and so is an event that had a 200 and is missing in the spool. The figures are medians, with
the minimum and the maximum in parentheses; a ratio compares a kind with the plain pixel of the same
round.

- plain: the documented track call with ten headers, as nginx forwards it.
- `Connection: keep-alive`: the same with this header, as browsers send it.
- fill: the same for a source with `fill = ["ip", "referer", "locale"]`.
- messageId and times: the same with `messageId`, `originalTimestamp` and `sentAt`.
- new shapes: the same with a parameter whose name differs in each of 20,000 pixels, so that no
  shape has a template."""

PLAIN = "plain"
KEPT = "`Connection: keep-alive`"
FILL = "fill"
TIMES = "messageId and times"
NEW = "new shapes"
NEW_SHAPES = 20_000
SETTINGS = """
[[sources]]
name = "plain"
write_keys = ["wk-plain"]
[[sources]]
name = "fill"
write_keys = ["wk-fill"]
fill = ["ip", "referer", "locale"]
"""


class Kind(NamedTuple):
    """The pixels of a kind."""

    targets: list[str]
    headers: Mapping[str, str] = HEADERS


def _new_shapes(plain: list[str]) -> list[str]:
    return [f"{plain[n % len(plain)]}&properties.p{n}=1" for n in range(NEW_SHAPES)]


def _with_times(plain: list[str]) -> list[str]:
    return [
        f"{target}&messageId=m-{n * 7919}&originalTimestamp=2026-11-23T10%3A15%3A{n % 60:02}.123Z"
        f"&sentAt=2026-11-23T10%3A16%3A{n % 60:02}.456Z"
        for n, target in enumerate(plain)
    ]


KINDS: dict[str, Callable[[list[str]], Kind]] = {
    PLAIN: Kind,
    KEPT: lambda plain: Kind(plain, {**HEADERS, "Connection": "keep-alive"}),
    FILL: lambda _: Kind(targets("wk-fill")),
    TIMES: lambda plain: Kind(_with_times(plain)),
    NEW: lambda plain: Kind(_new_shapes(plain)),
}


@contextmanager
def kinds(folder: Path) -> Iterator[dict[str, Size]]:
    """Run a collector; each kind has a script for wrk."""
    data, settings, plain = folder / "data", folder / "pixelfast.toml", targets("wk-plain")
    settings.write_text(SETTINGS)
    with collector(data, "-c", str(settings)) as found:
        ends = [LogEnd(DataDir.find(data), 0)]
        sizes = {}
        for number, (name, make) in enumerate(KINDS.items()):
            script = folder / f"{number}.lua"
            kind = make(plain)
            write_script(script, kind.targets, kind.headers)
            server = Server([found.pid], found.port, script, ends)
            sizes[name] = Size(len(kind.targets), server, CONNECTIONS)
        yield sizes


def run(rounds: int = 5, seconds: float = 2.0) -> Section:
    """Measure, and print each result at once; the figures are rounds by kind."""
    print_head(__doc__ or "", METHOD)
    found: dict[str, list[Round]] = {name: [] for name in KINDS}
    with (
        tempfile.TemporaryDirectory(prefix="pixelfast-bench-") as place,
        kinds(Path(place)) as all_,
    ):
        for number in range(rounds):
            for name, size in all_.items():
                one = load(size, seconds, str(LOAD_CORE))
                found[name].append(one)
                print(
                    f"  round {number + 1} {name:24} {one.requests_per_s:9,.0f}/s "
                    f"{one.cpu_us:6.2f} µs",
                    flush=True,
                )
    rows = []
    for name, own in found.items():
        ratios = [one.cpu_us / plain.cpu_us for one, plain in zip(own, found[PLAIN], strict=True)]
        costs = [one.cpu_us for one in own]
        rates = [one.requests_per_s for one in own]
        rows.append((name, spread(rates, 0), spread(costs), spread(ratios)))
    text = table(("pixels", "requests/s", "CPU µs/request", ": plain"), rows)
    print("\n" + text)
    figures: dict[str, Any] = {
        name: {"cpu_us": [one.cpu_us for one in own]} for name, own in found.items()
    }
    return Section(text, figures)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    run(options.rounds, options.seconds)
