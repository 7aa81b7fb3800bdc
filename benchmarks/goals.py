"""Compare the figures of a run with the goals.

`python -m benchmarks.goals` prints the table of the last run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks.report import spread, table

__all__ = ["NOTE", "goals", "goals_of"]

FIGURES = Path("build/benchmarks.json")
CONNECTIONS = ("64", "256")
# CPU time per request of RudderStack's gateway with PostgreSQL, as a multiple of nginx's.
RUDDERSTACK_TO_NGINX = {"64": 23.0, "256": 17.0}
SECTIONS = 15
NOISE = 1.1  # smaller ratios count as equal
NOTE = """\
RudderStack's gateway cannot be installed by a package manager, so it is not part of this run. On
another machine, in turns with the same nginx, the gateway and PostgreSQL together took 23 times
nginx's CPU time per request at 64 connections and 17 times at 256. The ratio of pixelfast to them
is its own ratio to nginx divided by that."""

_HEAD = ("what", "goal", "measured", "reached")

Figures = dict[str, Any]
Finding = tuple[str, str]  # the figure, and whether it reaches the goal


class Goal(NamedTuple):
    """A row of the table. `find` raises KeyError where its figures are missing."""

    what: str
    goal: str
    find: Callable[[Figures], Finding]


def goals(figures: dict[str, dict[str, Any]]) -> str:
    """Return the goals as a table in Markdown, with a note below it.

    Raises:
        KeyError: a figure is missing although its section was measured.
    """
    rows = []
    for each in GOALS:
        try:
            measured, reached = each.find(figures)
        except KeyError as missing:
            if missing.args[0] in figures or len(figures) == SECTIONS:
                raise
            measured, reached = "not measured", ""
        rows.append((each.what, each.goal, measured, reached))
    return f"{table(_HEAD, rows)}\n\n{NOTE}"


def goals_of(section: str, figures: Figures) -> str:
    """Return the goals that the figures of one section decide, as a table in Markdown."""
    rows = []
    for each in GOALS:
        try:
            measured, reached = each.find({section: figures})
        except KeyError:
            continue
        rows.append((each.what, each.goal, measured, reached))
    return table(_HEAD, rows)


def _ratios(figures: Figures, name: str, other: str, count: str, figure: str) -> list[float]:
    """Return the ratios of the figures of two servers, by round."""
    pairs = zip(figures["servers"][name][count], figures["servers"][other][count], strict=True)
    return [one[figure] / two[figure] for one, two in pairs]


def _one(entries: list[dict[str, Any]], name: str, wanted: float) -> dict[str, Any]:
    for each in entries:
        if each[name] == wanted:
            return each
    raise KeyError(wanted)


def _at_most(values: Sequence[float], *limits: float, unit: str = "", digits: int = 2) -> Finding:
    """Compare a figure with a maximum; the first of several limits is the first step."""
    met = [median(values) <= limit for limit in limits]
    return f"{spread(values, digits)}{unit}", _in_words(met)


def _at_least(values: Sequence[float], limit: float, unit: str = "", digits: int = 2) -> Finding:
    return f"{spread(values, digits)}{unit}", _in_words([median(values) >= limit])


def _in_words(met: list[bool]) -> str:
    return "yes" if all(met) else "the first step" if any(met) else "no"


def _at_both(find: Callable[[str], Finding]) -> Finding:
    """Combine the findings at 64 and 256 connections, of which the worse counts."""
    found = {count: find(count) for count in CONNECTIONS}
    worst = min(
        (reached for _, reached in found.values()), key=["no", "the first step", "yes"].index
    )
    return "; ".join(f"c{count} {measured}" for count, (measured, _) in found.items()), worst


# The maximum ratio of the CPU time per request to nginx's, and the minimum of the requests/s.
CPU_OF_COLLECTOR = {"64": 1.25, "256": 0.95}
RATE_OF_COLLECTOR = {"64": 0.75, "256": 1.0}
CPU_OF_EVERYTHING = {"64": 1.4, "256": 1.15}
RATE_OF_EVERYTHING = {"64": 0.7, "256": 0.85}
CPU_WITH_HTTP = 1.25
CPU_OF_REPLICATION = 1.15  # to that of an event that is synced


def _cpu_to_nginx(figures: Figures) -> Finding:
    return _at_both(
        lambda count: _at_most(
            _ratios(figures, "pixelfast", "nginx", count, "cpu_us"), CPU_OF_COLLECTOR[count]
        )
    )


def _rate_to_nginx(figures: Figures) -> Finding:
    return _at_both(
        lambda count: _at_least(
            _ratios(figures, "pixelfast", "nginx", count, "requests_per_s"),
            RATE_OF_COLLECTOR[count],
        )
    )


def _everything(figures: Figures, name: str, count: str, figure: str) -> list[float]:
    """Return the ratios of a figure of all processes to nginx's, by round."""
    return _ratios({"servers": figures["everything"]["servers"]}, name, "nginx", count, figure)


