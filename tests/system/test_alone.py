"""`pixelfast collect` and `pixelfast deliver` without a supervisor: admin address and signals."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.logs import check_log
from tests.program import PIXELFAST, run_pixelfast
from tests.waiting import wait_until

SETTINGS = """
[[sources]]
name = "web"
write_keys = ["wk-web"]
[[destinations]]
name = "first"
type = "file"
"""
MORE = """
[[destinations]]
name = "second"
type = "file"
[[sources]]
name = "shop"
write_keys = ["wk-shop"]
"""


class Alone:
    """A process with the admin address on a free port."""

    def __init__(self, folder: Path, command: str, *arguments: str) -> None:
        self.log_path = folder / f"{command}.log"
        self._folder = folder
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(*PIXELFAST, command, "-c", str(folder / "pixelfast.toml")),
                    *("--data-dir", str(folder / "data"), *arguments),
                    *("--admin", "127.0.0.1:0"),
                ],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        self.welcome = self.process.stdout.readline()
        self.admin_port = int(self.event("admin_started")["address"].rpartition(":")[2])

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def event(self, name: str) -> dict[str, Any]:
        """Return the last log event of a name; wait for it."""

        def found() -> list[dict[str, Any]]:
            lines = map(json.loads, filter(None, self.log.splitlines()))
            return [line for line in lines if line["event"] == name]

        wait_until(lambda: found(), name)
        return found()[-1]

    def get(self, path: str) -> tuple[int, str]:
        return request(self.admin_port, path)

    def reload(self) -> dict[str, Any]:
        self.process.send_signal(signal.SIGHUP)
        return self.event("reload_completed")

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            assert 0 == self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        check_log(self.log)


def request(port: int, path: str) -> tuple[int, str]:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    client.request("GET", path)
    response = client.getresponse()
    body = response.read().decode("utf-8", "replace")
    client.close()
    return response.status, body


@contextmanager
def alone(folder: Path, command: str, *arguments: str) -> Iterator[Alone]:
    process = Alone(folder, command, *arguments)
    try:
        yield process
    finally:
        process.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pixelfast.toml").write_text(SETTINGS)
    return tmp_path


def stored(folder: Path, destination: str) -> list[str]:
    files = (folder / "data" / "events" / destination).glob("*.ndjson")
    return [json.loads(line)["event"] for path in files for line in path.read_text().splitlines()]


def test_processes_without_a_supervisor_serve_metrics_and_reload(folder: Path) -> None:
    with (
        alone(folder, "collect", "--listen", "127.0.0.1:0") as collect,
        alone(folder, "deliver") as deliver,
    ):
        port = int(collect.welcome.rsplit(":", 1)[1])

        def track(key: str, event: str) -> int:
            return request(port, f"/pixel/v1/track?writeKey={key}&userId=1&event={event}")[0]

        assert (200, 401) == (track("wk-web", "a"), track("wk-shop", "b"))
        wait_until(lambda: ["a"] == stored(folder, "first"), "the event")
        for process, name in ((collect, "collector-0"), (deliver, "delivery")):
            wait_until(lambda: 200 == process.get("/health/ready")[0], "ready")  # noqa: B023
            assert [name] == list(json.loads(process.get("/health/ready")[1])["processes"])
            metrics = process.get("/metrics")[1]
            assert f'pixelfast_event_loop_lag_seconds_count{{process="{name}"}}' in metrics
            assert f'process_cpu_seconds_total{{process="{name}"}}' in metrics
            assert "supervisor" not in re.sub("^#.*", "", metrics, flags=re.MULTILINE)
        assert 'pixelfast_stored_events_total{slot="0"} 1.0' in collect.get("/metrics")[1]
        wait_until(
            lambda: 'delivered_events_total{destination="first"} 1.0' in deliver.get("/metrics")[1],
            "the metric",
        )
        (folder / "pixelfast.toml").write_text(SETTINGS + MORE)
        for process in (deliver, collect):
            assert 2 == process.reload()["destinations"]
        assert 200 == track("wk-shop", "b")
        wait_until(lambda: ["b"] == stored(folder, "second"), "the event of the new destination")
        assert (
            'destination_state{destination="second",state="healthy"} 1.0'
            in (deliver.get("/metrics")[1])
        )


def test_settings_with_errors_are_rejected_by_a_reload_and_shown_in_the_health(
    folder: Path,
) -> None:
    with alone(folder, "deliver") as deliver:
        (folder / "pixelfast.toml").write_text("[[sources]]\n")
        deliver.process.send_signal(signal.SIGHUP)
        deliver.event("reload_rejected")
        wait_until(lambda: "required" in deliver.get("/health/ready")[1], "the problem")
        (folder / "pixelfast.toml").write_text(SETTINGS + "[deliver]\nprocesses = 2\n")
        deliver.reload()
        state = json.loads(deliver.get("/health/ready")[1])["reload"]
        assert (True, []) == (state["is_successful"], state["problems"])
        assert ["deliver.processes is still 0; 2 requires a restart"] == state["needs_restart"]


def test_an_admin_address_in_use_is_an_error_if_the_command_names_it(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ours = "-c", f"{folder}/pixelfast.toml", "--data-dir", f"{folder}/data"
        done = run_pixelfast("deliver", *ours, "--admin", address)
    assert 2 == done.returncode
    assert f'server.admin: cannot listen on "{address}": address already in use' in done.stderr
