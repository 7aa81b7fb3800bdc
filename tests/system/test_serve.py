"""`pixelfast serve` with real processes and real sockets."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pixelfast import __version__
from tests.logs import check_log
from tests.program import PIXELFAST, run_pixelfast
from tests.servers import Server, serving

GIF_HEADERS = {
    "Content-Type": "image/gif",
    "Content-Length": "43",
    "Cache-Control": "no-store, no-cache, must-revalidate, max-age=0, private",
    "Pragma": "no-cache",
    "Expires": "0",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "X-Content-Type-Options": "nosniff",
}
ADDITIONS = (
    "messageId receivedAt originalTimestamp sentAt timestamp request_ip integrations channel"
).split()
VECTOR_SETTINGS = """
[[sources]]
name = "web"
write_keys = ["wk-demo"]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("serve")
    with serving(folder / "data", "--workers", "2", settings=VECTOR_SETTINGS) as running:
        yield running


def test_a_vector_over_http_into_the_file_destination(
    vector: dict[str, Any], server: Server
) -> None:
    before = len(server.events())
    response = server.get(vector["target"])
    assert vector["status"] == response.status
    assert response.body[:6] == b"GIF89a"  # type: ignore[attr-defined]
    assert {name: response.headers[name] for name in GIF_HEADERS} == GIF_HEADERS
    if vector["status"] != 200:
        assert "X-Pixelfast-Error" in response.headers
        return
    event = server.wait_for_events(before + 1)[before]
    for name in ADDITIONS:
        assert name in event
        del event[name]
    assert json.dumps(vector["event"], sort_keys=True) == json.dumps(event, sort_keys=True)


def test_the_log_of_good_and_bad_requests_holds_no_key_and_no_query(server: Server) -> None:
    server.get("/pixel/v1/track?writeKey=wk-demo&event=very-secret-event")
    server.get("/pixel/v1/track?writeKey=wk-unknown-secret&anonymousId=a&event=x")
    for word in ("wk-demo", "wk-unknown-secret", "very-secret-event", "writeKey"):
        assert word not in server.log


def test_health_and_metrics_report_the_failure(server: Server) -> None:
    health = json.loads(server.admin("/health/ready"))
    assert health["is_ready"] is True
    assert set(health["processes"]) == {"collector-0", "collector-1", "delivery"}
    assert "pixelfast_stored_events_total" in server.admin("/metrics")


