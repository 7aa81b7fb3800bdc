"""All metrics in the text format of Prometheus."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from pixelfast import __version__
from pixelfast.config import Config
from pixelfast.operate.cluster_metrics import cluster_metrics
from pixelfast.operate.collector_metrics import OfSlot, collector_metrics
from pixelfast.operate.delivery_metrics import delivery_metrics, delivery_totals, known_destinations
from pixelfast.operate.disk_space import DiskSpace
from pixelfast.operate.families import counter, duration_histogram, gauge
from pixelfast.operate.reload import ReloadState
from pixelfast.operate.totals import Totals
from pixelfast.spool.histograms import HistogramFigures

__all__ = ["Machine", "exposition"]


class _Process(Protocol):
    name: str
    starts: int
    reported_at_s: float
    figures: dict[str, Any]
    totals: Totals

    @property
    def pid(self) -> int | None: ...

    @property
    def is_silent(self) -> bool: ...


class _Processes(Protocol):
    @property
    def collectors(self) -> Sequence[Any]: ...

    @property
    def deliveries(self) -> Sequence[Any]: ...

    @property
    def children(self) -> Sequence[Any]: ...


class _Server(Protocol):
    name: str
    config: Config
    processes: Any
    reload_state: ReloadState

    @property
    def is_ready(self) -> bool: ...

    @property
    def uptime_s(self) -> float: ...


class Machine(Protocol):
    """Measures the disk and the event loop."""

    @property
    def disk(self) -> DiskSpace | None: ...

    @property
    def full_in_s(self) -> float | None: ...

    def lag_figures(self) -> HistogramFigures:
        """Return the lag of the event loop."""


def exposition(server: _Server, machine: Machine) -> bytes:
    """Return all metrics in the text format of Prometheus, version 0.0.4."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_FromFigures(server, machine))
    return generate_latest(registry)


class _FromFigures(Collector):
    def __init__(self, server: _Server, machine: Machine) -> None:
        self._server = server
        self._machine = machine

    def collect(self) -> Iterator[Metric]:
        processes: _Processes = self._server.processes
        yield from _of_program(self._server)
        yield from _of_reloads(self._server.reload_state)
        yield from _of_machine(self._machine)
        yield from _of_reports(self._server.name, processes.children, self._machine)
        yield from _of_system(_pids(self._server.name, processes))
        slots = _slots(processes.collectors)
        yield from collector_metrics(slots)
        yield from delivery_metrics(processes.deliveries)
        destinations = known_destinations(processes.deliveries)
        yield from cluster_metrics(slots, destinations, delivery_totals(processes.deliveries))


def _of_program(server: _Server) -> Iterator[Metric]:
    yield gauge(
        "pixelfast_build_info",
        "Always 1; the labels are the running versions.",
        ["version", "python_version"],
        [([__version__, platform.python_version()], 1)],
    )
    cluster = server.config.cluster
    yield gauge(
        "pixelfast_node_info",
        "Always 1; the label is the name of this machine. Absent without [cluster].",
        ["node"],
        [] if cluster is None else [([cluster.node_name], 1)],
    )
    yield gauge(
        "pixelfast_ready",
        "1 if every collector can store events, otherwise 0; the same as /health/ready. Of "
        "`pixelfast deliver`: 1 if it can deliver to all destinations.",
        [],
        [([], server.is_ready)],
    )
    yield gauge(
        "pixelfast_uptime_seconds",
        "Time since the server started.",
        [],
        [([], server.uptime_s)],
    )


def _of_reloads(state: ReloadState) -> Iterator[Metric]:
    """Yield the metrics of reloads, named as those of Prometheus itself."""
    yield gauge(
        "pixelfast_config_last_reload_successful",
        "1 if the last reload or start succeeded, 0 if the settings were rejected.",
        [],
        [([], state.is_successful)],
    )
    yield gauge(
        "pixelfast_config_last_reload_success_timestamp_seconds",
        "Time of the last successful reload or start, since 1970.",
        [],
        [([], state.succeeded_at_s)],
    )


def _of_machine(machine: Machine) -> Iterator[Metric]:
    disk, full_in_s = machine.disk, machine.full_in_s
    yield gauge(
        "pixelfast_disk_free_bytes",
        "Free bytes of the file system of the data directory.",
        [],
        [] if disk is None else [([], disk.free_bytes)],
    )
    yield gauge(
        "pixelfast_disk_size_bytes",
        "Size of the file system of the data directory in bytes.",
        [],
        [] if disk is None else [([], disk.size_bytes)],
    )
    yield gauge(
        "pixelfast_spool_full_in_seconds",
        "Time until a slot reaches its limit or the disk reaches spool.min_free, at the rate of "
        "the last 5 minutes; 0 if it is reached, absent if the space does not decrease.",
        [],
        [] if full_in_s is None else [([], full_in_s)],
    )


def _of_reports(name: str, children: Sequence[_Process], machine: Machine) -> Iterator[Metric]:
    label = ["process"]
    yield counter(
        "pixelfast_process_starts",
        "Number of times the process was started.",
        label,
        (([child.name], child.starts) for child in children),
    )
    yield gauge(
        "pixelfast_process_last_report_timestamp_seconds",
        "Time of the last report of the process, since 1970; a process reports every second.",
        label,
        (([child.name], child.reported_at_s) for child in children if child.reported_at_s),
    )
    lags = [(child.name, child.totals.value.get("loop_lag")) for child in children]
    yield duration_histogram(
        "pixelfast_event_loop_lag_seconds",
        "Delay of timers in the event loop, measured four times a second.",
        label,
        [
            ([name], machine.lag_figures()),
            *(([child], lag) for child, lag in lags if lag is not None),
        ],
    )


def _of_system(pids: Mapping[str, int]) -> Iterator[Metric]:
    """Yield the process metrics that all Prometheus clients provide, for each process."""
    families: dict[str, Metric] = {}
    for name, pid in pids.items():
        for found in ProcessCollector(pid=partial(int, pid), registry=None).collect():
            family = families.setdefault(
                found.name, Metric(found.name, found.documentation, found.type)
            )
            for sample in found.samples:
                family.add_sample(sample.name, {"process": name}, sample.value)
    yield from families.values()


def _pids(name: str, processes: _Processes) -> dict[str, int]:
    running = {child.name: child.pid for child in processes.children}
    return {
        name: os.getpid(),
        **{child: pid for child, pid in running.items() if pid is not None},
    }


def _slots(collectors: Sequence[_Process]) -> list[OfSlot]:
    """Return the figures of each slot; those of a silent process are only totals."""
    return [
        OfSlot(
            child.name.rpartition("-")[2],
            {} if child.is_silent else child.figures,
            child.totals.value,
        )
        for child in collectors
    ]
