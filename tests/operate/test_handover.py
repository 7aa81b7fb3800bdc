"""The handover between two versions of the program, and how sockets are distributed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from pixelfast.config import Config, Server
from pixelfast.errors import ConfigError, PixelfastError
from pixelfast.operate.handover import (
    FORMAT,
    Handover,
    SocketGroup,
    check_handover,
    is_handed_over,
    take_handover,
)
from pixelfast.operate.listeners import Listening, open_listening
from pixelfast.operate.totals import Totals

HANDS_OVER = """
import os, socket, sys
from pixelfast.config import Config
from pixelfast.operate import handover
if handover.is_handed_over(os.environ):
    taken = handover.take_handover(os.environ)
    (fd,) = taken.groups[0].fds
    listening = socket.socket(fileno=fd)
    print(taken.totals, os.get_inheritable(fd), listening.getsockname()[1])
    print(handover.take_handover(os.environ), os.getpid(), len(os.listdir("/proc/self/fd")))
else:
    print(os.getpid(), len(os.listdir("/proc/self/fd")), flush=True)
    os.dup2(sys.stdin.fileno(), 99, inheritable=True)  # as a library in C does
    group = handover.SocketGroup("x", False, [int(sys.argv[1])])
    lock = os.memfd_create("lock")
    handed = handover.Handover(
        config=Config(), generation=1, data_dir="d", lock_fd=lock, groups=[group], admin_fds=[],
        admin_address="", rates_fd=lock, rate_places={}, processes=[], totals={"a": {"b": 1}},
        starts={}, started_s=0.0, began_ns=0,
    )
    handover.replace_program(handed, os.environ)
"""


def test_a_program_is_replaced_and_keeps_its_sockets(tmp_path: Path) -> None:
    script = tmp_path / "hands_over.py"
    script.write_text(HANDS_OVER)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        result = subprocess.run(
            [sys.executable, str(script), str(listening.fileno())],
            pass_fds=(listening.fileno(),),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        before, taken, again = result.stdout.splitlines()
        pid, fds = before.split()
        port = listening.getsockname()[1]
    assert (f"{{'a': {{'b': 1}}}} False {port}", f"None {pid} {int(fds) + 1}") == (taken, again)


def test_a_program_without_a_handover_takes_nothing_over() -> None:
    assert (False, None) == (is_handed_over({}), take_handover({}))


@pytest.mark.parametrize(
    ("handover_format", "followed", "why"),
    [
        (FORMAT + 1, b"{}", f"uses handover format {FORMAT}, not {FORMAT + 1}"),
        (FORMAT, b'{"server": {"workers": "many"}}', "cannot read the current settings"),
        (FORMAT, b"", "cannot read the current settings"),
    ],
)
def test_a_version_that_cannot_read_the_handover_reports_an_error(
    handover_format: int, followed: bytes, why: str
) -> None:
    check_handover(FORMAT, msgspec.json.encode(Config()))
    with pytest.raises(PixelfastError, match=f"{why}.*; restart the server"):
        check_handover(handover_format, followed)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def opened(config: Config, workers: int, before: Listening | None, stack: ExitStack) -> Listening:
    """Listen with the sockets of an earlier program."""
    handed = []
    if before is not None:
        sockets = {each.fileno(): each for own in before.by_worker for each in own}
        handed = [(group, [sockets[fd] for fd in group.fds]) for group in before.groups]
    found = open_listening(config, workers, ([], []), handed)
    for each in {each for own in found.by_worker for each in own}:
        stack.enter_context(each)
    return found


def at(*addresses: str) -> Config:
    return Config(server=Server(listen=addresses))


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_connections_of_all_handed_over_sockets_are_accepted(
    workers: int, stack: ExitStack
) -> None:
    before = opened(at("127.0.0.1:0"), 3, None, stack)
    after = opened(at("127.0.0.1:0"), workers, before, stack)
    old = {each for own in before.by_worker for each in own}
    new = {each for own in after.by_worker for each in own}
    assert old <= new
    assert max(3, workers) == len(new)
    assert (before.addresses, []) == (after.addresses, after.abandoned)
    assert 1 == len({each.getsockname() for each in new})


def test_addresses_can_be_added_and_removed(tmp_path: Path, stack: ExitStack) -> None:
    unix = f"unix:{tmp_path}/pixel.sock"
    before = opened(at("127.0.0.1:0", unix), 2, None, stack)
    after = opened(at(unix, "[::1]:0"), 2, before, stack)
    assert [unix, "[::1]:0"] == [group.address for group in after.groups]
    assert {each.getsockname() for each in after.abandoned} == {
        before.by_worker[0][0].getsockname()
    }
    assert after.by_worker[0][0] is before.by_worker[0][1]


def test_an_address_in_use_closes_no_socket(stack: ExitStack) -> None:
    before = opened(at("127.0.0.1:0"), 1, None, stack)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        other = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match="cannot listen"):
            opened(at("127.0.0.1:0", other), 1, before, stack)
    assert before.by_worker[0][0].fileno() >= 0


def test_totals_continue_after_a_handover() -> None:
    totals = Totals({"events": 5})
    totals.follow({"events": 2})
    assert ({"events": 7}, {"events": 5}) == (totals.value, totals.ended)


def test_every_descriptor_of_a_handover_is_inherited() -> None:
    handover = Handover(
        config=Config(),
        generation=0,
        data_dir="",
        lock_fd=1,
        groups=[SocketGroup("a", False, [2, 3])],
        admin_fds=[4],
        admin_address="",
        rates_fd=5,
        rate_places={},
        processes=[],
        totals={},
        starts={},
        started_s=0.0,
        began_ns=0,
    )
    assert {1, 2, 3, 4, 5} == set(handover.fds)
