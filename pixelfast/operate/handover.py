"""Replaces the program with another version in the same process.

`execve` keeps the process id: the main process of systemd stays the same, child processes stay
children, and locks on open files stay held. Listening sockets, the connections to the processes and
the lock of the data directory are inherited. Their description is in a file in memory, whose
descriptor is in an environment variable.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterable, Mapping, MutableMapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from pixelfast import __version__
from pixelfast.config import Config
from pixelfast.errors import PixelfastError
from pixelfast.operate.control import Orders
from pixelfast.operate.signals import OTHER_SIGNALS, hold_signals

__all__ = [
    "FORMAT",
    "HandedProcess",
    "Handover",
    "SocketGroup",
    "Wanted",
    "check_handover",
    "check_installed_program",
    "is_handed_over",
    "replace_program",
    "take_handover",
]

FORMAT = 1  # of the handover; a program with another format does not take over
_VARIABLE = "PIXELFAST_HANDOVER"
_CHECK_S = 60.0
_MAX_LINES = 20


Wanted = Literal["reload", "upgrade"]


class SocketGroup(msgspec.Struct, frozen=True):
    """The listening sockets of an address of the settings; "" if systemd passed them."""

    address: str
    is_tls: bool
    fds: list[int]


class HandedProcess(msgspec.Struct, frozen=True):
    """A running process, its connection to the supervisor, and its last report."""

    name: str
    pid: int
    line_fd: int
    orders: Orders
    figures: dict[str, Any] = {}


class Handover(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the next program needs.

    `totals` and `starts` have the name of a process as key, including those that have ended.
    `wanted` are the reloads and upgrades that were requested during this upgrade.
    """

    config: Config
    generation: int
    data_dir: str
    lock_fd: int
    groups: list[SocketGroup]
    admin_fds: list[int]
    admin_address: str
    rates_fd: int
    rate_places: dict[str, int]
    processes: list[HandedProcess]
    totals: dict[str, dict[str, Any]]
    starts: dict[str, int]
    started_s: float  # monotonic
    began_ns: int  # when the upgrade began, monotonic
    wanted: list[Wanted] = []

    @property
    def fds(self) -> list[int]:
        """All descriptors that are inherited."""
        groups = [fd for group in self.groups for fd in group.fds]
        lines = [each.line_fd for each in self.processes]
        return [self.lock_fd, self.rates_fd, *groups, *self.admin_fds, *lines]


async def check_installed_program(followed: Config) -> list[str]:
    """Make the installed program check that it can take over; return the problems.

    It gets the current settings, because its settings may have another layout.
    """
    process = await asyncio.create_subprocess_exec(
        *_command(),
        *("--check-upgrade", str(FORMAT)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_CHECK_S):
            _, errors = await process.communicate(msgspec.json.encode(followed))
    except TimeoutError:
        return [f"the installed program did not check the settings within {_CHECK_S:g} s"]
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode == 0:
        return []
    lines = errors.decode(errors="replace").strip().splitlines()[-_MAX_LINES:]
    return [f"the installed program exits with status {process.returncode}", *lines]


def check_handover(handover_format: int, followed: bytes) -> None:
    """Check that this program can take over; `check_installed_program` of the other one calls it.

    Raises:
        PixelfastError: this program cannot read the format or the current settings.
    """
    try:
        if handover_format == FORMAT:
            msgspec.json.decode(followed, type=Config)
            return
        why = f"uses handover format {FORMAT}, not {handover_format}"
    except msgspec.DecodeError as error:
        why = f"cannot read the current settings ({error})"
    raise PixelfastError(f"pixelfast {__version__} {why}; restart the server instead")


def replace_program(handover: Handover, environment: Mapping[str, str]) -> None:
    """Replace this program with the installed one, which gets `handover`; do not return.

    Signals that arrive meanwhile are held until `signals.release_signals`.

    Raises:
        OSError: the program cannot be executed. Nothing has changed.
    """
    hold_signals((signal.SIGTERM, signal.SIGINT, *OTHER_SIGNALS))
    memory = os.memfd_create("pixelfast-handover", 0)
    try:
        with open(memory, "wb", closefd=False) as file:
            file.write(msgspec.json.encode(handover))
        _inherit(_open_fds(), False)  # libraries in C open inheritable ones
        _inherit([0, 1, 2, memory, *handover.fds], True)
        command = _command()
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(command[0], command, {**environment, _VARIABLE: str(memory)})  # noqa: S606 - our own
    except BaseException:
        os.close(memory)
        _inherit(handover.fds, False)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        raise


def is_handed_over(environment: Mapping[str, str]) -> bool:
    """Return whether this program replaces another one."""
    return _VARIABLE in environment


def take_handover(environment: MutableMapping[str, str]) -> Handover | None:
    """Return what the replaced program handed over; None at later calls."""
    number = environment.pop(_VARIABLE, "")
    if not number:
        return None
    with open(int(number), "rb") as file:  # noqa: PTH123 - a descriptor
        file.seek(0)
        handover = msgspec.json.decode(file.read(), type=Handover)
    _inherit(handover.fds, False)
    return handover


def _open_fds() -> list[int]:
    return [int(each.name) for each in Path("/proc/self/fd").iterdir()]


def _inherit(fds: Iterable[int], is_inherited: bool) -> None:
    for fd in fds:
        with contextlib.suppress(OSError):
            os.set_inheritable(fd, is_inherited)


def _command() -> list[str]:
    """Return the command of this program, with the interpreter that is installed now."""
    return [sys.executable, *sys.orig_argv[1:]]
