"""No output contains a secret or a control character, regardless of its origin.

The destinations of the server repeat every header and control sequences in their responses, and
pixels contain such sequences in names, values and headers. Everything that is printed, logged,
stored or shown is checked.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest
from click.testing import CliRunner

from pixelfast.cli import cli
from pixelfast.printable import printable_lines
from tests.program import in_pipe, on_terminal
from tests.servers import Server, serving
from tests.waiting import wait_until

# The secrets as they are in the settings; no output may contain any of them.
SECRETS = {
    "BEARER": "bear-3r-s3cret/t+k",
    "HEADER": "head-3r-s3cret",
    "PASSWORD": "pass-w0rd-s3cret",
    "QUERY": "qu3ry-s3cret",
    "PATH": "p4th-s3cret",
    "RUDDER": "rudd3r-s3cret",
    "POSTHOG": "phc_p0sthog-s3cret",
    "CLICKHOUSE": "cl1ckhouse-s3cret",
    "ELASTIC": "ZWw6M2xhc3RpYy1zM2NyZXQ=",
    "SIGNING": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "WRITEKEY": "wk_live_wr1te-s3cret",
}
ACCEPTED = "Accepted by all"
NASTY = (  # begins and ends with visible characters, because names and events are trimmed
    "nasty\x1b]0;owned\x07\x1b[31m\x9b2J\x7f\u202e\u2066\u200e\u200b\u061c\u2028\ufeff[red]x[/red]"
    "\r\nforged\trow"
)
SETTINGS = """
[[sources]]
name = "web"
write_keys = ["{WRITEKEY}"]

[[destinations]]
name = "refuses"
type = "http"
url = "{base}/400/{PATH}?token={QUERY}"
format = "single"
bearer_token = "{BEARER}"
headers = {{ X-Key = "{HEADER}" }}
signing_secrets = ["{SIGNING}"]

[[destinations]]
name = "holds"
type = "http"
url = "{base}/401/{PATH}?token={QUERY}"
username = "user"
password = "{PASSWORD}"

[[destinations]]
name = "retries"
type = "rudderstack"
url = "{base}/503"
write_key = "{RUDDER}"

[[destinations]]
name = "posthog"
type = "posthog"
url = "{base}/404"
api_key = "{POSTHOG}"

[[destinations]]
name = "clickhouse"
type = "clickhouse"
url = "{base}/403"
table = "t"
password = "{CLICKHOUSE}"

[[destinations]]
name = "elastic"
type = "elasticsearch"
url = "{base}/400"
index = "i"
api_key = "{ELASTIC}"

[[destinations]]
name = "unknown-host"
type = "http"
url = "http://does-not-exist.invalid/in/{PATH}?token={QUERY}"

[[destinations]]
name = "tls"
type = "http"
url = "{tls_base}/in/{PATH}?token={QUERY}"

[[destinations]]
name = "no-http"
type = "http"
url = "{raw_base}/in/{PATH}?token={QUERY}"

