"""What an operator and a load balancer see of a real server that stops, hangs and gets signals."""

from __future__ import annotations

import os
import signal
import socket
import time
import urllib.error
from collections.abc import Callable
from pathlib import Path

from tests.servers import Server, serving

WAIT_S = 20.0


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline, f"not within {WAIT_S:.0f} s: {what}"
        time.sleep(0.02)


def ready_status(server: Server) -> int:
    try:
        server.admin("/health/ready")
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    return 200


def settings_in(folder: Path, server: str) -> str:
    path = folder / "pixelfast.toml"
    path.write_text(
        f'[server]\n{server}\n[[sources]]\nname = "s"\nwrite_keys = ["wk"]\n'
        '[[destinations]]\nname = "archive"\ntype = "file"\n'
    )
    return str(path)


def is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5.0).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_stop_refuses_new_connections_while_a_request_is_under_way(tmp_path: Path) -> None:
    with serving(tmp_path / "data", "--workers", "1") as server:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            head = (
                f"GET /pixel/v1/track?writeKey={server.write_key}&userId=u&event=Half HTTP/1.1\r\n"
            )
            client.sendall(head.encode())
            wait_until(lambda: server.metrics()["pixelfast_connection_bytes"] > 0, "half a request")
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: is_refused(server.port), "nobody listens")
            client.sendall(b"Host: x\r\n\r\n")
            client.settimeout(WAIT_S)
            assert client.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
        assert 0 == server.stop_again()


def test_lame_duck_fails_health_checks_while_pixels_are_accepted(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, "lame_duck_s = 2.0")
    with serving(tmp_path / "data", "-c", settings) as server:
        server.write_key = "wk"
        assert 200 == ready_status(server)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: ready_status(server) == 503, "not ready")
        assert 200 == server.track("Late")
        assert 0 == server.stop_again()
    assert ["Late"] == [each["event"] for each in server.events()]


def test_a_hung_collector_is_replaced(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, "hung_after_s = 2.0")
    with serving(tmp_path / "data", "-c", settings, "--workers", "1") as server:
        server.write_key = "wk"
        hung = server.children()["pf-collector-0"]
        os.kill(hung, signal.SIGSTOP)
        wait_until(lambda: server.children().get("pf-collector-0", hung) != hung, "a new process")
        wait_until(lambda: ready_status(server) == 200, "ready")
        assert 200 == server.track("After")
        assert {"process_silent", "process_hung", "process_ended"} <= set(server.log_events())


def test_a_hung_delivery_is_replaced(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, "hung_after_s = 2.0")
    with serving(tmp_path / "data", "-c", settings, "--workers", "1") as server:
        server.write_key = "wk"
        wait_until(lambda: '"delivery": {"is_ready": true' in server.admin("/health/ready"), "up")
        os.kill(server.children()["pf-delivery"], signal.SIGSTOP)
        assert 200 == server.track("Meanwhile")
        assert ["Meanwhile"] == [each["event"] for each in server.wait_for_events(1)]


def test_signals_of_other_programs_do_not_stop_the_server(tmp_path: Path) -> None:
    with serving(tmp_path / "data", "--workers", "1") as server:
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            server.process.send_signal(number)
        wait_until(lambda: server.log.count("signal_ignored") == 3, "logged")
        assert 200 == server.track("After")