def _cpu_of_replication(figures: Figures) -> Finding:
    if not (found := figures["cluster"]):
        return "not measured", ""
    return _at_both(
        lambda count: _at_most(
            _ratios({"servers": found["collectors"]}, "replicated", "synced", count, "cpu_us"),
            CPU_OF_REPLICATION,
        )
    )


def _cpu_of_everything(figures: Figures) -> Finding:
    return _at_both(
        lambda count: _at_most(
            _everything(figures, "file", count, "cpu_us"), CPU_OF_EVERYTHING[count]
        )
    )


def _rate_of_everything(figures: Figures) -> Finding:
    return _at_both(
        lambda count: _at_least(
            _everything(figures, "file", count, "requests_per_s"), RATE_OF_EVERYTHING[count]
        )
    )


def _steady(figures: Figures) -> Finding:
    """Every round counts, not the median. nginx has no goal: it shows what the machine adds."""
    steady = figures["everything"]["steady"]
    p99s = {name: [each["p99_ms"] for each in own] for name, own in steady.items()}
    measured = "; ".join(f"{name} {spread(own)} ms" for name, own in p99s.items())
    return measured, _in_words([max(p99s[name]) <= 5 for name in p99s if name != "nginx"])


def _first_run(cache: str) -> Callable[[Figures], Finding]:
    return lambda figures: _at_most(figures["first_run"][cache], 45.0, unit=" s", digits=0)


def _rate_to(other: str, limit: float, digits: int) -> Callable[[Figures], Finding]:
    return lambda figures: _at_both(
        lambda count: _at_least(
            _ratios(figures, "pixelfast", other, count, "requests_per_s"), limit, " times", digits
        )
    )


def _rudderstack(figures: Figures) -> Finding:
    """Return the ratio as a fraction 1/n, of which a larger n is better."""

    def find(count: str) -> Finding:
        ratios = _ratios(figures, "pixelfast", "nginx", count, "cpu_us")
        parts = [RUDDERSTACK_TO_NGINX[count] / ratio for ratio in ratios]
        low, middle, high = min(parts), median(parts), max(parts)
        reached = _in_words([middle >= 15, middle >= 20])
        return f"1/{middle:.1f} (1/{low:.1f} to 1/{high:.1f})", reached

    return _at_both(find)


def _idle(figures: Figures) -> Finding:
    idle = figures["latency"]["idle"]
    latency, sync = idle["latency_ms"], idle["fdatasync_ms"]
    over = median(latency) - median(sync)
    measured = f"{over:+.2f} ms: {spread(latency)} ms, of it one fdatasync {spread(sync)}"
    return measured, _in_words([over <= 0.2])


def _half_rate(figures: Figures) -> Finding:
    loads = [each for each in figures["latency"]["open_loop"]["pixelfast"] if each["share"] == 0.5]
    if not loads:
        raise KeyError(0.5)
    return _at_most(loads[0]["p99_ms_by_round"], 5.0, unit=" ms")


def _many_destinations(figures: Figures) -> Finding:
    entries = figures["delivery"]["destinations"]
    one, most = _one(entries, "count", 1), max(entries, key=lambda each: each["count"])
    if most is one:
        raise KeyError("count")
    ratio = median(most["cpu_us"]) / median(one["cpu_us"])
    return f"{ratio:.2f} with {most['count']} destinations", _in_words([ratio <= NOISE])


