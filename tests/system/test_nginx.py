"""A real nginx with the shipped files: requests that it passes on and requests that it rejects."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.nginx import NGINX, Nginx, free_port, running_nginx
from tests.servers import serving

pytestmark = pytest.mark.skipif(NGINX is None, reason="needs nginx")


def nginx(folder: Path, pixelfast_port: int, *changes: tuple[str, str]) -> Nginx:
    return Nginx(folder / "nginx", [f"127.0.0.1:{pixelfast_port}"], changes=changes)


def test_pixels_pass_through_nginx_with_the_clients_address(tmp_path: Path) -> None:
    with (
        serving(tmp_path / "data", "--workers", "1") as server,
        running_nginx(nginx(tmp_path, server.port)) as front,
    ):
        client = http.client.HTTPConnection("127.0.0.1", front.port)

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
        # nginx is at 127.0.0.1 and is trusted. The client is also at 127.0.0.1, so the address that
        # it claims is accepted, as from a proxy.
        assert {"127.0.0.1", "203.0.113.7"} == {event["request_ip"] for event in events}
        assert (tmp_path / "nginx" / "error.log").read_text() == ""


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
VERSION, HOST = "proxy_http_version 1.1;", "proxy_set_header Host $host;"
UPSTREAMS: dict[str, list[tuple[str, str]]] = {
    "HTTP/1.1": [],
    "HTTP/1.0": [(VERSION, "")],
    "HTTP/1.0 without Host": [(VERSION, ""), (HOST, 'proxy_set_header Host "";')],
}


@pytest.mark.parametrize("upstream", UPSTREAMS)
def test_real_pixels_pass_through_nginx(upstream: str, tmp_path: Path) -> None:
    with (
        serving(tmp_path / "data", "--workers", "1") as server,
        running_nginx(nginx(tmp_path, server.port, *UPSTREAMS[upstream])) as front,
    ):
        for name, (target, headers, _, _) in SENT_BY_PEOPLE.items():
            query = f"writeKey={server.write_key}&anonymousId=a&event={quote(name)}"
            lines = [f"GET {target.format(query=query)} HTTP/1.1", "Host: h", *headers]
            request = "\r\n".join([*lines, "Connection: close", "", ""])
            assert 200 == ask(front.port, request.encode(errors="surrogateescape"))[0], name
        found = {
            event["event"]: (event.get("properties"), event["request_ip"])
            for event in server.wait_for_events(len(SENT_BY_PEOPLE))
        }
    assert {name: case[2:] for name, case in SENT_BY_PEOPLE.items()} == found


def test_nginx_passes_on_wrong_paths_below_pixel_and_the_health_check(tmp_path: Path) -> None:
    with (
        serving(tmp_path / "data", "--workers", "1") as server,
        running_nginx(nginx(tmp_path, server.port)) as front,
    ):
        for target in ("/pixel/v2/track?a=b", "/pixel/x", "//pixel//x"):
            request = f"GET {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
            status, picture = ask(front.port, request.encode())
            assert (404, b"GIF89a", 43) == (status, picture[:6], len(picture))
        assert 200 == status_of(front.port, "/health")
        server.stop()
        assert 502 == status_of(front.port, "/health")


def ask(port: int, request: bytes) -> tuple[int, bytes]:
    """Return the status and the body of the response to one request, over a new connection."""
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
def test_requests_that_nginx_rejects_get_the_gif_and_are_not_logged(
    name: str, tmp_path: Path
) -> None:
    status, target, headers, body = OWN_REFUSALS[name]
    method = "POST" if body else "GET"
    request = f"{method} {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{headers}\r\n{body}"
    with running_nginx(nginx(tmp_path, free_port())) as front:
        found, picture = ask(front.port, request.encode())
        assert (status, b"GIF89a", 43) == (found, picture[:6], len(picture))
        assert 404 == status_of(front.port, "/pixelfast.gif")
        assert 404 == status_of(front.port, f"/favicon.ico?{SECRET}")
    assert [] == files_with(SECRET, tmp_path)


NO_HTTP = {
    "no version": b"GET /pixel/v1/track?writeKey=k&userId=u&event=Open\nHost: h\r\n\r\n",
    "a target that is cut": b"GET /pixel/v1/track?writeKey=k&userId=u&event=Op\r\nen HTTP/1.1\r\n"
    b"Host: h\r\n\r\n",
    "HTTP/1.2": b"GET /pixel/v1/track?writeKey=k&userId=u&event=Open HTTP/1.2\r\nHost: h\r\n\r\n",
}


@pytest.mark.parametrize("name", NO_HTTP)
def test_an_invalid_request_line_is_not_an_event(name: str, tmp_path: Path) -> None:
    with (
        serving(tmp_path / "data", "--workers", "1") as server,
        running_nginx(nginx(tmp_path, server.port)) as front,
    ):
        request = NO_HTTP[name].replace(b"=k&", b"=%b&" % server.write_key.encode())
        with socket.create_connection(("127.0.0.1", front.port), timeout=20) as client:
            client.sendall(request)
            client.shutdown(socket.SHUT_WR)
            response = b""
            while data := client.recv(65536):
                response += data
        assert b"GIF89a" in response
        assert b" 200 " not in response.partition(b"\r\n")[0]
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
    with running_nginx(nginx(tmp_path, free_port())) as front:
        found, picture = ask(front.port, request.encode())
    assert (status, b"GIF89a") == (found, picture[:6])


def test_a_missing_socket_of_pixelfast_leaves_no_query_in_the_log(tmp_path: Path) -> None:
    """nginx logs it at the level "crit", with the request."""
    front = Nginx(tmp_path / "nginx", [f"unix:{tmp_path}/none.sock"], upstream="one-unix.conf")
    with running_nginx(front):
        assert 502 == ask(front.port, f"GET {START} HTTP/1.0\r\n\r\n".encode())[0]
    assert [] == files_with(SECRET, tmp_path)


def test_the_access_log_has_no_query_and_the_id_of_each_event(tmp_path: Path) -> None:
    """A client that encodes the `?` puts its query into the path."""
    log = tmp_path / "nginx" / "pixelfast.access.log"
    changes = (
        ("access_log off;", ""),
        ("#access_log", "access_log"),
        (" buffer=64k flush=5s", ""),
    )
    settings = f"""
