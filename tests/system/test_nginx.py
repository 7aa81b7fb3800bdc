"""Behind a real nginx, with the configuration that we ship."""

from __future__ import annotations

import http.client
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.servers import serving
from tests.waiting import wait_until

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
SHIPPED = Path(__file__).parents[2] / "deploy" / "nginx" / "pixelfast.conf"

pytestmark = pytest.mark.skipif(NGINX is None, reason="needs nginx")

MAIN = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
worker_processes 1;
events {{ }}
http {{
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/pixelfast.conf;
}}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def takes_connections(port: int, process: subprocess.Popen[bytes], folder: Path) -> bool:
    assert process.poll() is None, (folder / "error.log").read_text()
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def nginx(folder: Path, pixelfast_port: int, old: str = "", new: str = "") -> Iterator[int]:
    """Run nginx with the configuration that we ship, `old` in it replaced by `new`."""
    port = free_port()
    shipped = SHIPPED.read_text()
    assert not old or old in shipped
    shipped = shipped.replace(old, new)
    changed = shipped.replace("127.0.0.1:8080", f"127.0.0.1:{pixelfast_port}")
    changed = changed.replace("listen 80;", f"listen 127.0.0.1:{port};")
    changed = changed.replace("/var/log/nginx/pixelfast.error.log", f"{folder}/pixelfast.error.log")
    assert changed.count(str(port)) >= 1
    assert changed.count(str(folder)) == 1
    (folder / "pixelfast.conf").write_text(changed)
    (folder / "nginx.conf").write_text(MAIN.format(folder=folder))
    command = [str(NGINX), "-p", str(folder), "-c", str(folder / "nginx.conf")]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: takes_connections(port, process, folder), "nginx listens")
        yield port
    finally:
        process.terminate()
        process.wait(20)


def test_pixels_pass_through_nginx_with_the_clients_address(tmp_path: Path) -> None:
    folder = tmp_path / "nginx"
    folder.mkdir()
    with serving(tmp_path / "data", "--workers", "1") as server, nginx(folder, server.port) as port:
        client = http.client.HTTPConnection("127.0.0.1", port)

        def get(target: str, **headers: str) -> tuple[int, bytes]:
            client.request("GET", target, headers=headers)
            response = client.getresponse()
            return response.status, response.read()

        start = f"/pixel/v1/track?writeKey={server.write_key}&anonymousId=a&event="
        status, body = get(start + "one")
        assert (200, b"GIF89a", 43) == (status, body[:6], len(body))
        assert get(start + "two", **{"X-Forwarded-For": "203.0.113.7"})[0] == 200
        assert get(f"/pixel/v1/track?writeKey={server.write_key}")[0] == 400
        longest = start + "long&properties.x=" + "x" * (32_000 - len(start))
        assert get(longest)[0] == 200
        assert get("/robots.txt")[1].startswith(b"User-agent: *")
        for n in range(200):
            assert get(f"{start}many-{n}")[0] == 200
        client.close()
        events = server.wait_for_events(203)
        # nginx stands at 127.0.0.1 and is trusted; the client is at 127.0.0.1 as well, so the
        # address that it claims is a proxy's word on a proxy.
        assert {"127.0.0.1", "203.0.113.7"} == {event["request_ip"] for event in events}
        assert (folder / "error.log").read_text() == ""


# Sent with these targets and headers, the event has these properties and this client's address.
SENT_BY_PEOPLE = {
    "raw UTF-8": ("/pixel/v1/track?{query}&properties.q=каша", [], {"q": "каша"}, "127.0.0.1"),
    "raw bytes": (
        "/pixel/v1/track?{query}&properties.q=caf\udce9",
        [],
        {"q": "caf\ufffd"},
        "127.0.0.1",
    ),
    "raw UTF-8 in a name": (
        "/pixel/v1/track?{query}&properties.ключ=a—b",
        [],
        {"ключ": "a—b"},
        "127.0.0.1",
    ),
    "a slash at the end": ("/pixel/v1/track/?{query}", [], None, "127.0.0.1"),
    "double slashes": ("//pixel//v1/track?{query}", [], None, "127.0.0.1"),
    ".gif": ("/pixel/v1/track.gif?{query}", [], None, "127.0.0.1"),
    "an escaped letter": ("/pixel/v1/%74rack?{query}", [], None, "127.0.0.1"),
    "an escaped folder": ("/%70ixel/v1/track?{query}", [], None, "127.0.0.1"),
    "an empty element": (
        "/pixel/v1/track?{query}",
        ["X-Forwarded-For: 203.0.113.9,"],
        None,
        "203.0.113.9",
    ),
    "empty elements": (
        "/pixel/v1/track?{query}",
        ["X-Forwarded-For: , 203.0.113.9, ,,"],
        None,
        "203.0.113.9",
    ),
    "an empty header": ("/pixel/v1/track?{query}", ["X-Forwarded-For:"], None, "127.0.0.1"),
    "two headers, one empty": (
        "/pixel/v1/track?{query}",
        ["X-Forwarded-For: 203.0.113.9", "X-Forwarded-For: "],
        None,
        "203.0.113.9",
    ),
    "mapped": (
        "/pixel/v1/track?{query}",
        ["X-Forwarded-For: ::ffff:203.0.113.9"],
        None,
        "203.0.113.9",
    ),
}
UPSTREAMS = {
    "HTTP/1.1": ("", ""),
    "HTTP/1.0": ('proxy_http_version 1.1;\n        proxy_set_header Connection "";', ""),
    "HTTP/1.0 without Host": (
        'proxy_http_version 1.1;\n        proxy_set_header Connection "";\n'
        "        proxy_set_header Host $host;",
        'proxy_http_version 1.0; proxy_set_header Host "";',
    ),
}


