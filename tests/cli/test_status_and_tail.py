"""`pixelfast status` and `pixelfast tail`, with and without a running server."""

from __future__ import annotations

import json
import select
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.program import PIXELFAST, run_pixelfast
from tests.servers import Server, serving
from tests.waiting import wait_until

WAIT_S = 30.0


def status_of(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    admin = f"127.0.0.1:{server.admin_port}"
    return run_pixelfast("status", "--data-dir", str(server.data_dir), "--admin", admin, *arguments)


class Tail:
    """A running `pixelfast tail`."""

    def __init__(self, data_dir: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [*PIXELFAST, "tail", "--data-dir", str(data_dir), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,  # unread output stays in the pipe, where select(2) sees it
            # A shell may make background processes ignore Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        assert self.process.stdout is not None
        self._lines = self.process.stdout

    def event(self) -> str:
        """Return the name of the next event."""
        assert select.select([self._lines], [], [], WAIT_S)[0], "no line"
        return str(json.loads(self._lines.readline())["event"])

    def has_event(self) -> bool:
        """Return whether the next event can be read."""
        return bool(select.select([self._lines], [], [], 0.1)[0])

    def interrupt(self) -> tuple[int, bytes, bytes]:
        """Send Ctrl-C; return the exit status and the remaining output."""
        self.process.send_signal(signal.SIGINT)
        output, error = self.process.communicate(timeout=WAIT_S)
        return self.process.returncode, output, error


@pytest.fixture
def tails() -> Iterator[list[Tail]]:
    started: list[Tail] = []
    yield started
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
        each.process.communicate()


def test_status_and_tail_work_with_a_running_and_a_stopped_server(
    tmp_path: Path, tails: list[Tail]
) -> None:
    with serving(tmp_path / "data", "--workers", "1") as server:
        for name in ("A", "B", "C"):
            assert 200 == server.track(name)
        server.wait_for_events(3)

        tails.append(Tail(server.data_dir, "-n", "2"))
        assert ["B", "C"] == [tails[0].event(), tails[0].event()]
        assert 200 == server.track("D")
        assert "D" == tails[0].event()
        assert (0, b"", b"") == tails[0].interrupt()

        wait_until(
            lambda: shown(server)["destinations"]["archive"].get("delivered") == 4, "delivery"
        )
        found = shown(server)
        assert (True, True, str(server.data_dir)) == (
            found["is_running"],
            found["is_ready"],
            found["data_dir"],
        )
        assert {"collector-0", "delivery"} == set(found["processes"])
        text = status_of(server)
        assert 0 == text.returncode
        assert f"server          ready, 127.0.0.1:{server.admin_port}\n" in text.stdout
        assert f"data directory  {server.data_dir}\n" in text.stdout

        other = run_pixelfast(
            *("status", "--data-dir", str(tmp_path)),
            *("--admin", f"127.0.0.1:{server.admin_port}"),
        )
        assert 1 == other.returncode
        assert f"uses the data directory {server.data_dir}, not {tmp_path};" in other.stderr
        other = run_pixelfast("status", "--admin", f"127.0.0.1:{server.port}")
        assert (1, "") == (other.returncode, other.stdout)
        assert "is not the admin address of pixelfast" in other.stderr

    result = status_of(server, "--json")
    found = json.loads(result.stdout)
    assert (1, False, False) == (result.returncode, found["is_running"], found["is_ready"])
    archive = found["destinations"]["archive"]
    assert (4, 0, 0.0) == (archive["delivered"], archive["pending"], archive["lag_s"])
    text = status_of(server)
    assert (1, "") == (text.returncode, text.stderr)
    assert "not reachable at 127.0.0.1:" in text.stdout

    tail = ("tail", "--data-dir", str(server.data_dir), "--no-follow")
    lines = run_pixelfast(*tail, "-n", "3").stdout.splitlines()
    assert ["B", "C", "D"] == [json.loads(line)["event"] for line in lines]
    unknown = run_pixelfast(*tail, "--source", "nobody")
    error = 'pixelfast: unknown source "nobody"; known sources: demo\n'
    assert (1, "", error) == (unknown.returncode, unknown.stdout, unknown.stderr)


def shown(server: Server) -> dict[str, Any]:
    found = json.loads(status_of(server, "--json").stdout)
    assert isinstance(found, dict)
    return found


def test_status_shows_a_destination_that_is_down_and_its_pending_events(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # no process listens there
        port = free.getsockname()[1]
        settings = f"""
[[sources]]
name = "web"
write_keys = ["wk-web-status"]
[[destinations]]
name = "hook"
type = "http"
url = "http://127.0.0.1:{port}/in"
"""
        with serving(tmp_path / "data", "--workers", "1", settings=settings) as server:
            assert 200 == server.track("A")
            wait_until(lambda: shown(server)["destinations"]["hook"].get("last_error"), "a failure")
            assert 1 == shown(server)["destinations"]["hook"]["pending"]
            text = status_of(server).stdout
            assert "Connect call failed" in text
        hook = shown(server)["destinations"]["hook"]
        assert (1, 0, True) == (hook["pending"], hook["delivered"], hook["lag_s"] > 0)


@pytest.mark.parametrize("command", ["status", "tail"])
def test_a_missing_data_directory_is_a_one_line_error(tmp_path: Path, command: str) -> None:
    arguments = ["--data-dir", f"{tmp_path}/none"]
    if command == "status":
        arguments += ["--admin", f"unix:{tmp_path}/none.sock"]
    result = run_pixelfast(command, *arguments)
    expected = f"pixelfast: data directory {tmp_path}/none: does not exist; start the server "
    expected += "first, or specify another one with --data-dir or --config\n"
    assert (1, expected) == (result.returncode, result.stderr)


def test_a_directory_without_data_is_a_one_line_error(tmp_path: Path) -> None:
    result = run_pixelfast("tail", "--data-dir", str(tmp_path))
    expected = f"pixelfast: data directory {tmp_path}: contains no pixelfast data; start the "
    expected += "server first, or specify another one with --data-dir or --config\n"
    assert (1, expected) == (result.returncode, result.stderr)


def test_tail_ends_quietly_when_its_reader_ends(tmp_path: Path, tails: list[Tail]) -> None:
    with serving(tmp_path / "data", "--workers", "2") as server:
        assert 200 == server.track("A")
        tails.append(Tail(server.data_dir))
        assert "A" == tails[0].event()
        assert tails[0].process.stdout is not None
        tails[0].process.stdout.close()

        def has_ended() -> bool:
            server.track("B")
            return tails[0].process.poll() is not None

        wait_until(has_ended, "the end of tail")
        assert 0 == tails[0].process.returncode
        assert tails[0].process.stderr is not None
        assert b"" == tails[0].process.stderr.read()
        tails[0].process.stderr.close()
        tails.clear()


def test_tail_waits_for_a_source_of_the_settings_and_rejects_others(
    tmp_path: Path, tails: list[Tail]
) -> None:
    settings = """
[[sources]]
name = "web"
write_keys = ["wk-web-tail"]
[[sources]]
name = "mail"
write_keys = ["wk-mail-tail"]
"""
    file = tmp_path / "tail.toml"
    file.write_text(settings)
    with serving(tmp_path / "data", "--workers", "1", settings=settings) as server:
        assert 200 == server.track("A")
        tail = ("tail", "--data-dir", str(server.data_dir), "-c", str(file))
        unknown = run_pixelfast(*tail, "--source", "nobody")
        error = 'pixelfast: unknown source "nobody"; known sources: mail, web\n'
        assert (1, "", error) == (unknown.returncode, unknown.stdout, unknown.stderr)
        quiet = run_pixelfast(*tail, "--source", "mail", "--no-follow")
        assert (0, "", "") == (quiet.returncode, quiet.stdout, quiet.stderr)

        tails.append(Tail(server.data_dir, "-n", "0", "--source", "web"))
        wait_until(lambda: server.track("B") == 200 and tails[0].has_event(), "the next event")
        assert "B" == tails[0].event()


FULL = """
[server]
workers = 1
[spool]
max_bytes = "1MiB"
segment_bytes = "128KiB"
min_free = 0
[[sources]]
name = "web"
write_keys = ["wk_test_status"]
[[destinations]]
name = "down"
type = "http"
url = "http://127.0.0.1:9/"
"""


def test_status_shows_why_a_collector_is_not_ready(tmp_path: Path) -> None:
    with serving(tmp_path / "data", settings=FULL) as server:
        padding = f"&properties.p={'x' * 16_000}"
        wait_until(lambda: server.track("A", padding) == 503, "the spool is full")
        wait_until(lambda: "not ready: spool-full" in status_of(server).stdout, "it is told")
        found = shown(server)["processes"]
        assert ("spool-full", "") == (
            found["collector-0"]["rejection"],
            found["delivery"]["rejection"],
        )
