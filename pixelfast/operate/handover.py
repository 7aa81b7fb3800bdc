"""What one program hands on to the version that takes its place in the same process.

`execve` keeps the process id, so systemd's main process stays, the processes started stay children,
and locks on open files stay held. Listening sockets, the lines to the processes and the lock of the
data directory go on by inheritance; what belongs to them is in a file in memory, whose descriptor
is in the environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterable, Mapping, MutableMapping
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

FORMAT = 1  # programs with another one do not take over
_VARIABLE = "PIXELFAST_HANDOVER"
_CHECK_S = 60.0
_MOST_LINES = 20


Wanted = Literal["reload", "upgrade"]


class SocketGroup(msgspec.Struct, frozen=True):
    """The listening sockets of one address. `address` is as in the settings; "": from systemd."""

    address: str
    is_tls: bool
    fds: list[int]


class HandedProcess(msgspec.Struct, frozen=True):
    """A running process, the supervisor's end of its line, and what it reported last."""

    name: str
    pid: int
    line_fd: int
    orders: Orders
    figures: dict[str, Any] = {}


class Handover(msgspec.Struct, frozen=True, kw_only=True):
    """All that the next program needs to go on.

    `totals` and `starts` are by the name of a process, also of those that have ended. `wanted` was
    asked for during the upgrade, and comes after it.
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
    started_s: float  # by the monotonic clock
    began_ns: int  # when the upgrade began, by the same clock
    wanted: list[Wanted] = []

    @property
    def fds(self) -> list[int]:
        """All descriptors that go on."""
        groups = [fd for group in self.groups for fd in group.fds]
        lines = [each.line_fd for each in self.processes]
        return [self.lock_fd, self.rates_fd, *groups, *self.admin_fds, *lines]


async def check_installed_program(followed: Config) -> list[str]:
    """Have the installed program check that it can take over; return what is wrong.

    It is given the settings that are followed, because its own may have another layout.
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
    lines = errors.decode(errors="replace").strip().splitlines()[-_MOST_LINES:]
    return [f"the installed program ends with code {process.returncode}", *lines]


def check_handover(handover_format: int, followed: bytes) -> None:
    """Check that this program can take over; `check_installed_program` of another one asks.

    Raises:
        PixelfastError: it cannot read the format, or the settings that are followed.
    """
    try:
        if handover_format == FORMAT:
            msgspec.json.decode(followed, type=Config)
            return
        why = f"takes over with format {FORMAT}, not {handover_format}"
    except msgspec.DecodeError as error:
        why = f"cannot read the settings that are followed ({error})"
    raise PixelfastError(f"pixelfast {__version__} {why}: restart the server")


def replace_program(handover: Handover, environment: Mapping[str, str]) -> None:
    """Become the installed program, which takes `handover`; does not return.

    Signals that come meanwhile wait; `signals.release_signals` lets them through.

    Raises:
        OSError: the program can't be executed; nothing has changed.
    """
    hold_signals((signal.SIGTERM, signal.SIGINT, *OTHER_SIGNALS))
    memory = os.memfd_create("pixelfast-handover", 0)
    try:
        with open(memory, "wb", closefd=False) as file:
            file.write(msgspec.json.encode(handover))
        _inherit(handover.fds, True)
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
    """Return whether this program takes the place of another one."""
    return _VARIABLE in environment


def take_handover(environment: MutableMapping[str, str]) -> Handover | None:
    """Return what an earlier program has handed on to this one, once."""
    number = environment.pop(_VARIABLE, "")
    if not number:
        return None
    with open(int(number), "rb") as file:  # noqa: PTH123 - a descriptor
        file.seek(0)
        handover = msgspec.json.decode(file.read(), type=Handover)
    _inherit(handover.fds, False)
    return handover


def _inherit(fds: Iterable[int], is_inherited: bool) -> None:
    for fd in fds:
        with contextlib.suppress(OSError):
            os.set_inheritable(fd, is_inherited)


def _command() -> list[str]:
    """How this program was started, by the interpreter that is at the same place now."""
    return [sys.executable, *sys.orig_argv[1:]]
