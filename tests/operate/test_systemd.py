"""Notifications to systemd, and the sockets that it passes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pixelfast.operate.sockets import share_out
from pixelfast.operate.systemd import Notifier, passed_sockets


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """Return the socket of the service manager."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(str(tmp_path / "notify"))
        line.settimeout(5.0)
        yield line


def environment_of(manager: socket.socket, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": manager.getsockname(), **more}


def test_states_are_sent_to_systemd(manager: socket.socket) -> None:
    notifier = Notifier(environment_of(manager))
    notifier.ready("accepting pixels")
    assert b"READY=1\nSTATUS=accepting pixels" == manager.recv(4096)
    began_us = time.monotonic_ns() // 1000
    notifier.reloading()
    lines = dict(line.split("=") for line in manager.recv(4096).decode().splitlines())
    assert ("1", "reloading") == (lines["RELOADING"], lines["STATUS"])
    assert began_us <= int(lines["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    notifier.stopping()
    assert b"STOPPING=1\nSTATUS=stopping" == manager.recv(4096)


def test_an_abstract_socket_address_is_supported() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind("")  # the kernel chooses an abstract one
        line.settimeout(5.0)
        Notifier({"NOTIFY_SOCKET": "@" + line.getsockname()[1:].decode()}).ready("x")
        assert b"READY=1\nSTATUS=x" == line.recv(4096)


def test_the_watchdog_is_notified_at_half_of_its_limit(manager: socket.socket) -> None:
    notifier = Notifier(environment_of(manager, WATCHDOG_USEC="20000000"))
    assert 10.0 == notifier.watchdog_s
    notifier.alive()
    assert b"WATCHDOG=1" == manager.recv(4096)


def test_without_a_watchdog_nothing_is_sent(manager: socket.socket) -> None:
    other = environment_of(manager, WATCHDOG_USEC="20000000", WATCHDOG_PID="1")
    for environment in (environment_of(manager), other):
        notifier = Notifier(environment)
        notifier.alive()
        notifier.stopping()
        assert (0.0, b"STOPPING=1\nSTATUS=stopping") == (notifier.watchdog_s, manager.recv(4096))


def test_child_processes_do_not_see_the_variables(manager: socket.socket) -> None:
    environment = environment_of(manager, WATCHDOG_USEC="1", WATCHDOG_PID="1", HOME="/")
    Notifier(environment)
    assert {"HOME": "/"} == environment


@pytest.mark.parametrize("address", ["/nowhere/notify", "@pixelfast-nobody-listens-here"])
def test_a_service_manager_that_has_ended_is_ignored(address: str) -> None:
    Notifier({"NOTIFY_SOCKET": address}).ready("x")


TAKES = """
import os, socket, sys
os.dup2(int(sys.argv[1]), 3)
from pixelfast.operate.systemd import passed_sockets
os.environ["LISTEN_PID"] = str(os.getpid())
for taken in passed_sockets(os.environ):
    print([s.getsockname()[1] for s in taken], [s.get_inheritable() for s in taken])
print("LISTEN_FDS" in os.environ, passed_sockets(os.environ))
"""


@pytest.mark.parametrize("name", ["", "tls"])
def test_passed_sockets_are_used_once_and_those_named_tls_separately(name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        result = subprocess.run(
            [sys.executable, "-c", TAKES, str(listening.fileno())],
            env={**os.environ, "LISTEN_FDS": "1", "LISTEN_FDNAMES": name},
            pass_fds=(listening.fileno(),),
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        taken = f"[{listening.getsockname()[1]}] [False]\n"
        expected = taken + "[] []\n" if not name else "[] []\n" + taken
        assert f"{expected}False ([], [])\n" == result.stdout


@pytest.mark.parametrize("pid", ["1", ""])
def test_sockets_for_another_process_are_ignored(pid: str) -> None:
    assert ([], []) == passed_sockets({"LISTEN_PID": pid, "LISTEN_FDS": "1"})


@pytest.mark.parametrize("kind", ["file", "datagram", "not listening", "closed"])
def test_a_passed_descriptor_that_does_not_listen_is_an_error(kind: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram, socket.socket() as silent:
        null = os.open(os.devnull, os.O_RDONLY)
        fds = {"file": null, "datagram": datagram.fileno(), "not listening": silent.fileno()}
        passed = {each: each for each in (fds.get(kind, 0),) if each}
        script = (
            TAKES
            if passed
            else TAKES.replace("os.dup2(int(sys.argv[1]), 3)", "os.closerange(3, 9)")
        )
        result = subprocess.run(
            [sys.executable, "-c", script, *map(str, passed)],
            env={**os.environ, "LISTEN_FDS": "1"},
            pass_fds=tuple(passed),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        os.close(null)
    error = result.stderr.splitlines()[-1]
    assert "PixelfastError: file descriptor 3 of LISTEN_FDS: expected a listening" in error


def _reuse_port(port: int) -> socket.socket:
    each = socket.socket()
    each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    each.bind(("127.0.0.1", port))
    each.listen()
    return each


def test_a_worker_has_a_socket_of_its_own_if_there_are_enough() -> None:
    with _reuse_port(0) as first, _reuse_port(first.getsockname()[1]) as second:
        by_worker, names = share_out([first, second], 2)
        assert ([[first], [second]], [f"127.0.0.1:{first.getsockname()[1]}"]) == (by_worker, names)


def test_workers_share_a_socket_if_there_is_one(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "pixel.sock"))
        by_worker, names = share_out([tcp, unix], 3)
        assert [[tcp, unix]] * 3 == by_worker
        assert [f"127.0.0.1:{tcp.getsockname()[1]}", f"unix:{tmp_path}/pixel.sock"] == names
