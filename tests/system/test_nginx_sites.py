"""Run a real nginx with each shipped file: TLS, HTTP/2, limits, CDNs, RudderStack, two servers."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.nginx import DEPLOY, NGINX, SITES, UPSTREAMS, Nginx, running_nginx
from tests.servers import Server, serving
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(NGINX is None, reason="needs nginx")

WRITE_KEY = "wk-sites"
SETTINGS = f"""
[server]
message_id_header = "X-Request-ID"
[[sources]]
name = "web"
write_keys = ["{WRITE_KEY}"]
"""
PIXEL = f"/pixel/v1/track?writeKey={WRITE_KEY}&anonymousId=a&event="
CURL = shutil.which("curl")
SPEAKS_HTTP_2 = (
    CURL is not None
    and "HTTP2" in subprocess.run([CURL, "-V"], capture_output=True, text=True, check=False).stdout
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests, each of which uses its own names of events."""
    folder = tmp_path_factory.mktemp("pixelfast")
    with serving(folder / "data", "--workers", "1", settings=SETTINGS) as server:
        yield server


def events_of(server: Server, name: str, count: int) -> list[dict[str, Any]]:
    """Return the events whose names have this prefix, once there are `count`."""
    found: list[dict[str, Any]] = []

    def look() -> bool:
        found[:] = [event for event in server.events() if event["event"].startswith(name)]
        return len(found) >= count

    wait_until(look, f"{count} events")
    return found


