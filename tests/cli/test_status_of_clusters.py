"""`pixelfast status` and `pixelfast spool ls` with `[cluster]`."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.program import run_pixelfast
from tests.spools import Slot, open_data

SETTINGS = """
[cluster]
brokers = ["kafka-1:9092"]
"""


@contextmanager
def admin_of(state: dict[str, Any]) -> Iterator[str]:
    """Serve a state as /health/ready does; yield the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(state).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def collector(**replication: Any) -> dict[str, Any]:
    state = {"is_replicated": False, "are_brokers_available": True, "backlog_s": 0.0, "error": ""}
    return {"is_ready": True, "starts": 1, "silent_s": 0.1, "replication": state | replication}


def test_status_shows_the_replication_of_each_collector() -> None:
    broken = {"are_brokers_available": False, "backlog_s": 7.24, "error": "no broker responds"}
    processes = {
        "collector-0": collector(is_replicated=True),
        "collector-1": collector(backlog_s=0.31),
        "collector-2": collector(**broken),
        "delivery": {"is_ready": True, "starts": 1, "silent_s": 0.1},
    }
    state = {"is_ready": True, "data_dir": "/data", "processes": processes, "destinations": {}}
    with admin_of(state) as admin:
        done = run_pixelfast("status", "--admin", admin)
    rows = [line.rsplit("  ", 1) for line in done.stdout.splitlines()[-5:]]
    assert [
        "replication",
        "complete",
        "0.3 s behind",
        "brokers unavailable, 7.2 s behind: no broker responds",
        "-",
    ] == [row[1] for row in rows]


def test_events_that_are_not_replicated_are_listed_without_a_server(tmp_path: Path) -> None:
    slot = Slot(open_data(tmp_path / "data"), 2)
    slot.write(b'{"n":1}', b'{"n":2}')
    slot.close()
    path = tmp_path / "pixelfast.toml"
    path.write_text(SETTINGS)
    ours = "-c", str(path), "--data-dir", str(tmp_path / "data")
    done = run_pixelfast("status", *ours, "--admin", "")
    header, row = done.stdout.splitlines()[-2:]
    assert ["slot", "not replicated", "bytes"] == header.split("  ")
    assert ["2", "2"] == row.split()[:2]
    backlog = json.loads(run_pixelfast("status", *ours, "--admin", "", "--json").stdout)["backlog"]
    assert [(2, 2)] == [(each["slot"], each["events"]) for each in backlog]
    header, row = run_pixelfast("spool", "ls", *ours).stdout.splitlines()
    assert ("not replicated", "2") == (header.split("  ")[-1], row.split()[-1])