[server]
message_id_header = "X-Request-ID"
[[sources]]
name = "web"
write_keys = ["{SECRET}"]
"""
    with (
        serving(tmp_path / "data", "--workers", "1", settings=settings) as server,
        running_nginx(nginx(tmp_path, server.port, *changes)) as front,
    ):
        for target, status in (
            (START, 200),
            (START.replace("?", "%3F"), 404),
            (START.replace("track", "page"), 200),
            (f"/health?{SECRET}", 200),
            (f"/{SECRET}", 404),
            (f"{START}&x={'x' * 40_000}", 414),
        ):
            assert status == status_of(front.port, target)
        events = server.wait_for_events(2)
    lines = [line.split() for line in log.read_text().splitlines()]
    # nginx logs a request after its response, in each worker separately.
    assert sorted(
        [
            ("track", "200"),
            ("other", "404"),
            ("page", "200"),
            ("health", "200"),
            ("other", "404"),
            ("other", "414"),
        ]
    ) == sorted((line[2], line[3]) for line in lines)
    ids = {line[2]: line[-1] for line in lines}
    assert {"track": ids["track"], "page": ids["page"]} == {
        event["type"]: event["messageId"] for event in events
    }
    (tmp_path / "data.toml").unlink()
    assert [] == files_with(SECRET, tmp_path)


def test_a_regular_expression_of_the_site_does_not_take_pixels(tmp_path: Path) -> None:
    own = ("location / {", "location ~ \\.gif$ {\n return 410;\n}\nlocation / {")
    with (
        serving(tmp_path / "data", "--workers", "1") as server,
        running_nginx(nginx(tmp_path, server.port, own)) as front,
    ):
        target = f"/pixel/v1/track.gif?writeKey={server.write_key}&userId=u&event=E"
        assert [410, 200] == [status_of(front.port, each) for each in ("/a.gif", target)]


def files_with(secret: str, folder: Path) -> list[Path]:
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".conf" and secret.encode() in path.read_bytes()
    ]


def status_of(port: int, target: str) -> int:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    client.request("GET", target)
    status = client.getresponse().status
    client.close()
    return status