def get(
    port: int, target: str, method: str = "GET", source: str = "127.0.0.1", **headers: str
) -> tuple[int, bytes]:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=20, source_address=(source, 0))
    client.request(
        method, target, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    response = client.getresponse()
    found = response.status, response.read()
    client.close()
    return found


@pytest.mark.parametrize("upstream", UPSTREAMS)
@pytest.mark.parametrize("site", SITES)
def test_nginx_accepts_every_combination_without_a_warning(
    site: str, upstream: str, tmp_path: Path
) -> None:
    servers = [f"127.0.0.1:{7000 + n}" for n in range(UPSTREAMS[upstream])]
    options = ["cdn.conf"] if site == "rudderstack.conf" else ["limits.conf", "cdn.conf"]
    for switched_on in ([], options):
        folder = tmp_path / str(len(switched_on))
        nginx = Nginx(folder, servers, site=site, upstream=upstream, options=switched_on)
        nginx.install()
        said = nginx.check()
        assert "test is successful" in said
        assert "warn" not in said


def test_every_file_is_included_by_one_that_is_tested() -> None:
    every = {path.name for path in (DEPLOY / "pixelfast").glob("*.conf")}
    texts = [path.read_text() for path in DEPLOY.rglob("*.conf")]
    assert every == {
        name for text in texts for name in re.findall(r"include pixelfast/(.+?);", text)
    }
    assert {*SITES, "nginx.conf"} == {path.name for path in DEPLOY.glob("*.conf")}
    assert set(UPSTREAMS) == {
        path.name
        for path in (DEPLOY / "pixelfast").glob("*.conf")
        if "upstream pixelfast {" in path.read_text()
    }


def test_an_address_claimed_by_a_client_is_ignored(server: Server, tmp_path: Path) -> None:
    """127.0.0.2 is a client that is not trusted."""
    forged = {
        "X_Forwarded_For": "6.6.6.6, 127.0.0.1",
        "X_Real_IP": "6.6.6.7",
        "X_Request_ID": "forged",
        "Forwarded": "for=6.6.6.8",
        "Connection": "X-Forwarded-For, X-Request-ID",
        "Cookie": "c" * 30_000,
    }
    with running_nginx(Nginx(tmp_path / "nginx", [f"127.0.0.1:{server.port}"])) as front:
        assert 200 == get(front.port, PIXEL + "forged", source="127.0.0.2", **forged)[0]
        (event,) = events_of(server, "forged", 1)
    assert "127.0.0.2" == event["request_ip"]
    assert re.fullmatch("[0-9a-f]{32}", event["messageId"])
    assert "6.6.6" not in json.dumps(event)


SMUGGLING = {
    "body": b"POST %b HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b",
    "both-lengths": b"POST %b HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n%b",
    "control-character": b"POST %b HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n"
    b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n%b",
    "space": b"POST %b HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n"
    b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n%b",
    "get": b"GET %b HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b",
}


def test_no_request_is_smuggled_in_a_body(server: Server, tmp_path: Path) -> None:
    expected = []
    with running_nginx(Nginx(tmp_path / "nginx", [f"127.0.0.1:{server.port}"])) as front:
        for name, form in SMUGGLING.items():
            hidden = f"GET {PIXEL}smuggled-hidden-{name} HTTP/1.1\r\nHost: h\r\nX: ".encode()
            target = f"{PIXEL}smuggled-{name}".encode()
            with socket.create_connection(("127.0.0.1", front.port), timeout=20) as client:
                client.sendall(form % (target, len(hidden), hidden))
                client.shutdown(socket.SHUT_WR)
                response = b""
                while data := client.recv(65536):
                    response += data
            if response.startswith(b"HTTP/1.1 200 "):
                expected.append(f"smuggled-{name}")
            assert 200 == get(front.port, f"{PIXEL}smuggled-after-{name}")[0]
            expected.append(f"smuggled-after-{name}")
        events = events_of(server, "smuggled", len(expected))
    assert sorted(expected) == sorted(event["event"] for event in events)
    assert {"smuggled-body", "smuggled-get"} <= set(expected)


def test_clients_are_limited_by_their_address(server: Server, tmp_path: Path) -> None:
    slow = (("rate=50r/s", "rate=1r/m"), ("burst=200", "burst=4"))
    addresses = [f"127.0.0.1:{server.port}"]
    front = Nginx(tmp_path / "nginx", addresses, options=["limits.conf"], changes=slow)
    with running_nginx(front):
        many = [get(front.port, f"{PIXEL}limited-{n}") for n in range(8)]
        other = get(front.port, PIXEL + "limited", source="127.0.0.3")
    assert [200] * 5 + [429] * 3 == [status for status, _ in many]
    assert {b"GIF89a"} == {body[:6] for _, body in many}
    assert 200 == other[0]


def test_behind_a_cdn_the_client_address_is_that_reported_by_the_cdn(
    server: Server, tmp_path: Path
) -> None:
    """127.0.0.5 is the CDN; 127.0.0.2 is a client that bypasses it."""
    trusted = (("set_real_ip_from 198.51.100.0/24", "set_real_ip_from 127.0.0.5"),)
    forwarded = {"X_Forwarded_For": "6.6.6.6, 203.0.113.9, 127.0.0.5"}
    addresses = [f"127.0.0.1:{server.port}"]
    front = Nginx(tmp_path / "nginx", addresses, options=["cdn.conf"], changes=trusted)
    with running_nginx(front):
        assert 200 == get(front.port, PIXEL + "by-cdn", source="127.0.0.5", **forwarded)[0]
        assert 200 == get(front.port, PIXEL + "by-itself", source="127.0.0.2", **forwarded)[0]
        found = {each["event"]: each["request_ip"] for each in events_of(server, "by-", 2)}
    assert {"by-cdn": "203.0.113.9", "by-itself": "127.0.0.2"} == found


class Upstream:
    """Run a server that records the heads of its requests and calls `respond` for each."""

    def __init__(self, response: bytes | None) -> None:
        self.heads: list[bytes] = []
        self._response = response
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            client, _ = self._listening.accept()
            with client:
                head = b""
                while b"\r\n\r\n" not in head and (data := client.recv(65536)):
                    head += data
                if not head:
                    return
                self.heads.append(head)
                if self._response is None:
                    client.recv(1)  # until nginx gives up
                else:
                    client.sendall(self._response)

    def close(self) -> None:
        socket.create_connection(("127.0.0.1", self.port)).close()
        self._thread.join()
        self._listening.close()


@contextmanager
def upstream(response: bytes | None) -> Iterator[Upstream]:
    server = Upstream(response)
    try:
        yield server
    finally:
        server.close()


def test_pixelfast_gets_the_headers_that_it_reads_and_no_others(tmp_path: Path) -> None:
    read = {"User_Agent": "u", "Referer": "r", "Origin": "o", "Accept_Language": "l"}
    others = {"Cookie": "c=1", "Authorization": "a", "X_Real_IP": "6.6.6.6", "Content_Type": "t"}
    response = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    with upstream(response) as seen:
        with running_nginx(Nginx(tmp_path / "nginx", [f"127.0.0.1:{seen.port}"])) as front:
            assert 200 == get(front.port, PIXEL + "E", "POST", **read, **others)[0]
            assert 200 == get(front.port, PIXEL + "E")[0]
        names = [set(re.findall(r"(?m)^([\w-]+):", head.decode())) for head in seen.heads]
    always = {"Host", "X-Forwarded-For", "X-Request-ID"}
    assert [always | {name.replace("_", "-") for name in read}, always] == names


FAILURES = {
    "closes": b"",
    "503": b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
    "500": b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
    "no response": None,
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_request_that_one_server_does_not_store_is_one_event_of_the_other(
    failure: str, server: Server, tmp_path: Path
) -> None:
    quick = (("proxy_read_timeout 10s", "proxy_read_timeout 300ms"),)
    name = f"again-{failure.replace(' ', '-')}"
    with upstream(FAILURES[failure]) as failing:
        servers = [f"127.0.0.1:{failing.port}", f"127.0.0.1:{server.port}"]
        front = Nginx(tmp_path / "nginx", servers, upstream="backup.conf", changes=quick)
        with running_nginx(front):
            for method in ("GET", "POST", "GET"):
                assert 200 == get(front.port, PIXEL + name, method)[0]
            events = events_of(server, name, 3)
        tried = re.findall(rb"X-Request-ID: (\w+)", b"".join(failing.heads))
    assert [each.decode() for each in tried] == [event["messageId"] for event in events]
    assert 3 == len(set(tried))


def test_a_source_over_its_rate_does_not_try_the_other_server(
    server: Server, tmp_path: Path
) -> None:
    limited = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n"
    with upstream(limited) as limiting:
        servers = [f"127.0.0.1:{limiting.port}", f"127.0.0.1:{server.port}"]
        with running_nginx(Nginx(tmp_path / "nginx", servers, upstream="backup.conf")) as front:
            assert 429 == get(front.port, PIXEL + "over-rate")[0]
    assert 200 == server.track("over-rate-after")
    assert ["over-rate-after"] == [each["event"] for each in events_of(server, "over-rate", 1)]


def test_rudderstack_gets_all_but_the_pixels(server: Server, tmp_path: Path) -> None:
    response = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nOK"
    with upstream(response) as rudderstack:
        front = Nginx(
            tmp_path / "nginx",
            [f"127.0.0.1:{server.port}"],
            site="rudderstack.conf",
            rudderstack=f"127.0.0.1:{rudderstack.port}",
        )
        with running_nginx(front):
            others = ["/v1/batch", f"/v1/webhook?writeKey={WRITE_KEY}", "/health", "/"]
            for target in others:
                assert (200, b"OK") == get(front.port, target, "POST", Authorization="Basic x")
            pixels = ["/pixel/v1/track", "/pixel/v1/track.gif", "//pixel/v1/track/"]
            for n, path in enumerate(pixels):
                assert (
                    200 == get(front.port, PIXEL.replace("/pixel/v1/track", path) + f"mine-{n}")[0]
                )
            assert 404 == get(front.port, "/pixel/v1/alias")[0]
            found = [event["event"] for event in events_of(server, "mine", 3)]
        heads = [head.split(b"\r\n")[0].decode() for head in rudderstack.heads]
    assert ["mine-0", "mine-1", "mine-2"] == sorted(found)
    assert [f"POST {target} HTTP/1.1" for target in others] == heads
    assert all(b"Authorization: Basic x" in head for head in rudderstack.heads)


def test_pixels_are_accepted_with_and_without_tls(server: Server, tmp_path: Path) -> None:
    addresses = [f"127.0.0.1:{server.port}"]
    with running_nginx(Nginx(tmp_path / "nginx", addresses, site="pixelfast-tls.conf")) as front:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = ssl.create_default_context(cafile=tmp_path / "nginx" / "ca.pem")
            context.minimum_version = context.maximum_version = version
            with (
                socket.create_connection(("127.0.0.1", front.tls_port), timeout=20) as plain,
                context.wrap_socket(plain, server_hostname="pixel.example.com") as client,
            ):
                client.sendall(f"GET {PIXEL}tls-{version.name} HTTP/1.0\r\n\r\n".encode())
                assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert 200 == get(front.port, PIXEL + "tls-none")[0]
        found = [event["event"] for event in events_of(server, "tls", 3)]
    assert ["tls-TLSv1_2", "tls-TLSv1_3", "tls-none"] == found


@pytest.mark.skipif(not SPEAKS_HTTP_2, reason="needs curl with HTTP/2")
def test_many_pixels_share_one_connection_of_http_2(server: Server, tmp_path: Path) -> None:
    addresses = [f"127.0.0.1:{server.port}"]
    with running_nginx(Nginx(tmp_path / "nginx", addresses, site="pixelfast-tls.conf")) as front:
        found = curl_http_2(front, PIXEL + "h2-[1-300]")
        events = events_of(server, "h2-", 300)
    assert ["200 2"] * 300 == found
    assert 300 == len({event["messageId"] for event in events})


def curl_http_2(front: Nginx, target: str) -> list[str]:
    """Request all targets at once over one connection; return the status and version of each."""
    host = f"pixel.example.com:{front.tls_port}"
    command: list[Any] = [
        CURL,
        "-sS",
        "--no-progress-meter",
        "--http2",
        "--cacert",
        front.folder / "ca.pem",
    ]
    command += ["--resolve", f"{host}:127.0.0.1", "-Z", "--parallel-max", "50"]
    command += ["-w", "%{http_code} %{http_version}\n", "-o", "/dev/null"]
    done = subprocess.run(
        [*command, f"https://{host}{target}"], capture_output=True, text=True, check=False
    )
    assert "" == done.stderr
    return done.stdout.splitlines()
