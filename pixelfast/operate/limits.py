"""Compares the limits of the system with the settings, before any process starts.

The soft limit of open files is raised to the hard limit, which all processes inherit. Settings that
cannot work within the limits are rejected. Limits that only reduce what settings allow are logged.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from pixelfast.collect import connections_within, files_of_connections
from pixelfast.config import Config, FileDestination, format_bytes
from pixelfast.errors import PixelfastError
from pixelfast.operate.spread import max_processes

__all__ = ["Limits", "apply_limits", "memory_limit"]

_MIN_CONNECTIONS = 64  # of a collector; a single web page may open almost as many
_MUCH_LOWER = 0.9  # share of the setting; a smaller reduction is not logged
_OPEN_FILES_REMEDY = "raise it with LimitNOFILE= in the systemd unit, or with `ulimit -n`"
# Descriptors of the supervisor: those of the interpreter and of admin connections; for each process
# its connection, its pipes and its pidfd.
_SUPERVISOR_FILES = 48 + 64
_FILES_A_PROCESS = 4
# Descriptors of a delivery process: those of the interpreter; for each destination its state, its
# dead letters, their journals, a lock, a segment and a connection.
_DELIVERY_FILES = 48
_FILES_A_DESTINATION = 8
# Memory of a process in addition to what its settings limit.
_PROCESS_BYTES = 64 * 2**20
_ADDRESS_SPACE_BYTES = 256 * 2**20  # the same, including mapped memory that is never used


class Limits(NamedTuple):
    """The limits after `apply_limits`."""

    open_files: int
    connections: int  # that one collector accepts


def apply_limits(config: Config, workers: int, *, cgroup_root: str = "/sys/fs/cgroup") -> Limits:
    """Raise the limit of open files to its maximum, and check all limits against the settings.

    Limits that reduce what the settings allow are logged.

    Raises:
        PixelfastError: the server cannot work within a limit. The message contains the remedy.
    """
    log = structlog.get_logger("supervisor")
    open_files = _raise_open_files()
    _check_open_files(config, workers, open_files)
    _check_file_size(config)
    _check_address_space()
    connections = connections_within(config.server, open_files)
    wanted = config.server.max_connections
    if connections < _MUCH_LOWER * wanted:
        log.warning(
            "max_connections_lowered",
            configured=wanted,
            used=connections,
            open_files_limit=open_files,
            needed=files_of_connections(config.server, wanted),
            remedy=_OPEN_FILES_REMEDY,
        )
    for shortage in _memory_shortages(config, workers, cgroup_root):
        log.warning("memory_limit_low", **shortage)
    cores = len(os.sched_getaffinity(0))
    if workers > cores:
        log.warning(
            "workers_exceed_cores",
            workers=workers,
            cores=cores,
            remedy="set server.workers to 0 or to the number of cores",
        )
    return Limits(open_files, connections)


def _raise_open_files() -> int:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return hard
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # above fs.nr_open, which was lowered
        return soft
    return hard


def _check_open_files(config: Config, workers: int, open_files: int) -> None:
    listening = len(config.server.addresses) * workers
    least = min(config.server.max_connections, _MIN_CONNECTIONS)
    needs = {
        "a collector": files_of_connections(config.server, least),
        "the supervisor": _SUPERVISOR_FILES
        + listening
        + _FILES_A_PROCESS * (workers + _deliveries(config)),
        "delivery": _DELIVERY_FILES + _FILES_A_DESTINATION * len(config.destinations),
    }
    process, needed = max(needs.items(), key=lambda need: need[1])
    if open_files < needed:
        raise PixelfastError(
            f"the limit of open files is {open_files:,}; {process} needs at least {needed:,}, and "
            f"{files_of_connections(config.server, config.server.max_connections):,} for "
            f"server.max_connections = {config.server.max_connections:,}; {_OPEN_FILES_REMEDY}"
        )


def _deliveries(config: Config) -> int:
    """Return the number of delivery processes."""
    return min(len(config.destinations), max_processes(config, len(os.sched_getaffinity(0))))


def _check_file_size(config: Config) -> None:
    """Reject a limit below the size of a file, which would make writes fail."""
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit == resource.RLIM_INFINITY:
        return
    for setting, size in _file_sizes(config):
        if size > limit:
            raise PixelfastError(
                f"the limit of file sizes is {format_bytes(limit)}; {setting} is"
                f" {format_bytes(size)}; raise it with LimitFSIZE= in the systemd unit, or with"
                " `ulimit -f`"
            )


def _check_address_space() -> None:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < _ADDRESS_SPACE_BYTES:
        raise PixelfastError(
            f"the limit of address space is {format_bytes(limit)}; a process needs at least"
            f" {format_bytes(_ADDRESS_SPACE_BYTES)}; raise it with LimitAS= in the systemd unit, or"
            " with `ulimit -v`"
        )


def _file_sizes(config: Config) -> Iterator[tuple[str, int]]:
    yield "spool.segment_bytes", config.spool.segment_bytes
    for each in config.destinations:
        if isinstance(each, FileDestination):
            yield f"destinations[{each.name}].rotate_bytes", each.rotate_bytes


def _memory_shortages(config: Config, workers: int, cgroup_root: str) -> Iterator[dict[str, Any]]:
    collector = config.server.max_memory + config.spool.max_waiting_bytes
    delivery = config.deliver.max_memory  # includes the memory of the process itself
    needs = {
        "address space of a process (`ulimit -v`, LimitAS=)": (
            resource.getrlimit(resource.RLIMIT_AS)[0],
            _ADDRESS_SPACE_BYTES + max(collector, delivery),
        ),
        "memory of all processes (cgroup, MemoryMax=)": (
            memory_limit(cgroup_root),
            workers * (_PROCESS_BYTES + collector)
            + _deliveries(config) * delivery
            + _PROCESS_BYTES,
        ),
    }
    for what, (limit, needed) in needs.items():
        if limit not in (None, resource.RLIM_INFINITY) and limit < needed:
            yield {
                "limited": what,
                "limit": format_bytes(limit),
                "needed": format_bytes(needed),
                "remedy": "raise the limit, or lower server.max_memory, spool.max_waiting_bytes and"
                " deliver.max_memory",
            }


def memory_limit(cgroup_root: str = "/sys/fs/cgroup") -> int | None:
    """Return the memory limit of this process's cgroup (version 2) in bytes, or None.

    Source: the kernel's documentation, admin-guide/cgroup-v2, memory.max.
    """
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    own = next((line[3:] for line in lines if line.startswith("0::")), "/")
    folder = Path(cgroup_root, own.lstrip("/"))
    limits = []
    for each in (folder, *folder.parents):
        with contextlib.suppress(OSError, ValueError):  # "max": no limit at this level
            limits.append(int((each / "memory.max").read_text()))
        if each == Path(cgroup_root):
            break
    return min(limits, default=None)