@pytest.mark.parametrize("upstream", UPSTREAMS)
def test_what_people_send_passes_through_nginx(upstream: str, tmp_path: Path) -> None:
    with (
        serving(tmp_path / "data", "--workers", "1") as server,
        nginx(tmp_path, server.port, *UPSTREAMS[upstream]) as port,
    ):
        for name, (target, headers, _, _) in SENT_BY_PEOPLE.items():
            query = f"writeKey={server.write_key}&anonymousId=a&event={quote(name)}"
            lines = [f"GET {target.format(query=query)} HTTP/1.1", "Host: h", *headers]
            request = "\r\n".join([*lines, "Connection: close", "", ""])
            assert 200 == ask(port, request.encode(errors="surrogateescape"))[0], name
        found = {
            event["event"]: (event.get("properties"), event["request_ip"])
            for event in server.wait_for_events(len(SENT_BY_PEOPLE))
        }
    assert {name: case[2:] for name, case in SENT_BY_PEOPLE.items()} == found


def test_nginx_passes_on_wrong_paths_below_pixel_and_the_health_check(tmp_path: Path) -> None:
    with (
        serving(tmp_path / "data", "--workers", "1") as server,
        nginx(tmp_path, server.port) as port,
    ):
        for target in ("/pixel/v2/track?a=b", "/pixel/x", "//pixel//x"):
            request = f"GET {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
            status, picture = ask(port, request.encode())
            assert (404, b"GIF89a", 43) == (status, picture[:6], len(picture))
        assert 200 == status_of(port, "/health")
    with nginx(tmp_path, free_port()) as port:
        assert 502 == status_of(port, "/health")


def ask(port: int, request: bytes) -> tuple[int, bytes]:
    """The status and the body of one request, over a connection of its own."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(request)
        response = http.client.HTTPResponse(client)
        response.begin()
        assert "image/gif" == response.headers["Content-Type"]
        assert "no-store" in (response.headers["Cache-Control"] or "")
        return response.status, response.read()


SECRET = "wk_s3cret"
START = f"/pixel/v1/track?writeKey={SECRET}&anonymousId=a&event=E"
OWN_REFUSALS = {
    "pixelfast is away": (502, START, "", ""),
    "target": (414, f"{START}&properties.x={'x' * 40_000}", "", ""),
    "header": (400, START, f"X: {'x' * 40_000}\r\n", ""),
    "body": (413, START, "Content-Length: 70000\r\n", "x" * 70_000),
    "no HTTP": (400, f"{START} x", "", ""),
}


@pytest.mark.parametrize("name", OWN_REFUSALS)
def test_what_nginx_refuses_by_itself_is_a_picture_and_in_no_log(name: str, tmp_path: Path) -> None:
    status, target, headers, body = OWN_REFUSALS[name]
    method = "POST" if body else "GET"
    request = f"{method} {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{headers}\r\n{body}"
    with nginx(tmp_path, free_port()) as port:
        answered, picture = ask(port, request.encode())
        assert (status, b"GIF89a", 43) == (answered, picture[:6], len(picture))
        assert 404 == status_of(port, "/pixelfast.gif")
        assert 404 == status_of(port, f"/favicon.ico?{SECRET}")
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.suffix != ".conf":
            assert SECRET.encode() not in path.read_bytes(), path


NO_HTTP = {
    "no version": b"GET /pixel/v1/track?writeKey=k&userId=u&event=Open\nHost: h\r\n\r\n",
    "a target that is cut": b"GET /pixel/v1/track?writeKey=k&userId=u&event=Op\r\nen HTTP/1.1\r\n"
    b"Host: h\r\n\r\n",
    "HTTP/1.2": b"GET /pixel/v1/track?writeKey=k&userId=u&event=Open HTTP/1.2\r\nHost: h\r\n\r\n",
}


@pytest.mark.parametrize("name", NO_HTTP)
def test_a_request_line_that_http_does_not_have_is_no_event(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "nginx"
    folder.mkdir()
    with serving(tmp_path / "data", "--workers", "1") as server, nginx(folder, server.port) as port:
        request = NO_HTTP[name].replace(b"=k&", b"=%b&" % server.write_key.encode())
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            client.sendall(request)
            client.shutdown(socket.SHUT_WR)
            answer = b""
            while data := client.recv(65536):
                answer += data
        assert b"GIF89a" in answer
        assert b" 200 " not in answer.partition(b"\r\n")[0]
        assert 200 == server.track("after")
        assert ["after"] == [each["event"] for each in server.wait_for_events(1)]


@pytest.mark.parametrize(
    ("status", "request_line", "headers"),
    [
        (405, "TRACE", ""),
        (501, "POST", "Transfer-Encoding: gzip\r\n"),
    ],
)
def test_methods_and_encodings_that_nginx_does_not_have_are_a_picture(
    status: int, request_line: str, headers: str, tmp_path: Path
) -> None:
    request = f"{request_line} {START} HTTP/1.1\r\nHost: h\r\n{headers}Connection: close\r\n\r\n"
    with nginx(tmp_path, free_port()) as port:
        assert (status, b"GIF89a") == ((found := ask(port, request.encode()))[0], found[1][:6])


def status_of(port: int, target: str) -> int:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    client.request("GET", target)
    status = client.getresponse().status
    client.close()
    return status