def _beside_bad(kind: str) -> Callable[[Figures], Finding]:
    def find(figures: Figures) -> Finding:
        own = [each for each in figures["hostile"]["destinations"] if each["kind"] == kind]
        if not own:
            raise KeyError(kind)
        rates = zip(own[0]["good_beside_bad_per_s"], own[0]["good_per_s"], strict=True)
        costs = zip(own[0]["good_cpu_us"], own[0]["good_beside_bad_cpu_us"], strict=True)
        measured, reached = _at_least([beside / alone for beside, alone in rates], 0.5, digits=3)
        return f"{measured}; by CPU {spread([one / two for one, two in costs], 3)}", reached

    return find


def _live_lag(figures: Figures) -> Finding:
    cases = figures["live"]["cases"]
    over = [(median(each["lag_p99_ms"]) - each["bound_ms"], each) for each in cases]
    _, worst = max(over, key=lambda pair: pair[0])
    place = f"{worst['kind']}, {worst['workers']} collectors, {worst['connections']} connections"
    measured = f"{spread(worst['lag_p99_ms'], 0)} of {worst['bound_ms']:.0f} ms with {place}"
    return measured, _in_words([max(ms for ms, _ in over) <= 0])


def _live_cpu(connections: int, limit: float) -> Callable[[Figures], Finding]:
    def find(figures: Figures) -> Finding:
        own = [each for each in figures["live"]["cases"] if each["connections"] == connections]
        if not own:
            raise KeyError(connections)
        worst = max(own, key=lambda each: median(each["cpu_us"]))
        measured, reached = _at_most(worst["cpu_us"], limit, unit=" µs")
        return f"{measured} with {worst['kind']}, {worst['workers']} collectors", reached

    return find


def _kind(name: str, limit: float) -> Callable[[Figures], Finding]:
    """Compare the CPU time of a kind of pixel with that of the plain pixel."""

    def find(figures: Figures) -> Finding:
        kinds = figures["kinds"]
        pairs = zip(kinds[name]["cpu_us"], kinds["plain"]["cpu_us"], strict=True)
        return _at_most([one / plain for one, plain in pairs], limit)

    return find


def _many_sources(figures: Figures) -> Finding:
    entries = figures["scaling"]["sources"]
    pairs = zip(
        _one(entries, "count", 5_000)["cpu_us"], _one(entries, "count", 1)["cpu_us"], strict=True
    )
    return _at_most([many / one for many, one in pairs], 1.1)


def _backlog_memory(figures: Figures) -> Finding:
    entries = figures["memory"]["backlog"]
    sizes = [each["collector_bytes"] / 1e6 for each in entries]
    events = max(each["events"] for each in entries)
    measured = f"{min(sizes):.1f} to {max(sizes):.1f} MB, up to {events:,} events pending"
    return measured, _in_words([max(sizes) <= min(80.0, NOISE * min(sizes))])


def _cold_start(figures: Figures) -> Finding:
    found = figures["memory"]["cold_start"]
    pending = found["pending_bytes"] / 2**30
    measured, reached = _at_most(found["first_response_s"], 1.0, unit=" s")
    return (
        f"{measured}, {pending:.1f} GiB pending",
        reached if pending >= 10 else f"{reached}, so far",
    )