[[destinations]]
name = "archive"
type = "file"
"""


HOOK = '[[destinations]]\nname = "h"\ntype = "http"\n'


class _Echo(http.server.BaseHTTPRequestHandler):
    """Responds with the status at the beginning of the path, and with everything that it was sent.

    One event is accepted, because rejections of a destination that accepts nothing count after 5 s.
    """

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        sent = f"{self.path}\n{self.headers}".replace("\r", "")
        response = (NASTY + sent + json.dumps(sent)).encode()
        response = response[:900].ljust(1018, b".") + sent.split("Bearer ")[-1][:6].encode() + body
        status = int(self.path.split("/")[1])
        if self.path.startswith(f"/400/{SECRETS['PATH']}") and ACCEPTED.encode() in body:
            status = 200
        # The destination also chooses the reason phrase.
        self.send_response(status, f"No {self.headers.get('Authorization')}\x1b[31m")
        self.send_header("Content-Length", str(len(response)))
        self.send_header("X-Echo", quote(self.path))
        self.end_headers()
        self.wfile.write(response)

    def log_message(self, *_arguments: object) -> None:
        pass


class _NoHttp(http.server.BaseHTTPRequestHandler):
    """Sends the request back in place of a status line."""

    def do_POST(self) -> None:
        self.wfile.write(f"HTTP/1.1 {self.path} \x1b[31m\r\n\r\n".encode())

    def log_message(self, *_arguments: object) -> None:
        pass


@contextlib.contextmanager
def listening(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def check_secrets(text: str, where: str, but: str = "") -> None:
    """Check that there is no secret, or half of one, in any of the usual encodings."""
    for name, secret in SECRETS.items():
        if name == but:
            continue
        for each in (secret, quote(secret, safe=""), secret.replace("/", "\\/"), secret[:12]):
            place = text.lower().find(each.lower())
            assert place < 0, f"{name} is in {where}: …{text[max(0, place - 80) : place + 40]!r}"


def check_characters(text: str, where: str) -> None:
    for line in text.split("\n"):
        if line != printable_lines(line):
            bad = next(char for char in line if char != printable_lines(char))
            raise AssertionError(f"{bad!r} is in {where}: {line!r}")


def check(text: str, where: str, but: str = "") -> None:
    check_secrets(text, where, but)
    check_characters(text, where)


def send_nasty_pixels(server: Server) -> None:
    nasty = quote(NASTY)
    base = f"/pixel/v1/track?writeKey={SECRETS['WRITEKEY']}&anonymousId=a"
    targets = [
        f"{base}&event={quote(ACCEPTED)}",
        f"{base}&event={nasty}",
        f"{base}&event=%5Bred%5Dx%5B/red%5D",
        f"{base}&event=E&properties.{nasty}={nasty}&userId={nasty}&context.{nasty}.x=1",
        f"/pixel/v1/page?writeKey={SECRETS['WRITEKEY']}&anonymousId={nasty}&name={nasty}",
    ]
    for target in targets:
        headers = {"User_Agent": "\x9b\xadMozilla", "X_Forwarded_For": "\x9b31m"}
        assert 200 == server.get(target, **headers).status
        assert 400 == server.get(target, User_Agent="\x7f").status
    for target in (f"/pixel/v1/track?writeKey={nasty}", f"/{nasty}", base.replace("&", "x&")):
        server.get(target)


def wait_for_outcomes(server: Server, destination: str = "refuses", letters: int = 4) -> str:
    """Return `/metrics` as soon as one destination has dead letters and the others have failed."""
    metrics = ""

    def look() -> bool:
        nonlocal metrics
        metrics = server.admin("/metrics")
        dead = re.search(rf'pixelfast_dead_events\{{destination="{destination}"\}} (\d+)', metrics)
        failures = r'pixelfast_delivery_failures_total\{destination="[^"]+"\} ([\d.]+)'
        failed = [count for count in re.findall(failures, metrics) if float(count) > 0]
        return dead is not None and int(dead[1]) >= letters and len(failed) >= 7

    wait_until(look, f"{letters} dead letters of {destination}, and the others fail")
    return metrics


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("leaks") / "pixelfast.toml"
    with listening(_Echo) as echo, listening(_NoHttp) as raw:
        path.write_text(
            SETTINGS.format(
                base=f"http://{echo}",
                tls_base=f"https://{echo}",
                raw_base=f"http://{raw}",
                **SECRETS,
            )
        )
        yield path


class Failed(NamedTuple):
    """A server whose destinations have all failed, and its settings."""

    server: Server
    settings: Path
    metrics: str

    @property
    def options(self) -> tuple[str, ...]:
        return ("-c", str(self.settings), "--data-dir", str(self.server.data_dir))


@contextlib.contextmanager
def failed_server(folder: Path, settings: Path, log_format: str) -> Iterator[Failed]:
    own = folder / "pixelfast.toml"
    own.write_text(f'[log]\nformat = "{log_format}"\n{settings.read_text()}')
    with serving(folder / "data", "-c", str(own), "--workers", "1") as server:
        send_nasty_pixels(server)
        yield Failed(server, own, wait_for_outcomes(server))
    check(server.log, "the log")
    assert "destination_held" in server.log
    assert "…" in server.log


@pytest.fixture(scope="module")
def failed(settings: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Failed]:
    with failed_server(tmp_path_factory.mktemp("failed"), settings, "json") as failed:
        yield failed


def check_server(failed: Failed) -> None:
    check(failed.metrics, "/metrics")
    ready = failed.server.admin("/health/ready")
    check(ready, "/health/ready")
    assert "status 401" in ready
    check(failed.server.welcome, "the welcome")


def test_a_server_prints_no_secrets_and_no_control_characters(failed: Failed) -> None:
    check_server(failed)  # the log is checked when it ends


def test_a_server_with_a_console_log_prints_none(settings: Path, tmp_path: Path) -> None:
    with failed_server(tmp_path, settings, "console") as failed:
        check_server(failed)
    check_stored(tmp_path / "data" / "dead" / "refuses" / "dead.db")


def test_a_command_prints_none(failed: Failed) -> None:
    commands = [
        ("dead", "ls", *failed.options),
        ("dead", "show", "refuses", "1", "2", "3", *failed.options),
        ("spool", "ls", *failed.options),
        ("spool", "check", *failed.options),
        ("spool", "dump", *failed.options),
        ("dead", "show", NASTY, "1", *failed.options),
        ("check", str(failed.settings)),
    ]
    runs = [(run, command) for command in commands for run in (in_pipe, on_terminal)]
    with ThreadPoolExecutor() as pool:  # most of their time is the start of an interpreter
        texts = list(pool.map(lambda each: each[0](*each[1]), runs))
    for (run, command), text in zip(runs, texts, strict=True):
        assert text, command
        check(text, f"{run.__name__} {command[:2]}")


def test_none_is_stored_with_dead_letters(failed: Failed) -> None:
    wait_for_outcomes(failed.server, "elastic", 1)
    paths = sorted((failed.server.data_dir / "dead").glob("*/dead.db"))
    assert {"elastic", "refuses"} <= {path.parent.name for path in paths}
    for path in paths:
        check_stored(path)


def check_stored(path: Path) -> None:
    db = sqlite3.connect(path)
    try:
        letters = db.execute("SELECT reason, answer, event FROM letter").fetchall()
    finally:
        db.close()
    assert letters
    for reason, response, event in letters:
        check_secrets(reason, f"a reason of {path}")
        check_secrets(response.decode("utf-8", "replace"), f"a response of {path}")
        check_secrets(event.decode(), f"an event of {path}")


def test_rows_are_not_forged_and_markup_is_not_obeyed(failed: Failed) -> None:
    expected = [["destination", "id"], *(["refuses", str(n)] for n in (1, 2, 3, 4))]
    piped = in_pipe("dead", "ls", "refuses", *failed.options).splitlines()
    assert expected == [line.split()[:2] for line in piped]
    shown = on_terminal("dead", "ls", "refuses", *failed.options)
    rows = [line.split()[:2] for line in shown.splitlines() if not line.startswith(" ")]
    assert expected == rows
    assert " [red]x[/red] " in shown
    dumped = in_pipe("spool", "dump", *failed.options)
    names = {json.loads(line).get("event") for line in dumped.splitlines()}
    assert NASTY in names  # escaped, and the same value


@pytest.mark.parametrize(
    "text",
    [
        'data_dir = "\\u001b]0;x\\u0007\\u009b\\u202e"\nx = 1',
        '"\\u001b[31m" = 1',
        '[server]\nlisten = ["unix:/tmp/\\u009b\\u202e\\u2028"]',
        '[[destinations]]\nname = "\\u001b\\u202e"\ntype = "file"',
        '[[destinations]]\nname = "h"\ntype = "\\u009b"',
        HOOK + 'url = "h/in/p4th-s3cret?t=qu3ry-s3cret"',
        HOOK + 'url = "ftp://u:pass-w0rd-s3cret@h/in/p4th-s3cret"',
        HOOK + 'url = "http://h"\nbearer_token = "bear-3r-s3cret\\u0007"',
    ],
)
def test_settings_and_their_errors_are_shown_without_secrets_and_escapes(
    tmp_path: Path, text: str
) -> None:
    path = tmp_path / "pixelfast.toml"
    path.write_text(text)
    output = CliRunner().invoke(cli, ["check", str(path)]).output
    assert " error" in output or "data_dir" in output
    check(output, "what `check` says")


@pytest.mark.parametrize("command", ["decode", "url"])
def test_pixels_that_are_explained_have_their_escapes(command: str) -> None:
    if command == "decode":
        target = f"/pixel/v1/track?writeKey=k&anonymousId=a&event={quote(NASTY)}&{quote(NASTY)}=1"
        text = in_pipe("decode", target)
        assert NASTY == json.loads(text)["event"]["event"]
    else:
        text = in_pipe(
            "url", "track", "--event", NASTY, "--write-key", "k", "--base", "http://\x9b"
        )
    check_characters(text, command)
