"""Notifications to systemd, its watchdog, and the sockets that it passes.

Source: systemd's manual, sd_notify(3), sd_watchdog_enabled(3) and sd_listen_fds(3). Without
systemd, these functions do nothing.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping

from pixelfast.errors import PixelfastError

__all__ = ["Notifier", "passed_sockets"]

_FIRST_PASSED_FD = 3
_TLS_NAME = "tls"


class Notifier:
    """Notifies systemd of the state of the service.

    Attributes:
        environment: the variables that were removed, for a program that replaces this one.
        watchdog_s: the interval in seconds at which `alive` must be called, which is half of the
            limit; 0 if there is no watchdog.

    >>> Notifier({}).watchdog_s
    0.0
    """

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        """Read the address of systemd, and remove it so that child processes do not use it."""
        names = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
        self.environment = {each: environment[each] for each in names if each in environment}
        address = environment.pop("NOTIFY_SOCKET", "")
        limit_us = environment.pop("WATCHDOG_USEC", "0")
        watched = environment.pop("WATCHDOG_PID", str(os.getpid()))
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        is_watched = bool(address) and watched == str(os.getpid()) and limit_us.isdigit()
        self.watchdog_s = int(limit_us) / 2e6 if is_watched else 0.0

    def ready(self, status: str) -> None:
        """Report that a start or a reload is complete."""
        self._send(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        """Report that a reload has begun; `ready` ends it."""
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={now_us}\nSTATUS=reloading")

    def stopping(self) -> None:
        """Report that a stop has begun."""
        self._send("STOPPING=1\nSTATUS=stopping")

    def alive(self) -> None:
        """Notify the watchdog that the event loop is running."""
        if self.watchdog_s:
            self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
            try:
                line.connect(self._address)
                line.send(message.encode())
            except OSError:
                pass  # systemd does not listen; the service continues


def passed_sockets(
    environment: MutableMapping[str, str],
) -> tuple[list[socket.socket], list[socket.socket]]:
    """Return the listening sockets that systemd passed (socket activation), in order.

    The second list has the sockets for TLS, those of units with `FileDescriptorName=tls`. The
    variables are removed, so that child processes do not use the sockets.

    Raises:
        PixelfastError: a descriptor is not a listening stream socket.
    """
    pid = environment.pop("LISTEN_PID", "")
    count = environment.pop("LISTEN_FDS", "")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    plain: list[socket.socket] = []
    tls: list[socket.socket] = []
    if pid != str(os.getpid()) or not count.isdigit():
        return plain, tls
    for place in range(int(count)):
        fd = _FIRST_PASSED_FD + place
        is_tls = names[place : place + 1] == [_TLS_NAME]
        (tls if is_tls else plain).append(_listening_socket(fd))
    return plain, tls


def _listening_socket(fd: int) -> socket.socket:
    try:
        os.set_inheritable(fd, False)
        passed = socket.socket(fileno=fd)
    except OSError as error:
        raise _not_accepted(fd, error.strerror) from None
    if not passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        passed.detach()
        raise _not_accepted(fd, "the socket does not listen")
    return passed


def _not_accepted(fd: int, why: str | None) -> PixelfastError:
    what = f"file descriptor {fd} of LISTEN_FDS: expected a listening stream socket: {why}"
    return PixelfastError(f"{what}; the socket unit must have ListenStream= and Accept=no")
