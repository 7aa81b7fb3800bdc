"""Draw the plots of a run in `benchmarks/plots/`.

`python -m benchmarks.plots` draws those of the last run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, NullFormatter

__all__ = ["draw"]

FIGURES = Path("build/benchmarks.json")
PLOTS = Path(__file__).with_name("plots")
DPI = 120
INK, GREY, GRID = "#263238", "#78909c", "#e3e8eb"
OURS, NGINX, FLOOR, RIVAL = "#e8590c", "#2b8a3e", "#b0bec5", "#4c78a8"
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "grid.color": GRID,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 2.2,
    "lines.markersize": 6,
}
Figures = dict[str, Any]


def draw(figures: dict[str, dict[str, Any]]) -> list[Path]:
    """Draw the plots that have figures; return the files in the order of RESULTS.md."""
    PLOTS.mkdir(exist_ok=True)
    drawn = []
    for name, plot in PICTURES.items():
        try:
            with mpl.rc_context(STYLE):
                picture = plot(figures)
        except KeyError as missing:
            print(f"{name}.png: no figures for {missing}")
            continue
        path = PLOTS / f"{name}.png"
        picture.savefig(path, dpi=DPI, facecolor="white")
        drawn.append(path)
    return drawn


def _canvas(title: str, under: str, columns: int = 1, height: float = 5.0) -> tuple[Figure, Any]:
    head = 0.65 + 0.2 * len(under.splitlines())
    below_the_title = (0.01, 0.01, 0.98, 0.99 - head / height)
    layout = ConstrainedLayoutEngine(rect=below_the_title, wspace=0.06)
    picture = Figure((10, height), layout=layout)
    axes = picture.subplots(1, columns)
    picture.text(0.02, 1 - 0.2 / height, title, size=15, weight="bold", va="top")
    picture.text(0.02, 1 - 0.52 / height, under, size=10, color=GREY, va="top")
    return picture, axes


def _short(value: float, _: object = None) -> str:
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _spread(samples: Sequence[Sequence[float]]) -> tuple[list[float], list[list[float]]]:
    """Return the medians, and the distances of the minima and maxima from them."""
    middle = [median(each) for each in samples]
    low = [m - min(each) for m, each in zip(middle, samples, strict=True)]
    high = [max(each) - m for m, each in zip(middle, samples, strict=True)]
    return middle, [low, high]


def _line(axes: Axes, at: Sequence[float], samples: Sequence[Sequence[float]], **how: Any) -> None:
    middle, errors = _spread(samples)
    axes.errorbar(at, middle, yerr=errors, marker="o", capsize=4, elinewidth=1.2, **how)


def _from_zero(axes: Axes, most: float) -> None:
    axes.set_ylim(0, most * 1.15)


def _colour(name: str) -> str:
    return {"pixelfast": OURS, "nginx": NGINX}.get(
        name, FLOOR if name.startswith("floor") else RIVAL
    )


def servers(figures: Figures) -> Figure:
    by_name = figures["servers"]
    names = sorted(by_name, key=lambda n: median(r["requests_per_s"] for r in by_name[n]["256"]))
    picture, (left, right) = _canvas(
        "Pixels per second of one process, and CPU time per pixel",
        "256 connections (pale: 64), one core; medians; lines from minimum to maximum.\n"
        "Only pixelfast syncs before the response. nginx decodes nothing; the floors do no work.",
        columns=2,
        height=6.6,
    )
    for axes, figure, label in (
        (left, "requests_per_s", "pixels per second"),
        (right, "cpu_us", "CPU per pixel, µs"),
    ):
        for connections, shift, height, alpha in (
            ("256", 0.12, 0.5, 1.0),
            ("64", -0.27, 0.22, 0.4),
        ):
            samples = [[each[figure] for each in by_name[n][connections]] for n in names]
            middle, errors = _spread(samples)
            axes.barh(
                [n + shift for n in range(len(names))],
                middle,
                height,
                xerr=errors if connections == "256" else None,
                color=[_colour(n) for n in names],
                alpha=alpha,
                error_kw={"ecolor": INK, "elinewidth": 1.1, "capsize": 2.5},
            )
            if connections == "256":
                most = max(max(each) for each in samples)
                for n, (value, own) in enumerate(zip(middle, samples, strict=True)):
                    text = f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
                    axes.text(max(own) + most * 0.02, n + shift, text, va="center", size=9)
        axes.set_xlim(0, axes.get_xlim()[1] * 1.1)
        axes.set_xlabel(label)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_formatter(FuncFormatter(_short))
    left.set_yticks(range(len(names)), names)
    right.set_yticks(range(len(names)), [""] * len(names))
    for label in left.get_yticklabels():
        if label.get_text() == "pixelfast":
            label.set(color=OURS, weight="bold")
    return picture


def latency(figures: Figures) -> Figure:
    loads = figures["latency"]["open_loop"]
    picture, axes = _canvas(
        "Response time at an offered rate",
        "Requests are sent at their times, whether or not earlier responses have arrived. "
        "pixelfast syncs before the response.",
    )
    for name, colour in (("nginx", NGINX), ("pixelfast", OURS)):
        by_rate: dict[float, list[dict[str, float]]] = {}
        for each in loads[name]:
            by_rate.setdefault(each["offered_per_s"], []).append(each)
        rates = sorted(by_rate)
        for figure, style, label in (("p99_ms", "-", "p99"), ("p50_ms", ":", "p50")):
            samples = [[each[figure] for each in by_rate[rate]] for rate in rates]
            _line(axes, rates, samples, color=colour, linestyle=style)
            text = f"{name} {label}"
            end = (rates[-1], median(samples[-1]))
            axes.annotate(
                text, end, (9, 0), textcoords="offset points", color=colour, va="center", size=10
            )
    axes.set_yscale("log")
    axes.set_xlim(0, axes.get_xlim()[1] * 1.1)
    axes.set_xlabel("pixels offered per second")
    axes.set_ylabel("latency, ms (logarithmic)")
    axes.xaxis.set_major_formatter(FuncFormatter(_short))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    return picture


def memory(figures: Figures) -> Figure:
    entries = figures["memory"]["connections"]
    each_bytes = median(figures["memory"]["bytes_a_connection"])
    picture, axes = _canvas(
        "Memory of idle connections",
        f"Memory of one collector with keep-alive connections open: {each_bytes:,.0f} bytes each.",
    )
    sizes = [each["collector_bytes"] / 1e6 for each in entries]
    axes.plot([each["open"] for each in entries], sizes, marker="o", color=OURS)
    _from_zero(axes, max(sizes))
    axes.set_xlabel("connections open")
    axes.set_ylabel("memory of the collector, MB")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    return picture


def delivery(figures: Figures) -> Figure:
    entries = figures["delivery"]["destinations"]
    counts = [each["count"] for each in entries]
    picture, (left, right) = _canvas(
        "Delivery of a backlog, by number of destinations",
        "One delivery process on one core; each destination gets every event.",
        columns=2,
    )
    rates = [each["events_per_s"] for each in entries]
    _line(left, counts, rates, color=OURS)
    _from_zero(left, max(max(each) for each in rates))
    left.set_ylabel("events delivered per second")
    left.yaxis.set_major_formatter(FuncFormatter(_short))
    costs = [each["cpu_us"] for each in entries]
    _line(right, counts, costs, color=OURS)
    _from_zero(right, max(max(each) for each in costs))
    right.set_ylabel("CPU per delivered event, µs")
    for axes in (left, right):
        axes.set_xlabel("destinations")
        axes.set_xticks(counts)
    return picture


def backlog(figures: Figures) -> Figure:
    entries = figures["scaling"]["backlog"]
    picture, (left, right) = _canvas(
        "Cost of a backlog",
        "CPU time to collect an event, and the memory of both processes, "
        "with that many events pending.",
        columns=2,
    )
    costs = [each["cpu_us"] for each in entries]
    _line(left, [each["events"] for each in entries], costs, color=OURS)
    _with_none(left, [each["events"] for each in entries])
    _from_zero(left, max(max(each) for each in costs))
    left.set_ylabel("CPU per collected event, µs")
    held = figures["memory"]["backlog"]
    events = [each["events"] for each in held]
    for figure, colour, name in (
        ("collector_bytes", OURS, "collector"),
        ("delivery_bytes", RIVAL, "delivery"),
    ):
        sizes = [each[figure] / 1e6 for each in held]
        right.plot(events, sizes, marker="o", color=colour, label=name)
    _from_zero(
        right, max(max(each["collector_bytes"], each["delivery_bytes"]) for each in held) / 1e6
    )
    _with_none(right, events)
    right.set_ylabel("memory, MB")
    right.legend(loc="lower right")
    for axes in (left, right):
        axes.set_xlabel("events pending")
        axes.xaxis.set_major_formatter(FuncFormatter(_short))
        axes.xaxis.set_minor_formatter(NullFormatter())
    return picture


def _with_none(axes: Any, events: list[int]) -> None:
    """Make the axis logarithmic, with a place for an empty backlog."""
    least = min(n for n in events if n)
    axes.set_xscale("symlog", linthresh=least)
    axes.set_xlim(-least / 5 if 0 in events else least / 2, max(events) * 2)


PICTURES: dict[str, Callable[[Figures], Figure]] = {
    "servers": servers,
    "latency": latency,
    "memory": memory,
    "delivery": delivery,
    "backlog": backlog,
}


if __name__ == "__main__":
    for path in draw(json.loads(FIGURES.read_text())):
        print(path)
