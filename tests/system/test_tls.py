"""TLS by pixelfast itself: the real program, with the usual behaviour of clients."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.collect.wire import GIF, read_responses, statuses
from tests.collect.wire import http as request_of
from tests.load import Load
from tests.program import run_pixelfast
from tests.servers import Server, serving
from tests.tls import SocketPeer, TlsFiles, client_context, issue
from tests.waiting import wait_until

HEADER_TIMEOUT_S = 2.0
KEY = "wk-demo"
SETTINGS = """
[server]
workers = 2
header_timeout_s = {timeout_s}
drain_timeout_s = 5
[server.tls]
listen = ["127.0.0.1:0"]
cert = "{cert}"
key = "{key}"
[[sources]]
name = "web"
write_keys = ["wk-demo"]
"""


def settings_of(files: TlsFiles) -> str:
    return SETTINGS.format(cert=files.cert, key=files.key, timeout_s=HEADER_TIMEOUT_S)


def tls_port(server: Server) -> int:
    match = re.search(r"127\.0\.0\.1:(\d+) \(TLS\)", server.welcome)
    assert match, server.welcome
    return int(match[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("tls")
    with serving(folder / "data", settings=settings_of(issue(folder))) as server:
        yield server


def track(connection: http.client.HTTPConnection, event: str) -> http.client.HTTPResponse:
    connection.request("GET", f"/pixel/v1/track?writeKey={KEY}&anonymousId=a&event={event}")
    response = connection.getresponse()
    assert GIF == response.read()
    return response


def https(server: Server, context: ssl.SSLContext | None = None) -> http.client.HTTPSConnection:
    return http.client.HTTPSConnection(
        "127.0.0.1", tls_port(server), timeout=20, context=context or client_context()
    )


def assert_serves(server: Server) -> None:
    with contextlib.closing(https(server)) as connection:
        assert 200 == track(connection, "still").status


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_pixels_are_stored_over_a_connection_that_stays(
    server: Server, version: ssl.TLSVersion
) -> None:
    context = client_context(minimum_version=version, maximum_version=version)
    with contextlib.closing(https(server, context)) as connection:
        for number in range(20):
            assert 200 == track(connection, f"{version.name}-{number}").status
    expected = {f"{version.name}-{number}" for number in range(20)}
    wait_until(lambda: expected <= {each["event"] for each in server.events()}, "all delivered")


def test_curl_verifies_and_gets_a_pixel(server: Server, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    authority = tmp_path / "ca.pem"
    authority.write_text(
        "".join(
            ssl.DER_cert_to_PEM_cert(each)
            for each in client_context().get_ca_certs(binary_form=True)
        )
    )
    url = f"https://localhost:{tls_port(server)}/pixel/v1/track?writeKey={KEY}&anonymousId=a"
    done = subprocess.run(
        ["curl", "-sv", "--cacert", authority, f"{url}&event=curl", f"{url}&event=again"],
        capture_output=True,
        timeout=30,
        check=True,
    )
    assert 2 * GIF == done.stdout
    told = done.stderr.decode()
    assert "ALPN: server accepted http/1.1" in told
    assert "Re-using existing connection" in told


@pytest.mark.parametrize("piece_bytes", [1, 11])
def test_records_and_requests_may_arrive_in_pieces(server: Server, piece_bytes: int) -> None:
    with SocketPeer(tls_port(server)) as peer:
        peer.shake_hands()
        peer.send(
            request_of() + request_of(headers=[b"Connection: close"]), piece_bytes=piece_bytes
        )
        assert [200, 200] == statuses(peer.read_all())


def test_a_client_that_closes_its_half_gets_its_responses(server: Server) -> None:
    for end in ("close_notify", "fin"):
        with SocketPeer(tls_port(server)) as peer:
            peer.shake_hands()
            peer.send(request_of() * 3 + request_of(b"/"))
            if end == "close_notify":
                peer.socket.sendall(peer.peer.end())
            else:
                peer.socket.shutdown(socket.SHUT_WR)
            assert [200, 200, 200, 404] == statuses(peer.read_all())


def test_plain_http_to_the_tls_address_is_closed_without_a_reset(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", tls_port(server)), timeout=20) as plain:
        plain.sendall(request_of())
        assert b"" == plain.recv(4096)
    assert_serves(server)


def test_tls_to_the_plain_address_is_a_bad_request(server: Server) -> None:
    with SocketPeer(server.port) as peer:
        peer.socket.sendall(peer.peer.shake_hands())
        received = b""
        while data := peer.socket.recv(65536):
            received += data
    assert [400] == [response.status for response in read_responses(received)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_versions_before_1_2_are_rejected(server: Server, version: ssl.TLSVersion) -> None:
    context = client_context(minimum_version=version, maximum_version=version)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with contextlib.closing(https(server, context)) as connection, pytest.raises(ssl.SSLError):
        connection.connect()


def test_renegotiation_is_rejected_and_the_connection_continues(server: Server) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    command = ["openssl", "s_client", "-tls1_2", "-connect", f"127.0.0.1:{tls_port(server)}"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as client:
        assert client.stdin is not None
        client.stdin.write(b"R\n")
        client.stdin.flush()
        try:
            told, _ = client.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            client.kill()
            told, _ = client.communicate()
    assert b"RENEGOTIATING" in told
    assert b"no renegotiation" in told
    assert_serves(server)


@pytest.mark.parametrize("part_bytes", [0, 1, 200])
def test_a_slow_handshake_is_closed(server: Server, part_bytes: int) -> None:
    with SocketPeer(tls_port(server)) as peer:
        peer.socket.sendall(peer.peer.shake_hands()[:part_bytes])
        with contextlib.suppress(ConnectionResetError):
            assert b"" == peer.socket.recv(4096)
    assert_serves(server)


def test_a_slow_request_gets_408(server: Server) -> None:
    with SocketPeer(tls_port(server)) as peer:
        peer.shake_hands()
        peer.send(request_of()[:20])
        assert [408] == statuses(peer.read_all())


def test_a_client_that_resumes_a_session_is_served_by_any_collector(server: Server) -> None:
    """A ticket is valid for one process; another process performs a full handshake."""
    context = client_context()
    session: ssl.SSLSession | None = None
    reused = 0
    for _ in range(24):
        with socket.create_connection(("127.0.0.1", tls_port(server)), timeout=20) as plain:
            plain.settimeout(20)
            with context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as tls:
                reused += bool(tls.session_reused)
                tls.sendall(request_of(headers=[b"Connection: close"]))
                received = b""
                while data := tls.recv(65536):
                    received += data
                session = tls.session
        assert [200] == statuses(received)
    assert 0 < reused < 24


def test_a_stop_under_load_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    with serving(tmp_path / "data", settings=settings_of(issue(tmp_path))) as server:
        load = Load(tls_port(server), KEY, connections=6, tls=client_context())

        async def main() -> None:
            load.start()
            await load.until_acked(300)
            server.process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(server.wait)
            await load.stop()

        asyncio.run(main())
        assert {} == load.rejected
        assert set(load.acked) <= {each["event"] for each in server.events()}


def test_a_reload_uses_a_new_certificate_for_new_connections(tmp_path: Path) -> None:
    files = issue(tmp_path)
    with serving(tmp_path / "data", settings=settings_of(files)) as server:
        with contextlib.closing(https(server)) as old:
            assert 200 == track(old, "before").status
            before = _serial(server)
            issue(tmp_path)
            done = run_pixelfast("reload", "--data-dir", str(server.data_dir))
            assert 0 == done.returncode, done.stderr
            assert before not in {_serial(server) for _ in range(8)}  # of both collectors
            assert 200 == track(old, "after").status
        files.cert.write_text("no certificate")
        done = run_pixelfast("reload", "--data-dir", str(server.data_dir))
        assert 1 == done.returncode
        assert "server.tls.cert" in done.stdout + done.stderr
        assert_serves(server)


def test_a_reload_loads_the_certificate_that_was_unusable_at_a_restart(tmp_path: Path) -> None:
    files = issue(tmp_path)
    with serving(tmp_path / "data", settings=settings_of(files)) as server:
        files.cert.write_text("no certificate")
        for name, pid in server.children().items():
            if name.startswith("pf-collector"):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: server.log_events().count("tls_certificate_not_loaded") == 2, "both")
        wait_until(lambda: 1.0 == server.metrics()["pixelfast_ready"], "ready")
        issue(tmp_path)
        done = run_pixelfast("reload", "--data-dir", str(server.data_dir))
        assert 0 == done.returncode, done.stderr
        for _ in range(8):
            assert_serves(server)


def _serial(server: Server) -> str:
    with contextlib.closing(https(server)) as connection:
        connection.connect()
        assert isinstance(connection.sock, ssl.SSLSocket)
        certificate = connection.sock.getpeercert()
        assert certificate
        return str(certificate["serialNumber"])


def test_a_socket_that_systemd_names_tls_speaks_tls(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as passed,
        serving(
            tmp_path / "data",
            settings=settings_of(issue(tmp_path)),
            passed=passed,
            environment={"LISTEN_FDNAMES": "tls"},
        ) as server,
    ):
        assert passed.getsockname()[1] == tls_port(server)
        assert_serves(server)
        assert 200 == server.track("plain")


def test_a_passed_tls_socket_without_tls_settings_is_an_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as passed, pytest.raises(AssertionError) as caught:
        Server(tmp_path / "data", passed=passed, environment={"LISTEN_FDNAMES": "tls"})
    assert 'server.tls: required, because systemd passed sockets with the name "tls"' in str(
        caught.value
    )


def test_the_certificate_and_failed_handshakes_have_metrics(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", tls_port(server)), timeout=20) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert b"" == plain.recv(4096)

    def are_there() -> bool:
        metrics = server.metrics()
        failures = metrics.get("pixelfast_tls_handshake_failures_total", 0)
        expires_s = metrics.get("pixelfast_tls_certificate_expiry_timestamp_seconds", 0)
        return failures > 0 and expires_s > time.time()

    wait_until(are_there, "the metrics")


def test_check_verifies_the_files_and_warns(tmp_path: Path) -> None:
    soon = datetime.now(UTC) + timedelta(days=3, hours=1)
    files = issue(tmp_path, not_after=soon)
    path = tmp_path / "pixelfast.toml"
    path.write_text(settings_of(files))
    done = run_pixelfast("check", str(path))
    assert (0, True) == (done.returncode, "[server.tls]" in done.stdout)
    (told,) = [line for line in done.stderr.splitlines() if "server.tls" in line]
    assert told.startswith("warning: server.tls.cert: the certificate in ")
    assert told.endswith("in 3 days")
    other = tmp_path / "other"
    other.mkdir()
    files.key.write_bytes(issue(other).key.read_bytes())
    for command in (
        ["check", str(path)],
        ["serve", "-c", str(path), "--data-dir", str(tmp_path / "d")],
    ):
        done = run_pixelfast(*command)
        expected = (
            f'server.tls.key = "{files.key}": expected the private key of the certificate in'
            " server.tls.cert"
        )
        assert (2, True) == (done.returncode, expected in done.stderr), done.stderr
