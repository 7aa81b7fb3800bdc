"""A real server that stops, hangs and receives signals, as operators and load balancers see it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
import urllib.error
from pathlib import Path

import pytest

from tests.servers import Server, serving
from tests.waiting import wait_until

WAIT_S = 20.0


def ready_status(server: Server) -> int:
    try:
        server.admin("/health/ready")
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    return 200


def settings_with(server: str) -> str:
    return f"""
[server]
{server}
[[sources]]
name = "web"
write_keys = ["wk"]
[[destinations]]
name = "archive"
type = "file"
"""


def is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5.0).close()
    except ConnectionRefusedError:
        return True
    return False


def test_new_connections_are_refused_while_a_stop_waits_for_a_request(tmp_path: Path) -> None:
    with serving(tmp_path / "data", "--workers", "1") as server:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            head = (
                f"GET /pixel/v1/track?writeKey={server.write_key}&userId=u&event=Half HTTP/1.1\r\n"
            )
            client.sendall(head.encode())
            wait_until(lambda: server.metrics()["pixelfast_connection_bytes"] > 0, "half a request")
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: is_refused(server.port), "the port is closed")
            client.sendall(b"Host: x\r\n\r\n")
            client.settimeout(WAIT_S)
            assert client.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
        assert 0 == server.wait()


def test_lame_duck_fails_health_checks_while_pixels_are_accepted(tmp_path: Path) -> None:
    settings = settings_with("lame_duck_s = 2.0")
    with serving(tmp_path / "data", settings=settings) as server:
        server.write_key = "wk"
        assert (200, 200) == (ready_status(server), server.get("/health").status)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: ready_status(server) == 503, "not ready")
        wait_until(lambda: server.get("/health").status == 503, "so say the collectors")
        assert 200 == server.track("Late")
        assert 0 == server.wait()
    assert ["Late"] == [each["event"] for each in server.events()]


def test_an_ipv4_client_of_an_ipv6_socket_has_an_ipv4_address(tmp_path: Path) -> None:
    settings = (
        settings_with('listen = ["[::]:0"]')
        + """
[[sources]]
name = "filling"
write_keys = ["fill"]
fill = ["ip"]
"""
    )
    options = ("--workers", "1", "--listen", "[::]:0")
    with serving(tmp_path / "data", *options, settings=settings) as server:
        server.write_key = "fill"
        assert 200 == server.track("E")
        (event,) = server.wait_for_events(1)
        assert ("127.0.0.1", "127.0.0.1") == (event["request_ip"], event["context"]["ip"])


def test_a_hung_collector_is_replaced(tmp_path: Path) -> None:
    settings = settings_with("hung_after_s = 2.0")
    with serving(tmp_path / "data", "--workers", "1", settings=settings) as server:
        server.write_key = "wk"
        hung = server.children()["pf-collector-0"]
        os.kill(hung, signal.SIGSTOP)
        wait_until(lambda: server.children().get("pf-collector-0", hung) != hung, "a new process")
        wait_until(lambda: ready_status(server) == 200, "ready")
        assert 200 == server.track("After")
        assert {"process_silent", "process_hung", "process_ended"} <= set(server.log_events())


def test_a_hung_delivery_is_replaced(tmp_path: Path) -> None:
    settings = settings_with("hung_after_s = 2.0")
    with serving(tmp_path / "data", "--workers", "1", settings=settings) as server:
        server.write_key = "wk"
        wait_until(lambda: '"delivery": {"is_ready": true' in server.admin("/health/ready"), "up")
        os.kill(server.children()["pf-delivery"], signal.SIGSTOP)
        assert 200 == server.track("Meanwhile")
        assert ["Meanwhile"] == [each["event"] for each in server.wait_for_events(1)]


def test_a_supervisor_that_was_paused_leaves_its_processes_alone(tmp_path: Path) -> None:
    settings = settings_with("hung_after_s = 2.0")
    with serving(tmp_path / "data", "--workers", "1", settings=settings) as server:
        server.write_key = "wk"
        before = server.children()
        os.kill(server.process.pid, signal.SIGSTOP)
        threading.Event().wait(3.5)  # a pause lasts for real time
        os.kill(server.process.pid, signal.SIGCONT)
        wait_until(lambda: "supervisor_paused" in server.log, "it has noticed")
        assert 200 == server.track("After")
        server.wait_for_events(1)
        assert before == server.children()
        assert not {"process_hung", "process_ended"} & set(server.log_events())


def test_a_signal_of_other_programs_does_not_stop_the_server(tmp_path: Path) -> None:
    with serving(tmp_path / "data", "--workers", "1") as server:
        server.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: "signal_ignored" in server.log, "logged")
        assert 200 == server.track("After")


def test_such_signals_end_no_process_of_the_server(tmp_path: Path) -> None:
    with serving(tmp_path / "data", "--workers", "1") as server:
        before = server.children()
        for pid in before.values():
            for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
                os.kill(pid, number)
        assert 200 == server.track("After")
        server.wait_for_events(1)
        assert before == server.children()


def test_systemd_is_notified_of_the_start_and_the_stop(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(WAIT_S)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        with serving(tmp_path / "data", environment=environment) as server:
            assert b"READY=1\nSTATUS=accepting pixels" == manager.recv(4096)
            assert 200 == server.track("E")
            server.stop()
            assert b"STOPPING=1\nSTATUS=stopping" == manager.recv(4096)


def test_no_connection_is_refused_during_restarts_with_a_passed_socket(tmp_path: Path) -> None:
    """Socket activation: connections wait in the socket that the service manager holds."""
    settings = settings_with("")
    statuses: list[int] = []
    errors: list[Exception] = []
    is_over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

        def load() -> None:
            while not is_over.is_set():
                try:
                    statuses.append(one_pixel(port))
                except OSError as error:
                    errors.append(error)

        loading = threading.Thread(target=load)
        try:
            for restart in range(3):
                with serving(tmp_path / "data", settings=settings, passed=listening) as server:
                    if not restart:
                        loading.start()
                    seen = len(statuses)
                    wait_until(lambda seen=seen: len(statuses) > seen + 20, "pixels")
                    assert 0 == server.stop()
            is_over.set()
            with serving(tmp_path / "data", settings=settings, passed=listening) as server:
                loading.join(WAIT_S)
                found = server.wait_for_events(len(statuses))
        finally:
            is_over.set()
            loading.join()
    assert ([], {200}) == (errors, set(statuses))
    assert len(statuses) == len(found)


def one_pixel(port: int) -> int:
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as client:
        target = b"/pixel/v1/track?writeKey=wk&userId=u&event=E"
        client.sendall(b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % target)
        return int(client.recv(65536).split(b" ")[1])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_the_units_are_valid(tmp_path: Path) -> None:
    folder = Path(__file__).parents[2] / "deploy" / "systemd"
    program = tmp_path / "pixelfast"
    program.touch(mode=0o755)
    units = ("pixelfast.service", "pixelfast.socket", "pixelfast-tls.socket")
    for unit in units:
        text = (folder / unit).read_text().replace("/opt/pixelfast/bin/pixelfast", str(program))
        (tmp_path / unit).write_text(text)
    result = subprocess.run(
        ["systemd-analyze", "verify", *(tmp_path / unit for unit in units)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (0, "") == (result.returncode, result.stderr)