def test_the_first_try_needs_no_settings(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        url = re.search(r"pixel    (\S+)", server.welcome)
        assert url is not None
        assert f"{tmp_path}/data/events/archive/" in server.welcome
        assert "curl -sS -D - -o /dev/null 'http://" in server.welcome
        response = server.get("/" + url[1].split("/", 3)[3])
        assert response.status == 200
        (event,) = server.wait_for_events(1)
        assert event["event"] == "Hello"
        first_key = server.write_key
        assert server.stop() == 0
    with serving(tmp_path / "data") as server:  # the key is the same at the next start
        assert first_key == server.write_key


def test_the_start_logs_the_effective_settings_in_one_line(tmp_path: Path) -> None:
    with serving(tmp_path / "data", "--workers", "1") as server:
        assert ["server_started", "server_ready"] == server.log_events()[:2]
        started = json.loads(server.log.splitlines()[0])
        expected = {
            "version": __version__,
            "listen": [f"127.0.0.1:{server.port}"],
            "admin": f"127.0.0.1:{server.admin_port}",
            "data_dir": str(server.data_dir),
            "workers": 1,
            "ack": "synced",
            "destinations": ["archive"],
        }
        assert expected == {name: started[name] for name in expected}
        assert started["max_connections"] <= 20_000
        assert started["open_files"] >= started["max_connections"]
    settings = '[log]\nformat = "console"\n'
    with serving(tmp_path / "other", "--workers", "1", settings=settings) as server:
        first = server.log.splitlines()[0]
        assert f"version={__version__}" in first
        assert f"data_dir={server.data_dir}" in first


def test_delivery_does_not_interrupt_a_collector_when_it_wakes_up(tmp_path: Path) -> None:
    with serving(tmp_path / "data", "--workers", "1") as server:
        assert 200 == server.track("one")
        server.wait_for_events(1)
        policies = {name: os.sched_getscheduler(pid) for name, pid in server.children().items()}
    assert {"pf-collector-0": os.SCHED_OTHER, "pf-delivery": os.SCHED_BATCH} == policies


def test_a_second_server_on_the_same_data_reports_it(tmp_path: Path) -> None:
    with serving(tmp_path / "data"):
        second = run_pixelfast(
            "serve", "--data-dir", str(tmp_path / "data"), "--listen", "127.0.0.1:0"
        )
    assert second.returncode == 1
    assert "another pixelfast uses the data directory" in second.stderr
    assert "Traceback" not in second.stderr


def test_an_address_in_use_is_rejected(tmp_path: Path) -> None:
    with serving(tmp_path / "a") as server:
        address = f"127.0.0.1:{server.port}"
        second = run_pixelfast("serve", "--data-dir", str(tmp_path / "b"), "--listen", address)
    assert second.returncode == 2
    assert f'server.listen: cannot listen on "{address}": address already in use' in second.stderr


def test_invalid_settings_end_with_exit_status_2_and_all_errors(tmp_path: Path) -> None:
    settings = tmp_path / "bad.toml"
    settings.write_text('[server]\nwokers = 1\n[spool]\nack = "sync"\n')
    result = run_pixelfast("serve", "-c", str(settings), "--data-dir", str(tmp_path / "data"))
    assert result.returncode == 2
    assert 'did you mean "workers"?' in result.stderr
    assert 'did you mean "synced"?' in result.stderr
    assert not (tmp_path / "data").exists()


def test_pixels_are_accepted_over_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "pixel.sock"
    settings = '[server]\ntrusted_proxies = ["unix:"]\n'
    options = ("--listen", f"unix:{path}", "--workers", "2")
    with serving(tmp_path / "data", *options, settings=settings) as server:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            target = f"/pixel/v1/page?writeKey={server.write_key}&userId=1"
            client.sendall(
                f"GET {target} HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n".encode()
            )
            response = http.client.HTTPResponse(client)
            response.begin()
            assert response.status == 200
        (event,) = server.wait_for_events(1)
        assert event["request_ip"] == "203.0.113.7"
        assert server.stop() == 0
    with serving(
        tmp_path / "data", "--listen", f"unix:{path}"
    ):  # the old socket does not prevent that
        pass


def test_sources_reach_their_own_destinations(tmp_path: Path) -> None:
    settings = """
[[sources]]
name = "web"
write_keys = ["wk-web"]
destinations = ["all"]
[[sources]]
name = "mail"
write_keys = ["wk-mail"]
[[sources]]
name = "old"
write_keys = ["wk-old"]
enabled = false
[[destinations]]
name = "all"
type = "file"
[[destinations]]
name = "mail-only"
type = "file"
"""
    with serving(tmp_path / "data", settings=settings) as server:
        for key in ("wk-web", "wk-mail", "wk-web"):
            assert server.get(f"/pixel/v1/page?writeKey={key}&userId={key}").status == 200
        assert server.get("/pixel/v1/page?writeKey=wk-old&userId=1").status == 404
        assert server.stop() == 0
        users = sorted(e["userId"] for e in server.events("all"))  # two workers, in any order
        assert ["wk-mail", "wk-web", "wk-web"] == users
        assert [e["userId"] for e in server.events("mail-only")] == ["wk-mail"]


def test_a_stop_delivers_all_acknowledged_events(tmp_path: Path) -> None:
    with serving(tmp_path / "data", "--workers", "1") as server:
        for n in range(50):
            assert server.track(f"e{n}") == 200
        assert server.stop() == 0
        assert [f"e{n}" for n in range(50)] == [event["event"] for event in server.events()]
        assert "Traceback" not in server.log


def test_collect_and_deliver_run_apart(tmp_path: Path) -> None:
    import select

    data = str(tmp_path / "data")
    log_path = tmp_path / "log"
    log = log_path.open("ab")
    collect = subprocess.Popen(
        [*PIXELFAST, "collect", "--data-dir", data, "--listen", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    deliver = None
    try:
        assert collect.stdout is not None
        assert select.select([collect.stdout], [], [], 20)[0]
        port = int(collect.stdout.readline().rsplit(":", 1)[1])
        key = (tmp_path / "data" / "demo-write-key").read_text().strip()
        client = http.client.HTTPConnection("127.0.0.1", port)
        client.request("GET", f"/pixel/v1/page?writeKey={key}&userId=1")
        assert client.getresponse().status == 200
        client.close()
        deliver = subprocess.Popen(
            [*PIXELFAST, "deliver", "--data-dir", data], stdout=subprocess.PIPE, stderr=log
        )
        deliver.stdout.readline()  # type: ignore[union-attr]
    finally:
        for process in (collect, deliver):
            if process is not None:
                process.terminate()
                assert process.wait(20) == 0
                process.stdout.close()  # type: ignore[union-attr]
        log.close()
    check_log(log_path.read_text(), data_dir=tmp_path / "data")
    files = list((tmp_path / "data" / "events" / "archive").glob("*.ndjson"))
    assert [json.loads(path.read_text())["userId"] for path in files] == ["1"]