GOALS = (
    Goal(
        "synced events/s of one collector : nginx's `empty_gif` and log",
        "≥ 0.75 at 64 connections, ≥ 1.0 at 256",
        _rate_to_nginx,
    ),
    Goal(
        "CPU a synced event : nginx's a logged hit",
        "≤ 1.25 at 64 connections, ≤ 0.95 at 256",
        _cpu_to_nginx,
    ),
    Goal(
        "CPU an event stored and delivered to a file, of all processes : nginx's a logged hit",
        "≤ 1.4 at 64 connections, ≤ 1.15 at 256",
        _cpu_of_everything,
    ),
    Goal(
        "events/s stored and delivered to a file, all processes on one core : nginx",
        "≥ 0.7 at 64 connections, ≥ 0.85 at 256",
        _rate_of_everything,
    ),
    Goal(
        "CPU an event stored and delivered by HTTP, of all processes : nginx's, 256 connections",
        "≤ 1.25",
        lambda figures: _at_most(_everything(figures, "http", "256", "cpu_us"), CPU_WITH_HTTP),
    ),
    Goal(
        "events/s against Granian with the same decoder, not synced",
        "≥ 1.5 times",
        _rate_to("granian", 1.5, 2),
    ),
    Goal(
        "events/s against FastAPI on uvicorn in plain Python, not synced",
        "≥ 16 times",
        _rate_to("fastapi plain", 16.0, 1),
    ),
    Goal(
        "CPU a stored event against RudderStack's gateway and PostgreSQL (derived, see below)",
        "≤ 1/15, then 1/20",
        _rudderstack,
    ),
    Goal(
        "decode, stamp and encode the documented URL",
        "≤ 1.8 µs",
        lambda figures: _at_most(
            figures["decode"]["+ stamp and encode: the whole"], 1.8, unit=" µs"
        ),
    ),
    Goal(
        "CPU of a collector an event, replicated to Kafka : synced",
        f"≤ {CPU_OF_REPLICATION:g}",
        _cpu_of_replication,
    ),
    Goal(
        "CPU a pixel with `Connection: keep-alive` : without it",
        "≤ 1.02",
        _kind("`Connection: keep-alive`", 1.02),
    ),
    Goal("CPU a pixel of a source with `fill` : without it", "≤ 1.1", _kind("fill", 1.1)),
    Goal(
        "CPU a pixel with `messageId` and times : without them",
        "≤ 1.1",
        _kind("messageId and times", 1.1),
    ),
    Goal("CPU a pixel, 5,000 sources : one", "≤ 1.1", _many_sources),
    Goal("idle latency of one connection, synced", "one fdatasync + 0.2 ms", _idle),
    Goal("p99 at half the top rate, synced", "≤ 5 ms", _half_rate),
    Goal(
        "p99 at 75 % of the top rate, synced, over several segments",
        "≤ 5 ms in every round",
        _steady,
    ),
    Goal(
        "drain a backlog to one HTTP destination",
        "≥ 400,000 events/s",
        lambda figures: _at_least(
            _one(figures["delivery"]["destinations"], "count", 1)["events_per_s"], 400_000, "/s", 0
        ),
    ),
    Goal(
        "CPU of delivery an event, one destination",
        "≤ 2 µs",
        lambda figures: _at_most(
            _one(figures["delivery"]["destinations"], "count", 1)["cpu_us"], 2.0, unit=" µs"
        ),
    ),
    Goal(
        "k destinations cost k times that: CPU a delivered event, k destinations : one",
        "≤ 1, except for 10 % of noise",
        _many_destinations,
    ),
    Goal(
        "lag of delivery while pixels arrive, p99, the worst case",
        "≤ the age of a batch + 0.5 s",
        _live_lag,
    ),
    Goal(
        "CPU of delivery an event at 1,500 pixels/s from one connection",
        "≤ 20 µs",
        _live_cpu(0, 20.0),
    ),
    Goal("CPU of delivery an event at full load", "≤ 2 µs", _live_cpu(256, 2.0)),
    Goal(
        "good events/s beside 25 % that the destination rejects one by one : without them",
        "≥ 0.5",
        _beside_bad("elasticsearch"),
    ),
    Goal(
        "the same, if the destination rejects whole batches for them",
        "≥ 0.5",
        _beside_bad("http"),
    ),
    Goal(
        "collector memory of an idle keep-alive connection",
        "≤ 4 KB",
        lambda figures: _at_most(
            figures["memory"]["bytes_a_connection"], 4096, unit=" bytes", digits=0
        ),
    ),
    Goal("collector memory, whatever the backlog", "flat, ≤ 80 MB", _backlog_memory),
    Goal("cold start to the first response, 10 GiB pending", "≤ 1 s", _cold_start),
    Goal(
        "`make run` in a fresh clone to the first response, pip's cache empty",
        "≤ 45 s",
        _first_run("cold"),
    ),
    Goal("the same, pip's cache filled", "≤ 45 s", _first_run("warm")),
)


if __name__ == "__main__":
    print(goals(json.loads(FIGURES.read_text())))
