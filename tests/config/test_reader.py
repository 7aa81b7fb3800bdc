"""Reading settings: valid values are accepted, and all errors are reported at once."""

from __future__ import annotations

import re
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pixelfast.config import (
    Config,
    FileDestination,
    HttpDestination,
    RudderstackDestination,
    describe,
    read_config,
)
from pixelfast.config.reader import config_from_table
from pixelfast.errors import ConfigErrors

FULL = """
data_dir = "/var/lib/pixelfast"
[server]
listen = ["127.0.0.1:8080", "unix:/run/pixelfast/pixel.sock", "[::1]:8080"]
admin = "127.0.0.1:8081"
workers = 0
trusted_proxies = ["127.0.0.1/32", "2001:db8::/32", "192.0.2.1"]
[spool]
ack = "synced"
max_bytes = "20GiB"
[[sources]]
name = "web"
write_keys = ["wk_live_1", { key = "wk_old_1", expires = 2027-01-31T00:00:00Z }]
destinations = ["archive", "rudder"]
[[sources]]
name = "mail"
write_keys = ["wk_live_2"]
enabled = false
fill = ["ip", "locale"]
[[destinations]]
name = "archive"
type = "file"
[[destinations]]
name = "rudder"
type = "rudderstack"
url = "https://data-plane.example.com"
write_key = "${RUDDER_WRITE_KEY}"
[[destinations]]
name = "hook"
type = "http"
url = "https://example.com/hook"
format = "ndjson"
headers = { X-Team = "${TEAM}-pixels" }
"""


def problems_of(text: str, tmp_path: Path) -> list[str]:
    path = tmp_path / "pixelfast.toml"
    path.write_text(text)
    with pytest.raises(ConfigErrors) as caught:
        read_config(path)
    return [str(problem) for problem in caught.value.problems]


def problems_in(table: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigErrors) as caught:
        config_from_table(table)
    return [str(problem) for problem in caught.value.problems]


def test_a_complete_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUDDER_WRITE_KEY", "secret")
    monkeypatch.setenv("TEAM", "blue")
    path = tmp_path / "pixelfast.toml"
    path.write_text(FULL)
    config = read_config(path)
    web, mail = config.sources
    archive, rudder, hook = config.destinations
    assert config.spool.max_bytes == 20 * 2**30
    assert [key.key for key in web.write_keys] == ["wk_live_1", "wk_old_1"]
    assert web.write_keys[1].expires == datetime(2027, 1, 31, tzinfo=UTC)
    assert web.destinations == ("archive", "rudder")
    assert (mail.destinations, mail.enabled, mail.fill) == (None, False, ("ip", "locale"))
    assert isinstance(archive, FileDestination)
    assert isinstance(rudder, RudderstackDestination)
    assert isinstance(hook, HttpDestination)
    assert rudder.write_key == "secret"
    assert hook.headers == {"X-Team": "blue-pixels"}


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "pixelfast.toml"
    path.write_bytes(b"\xef\xbb\xbf[server]\r\nworkers = 3\r\n")
    assert 3 == read_config(path).server.workers


@pytest.mark.parametrize("path", ["", "/", "/health", "/a/b-c._~", "/pixel"])
def test_a_valid_health_path_is_accepted(path: str) -> None:
    table = {"server": {"health_path": path}}
    assert path == config_from_table(table).server.health_path


@pytest.mark.parametrize(
    "path",
    [
        "health",
        "/a/",
        "//a",
        "/a?b",
        "/a#b",
        "/%61",
        "/é",
        "/a b",
        "/robots.txt",
        "/pixel/v1/track",
    ],
)
def test_an_invalid_health_path_is_rejected(path: str) -> None:
    (problem,) = problems_in({"server": {"health_path": path}})
    assert problem.startswith(f'server.health_path = "{path}": expected a path such as "/health"')


@pytest.mark.parametrize("name", ["", "X-Request-ID", "traceparent", "CF-Ray", "x_y"])
def test_a_valid_message_id_header_is_accepted(name: str) -> None:
    table = {"server": {"message_id_header": name}}
    assert name == config_from_table(table).server.message_id_header


def names_in_table() -> list[str]:
    """Return the headers in the collectors' header table."""
    source = (Path(__file__).parents[2] / "pixelfast/collect/headers.pxd").read_text()
    return sorted(set(re.findall(r'strncasecmp\(name, b"([a-z-]+)"', source)))


@pytest.mark.parametrize(
    "name",
    ["X Request", "X-Id:", "", "é", "a\r\nb", "(a)", "Host", "X-Forwarded-For", *names_in_table()],
)
def test_an_invalid_message_id_header_is_rejected(name: str) -> None:
    (problem,) = problems_in({"server": {"message_id_header": name or " "}})
    assert problem.startswith("server.message_id_header = ")
    assert problem.endswith(
        "expected the name of a header that pixelfast does not use otherwise, such as"
        ' "X-Request-ID"; or ""'
    )


def test_unix_sockets_can_be_trusted() -> None:
    table = {"server": {"trusted_proxies": ["unix:", "192.0.2.1"]}}
    assert ("unix:", "192.0.2.1") == config_from_table(table).server.trusted_proxies
    (problem,) = problems_in({"server": {"trusted_proxies": ["unix:/run/x"]}})
    assert problem == (
        'server.trusted_proxies[0] = "unix:/run/x": expected a network such as "10.0.0.0/8" or '
        '"::1/128", an IP address, or "unix:"'
    )


def test_without_a_file_the_defaults_apply() -> None:
    assert read_config(None) == Config()


def test_overrides_replace_values_of_the_file() -> None:
    config = read_config(None, {"server.workers": 3, "data_dir": "/x"})
    assert (3, "/x") == (config.server.workers, config.data_dir)


def test_an_invalid_override_is_rejected() -> None:
    with pytest.raises(ConfigErrors, match=r"server\.listen\[0\] = \"nowhere\""):
        read_config(None, {"server.listen": ["nowhere"]})


INVALID = """
data_dri = "x"
[server]
listen = ["localhost", "127.0.0.1:8080"]
wokers = 3
workers = -1
trusted_proxies = ["10.0.0.0/33"]
[spool]
ack = "sync"
max_bytes = "20Gib"
[[sources]]
name = "web"
write_keys = [
    "wk_1",
    { key = "", expires = 2027-01-31T00:00:00Z },
    { key = "b", expires = 1979-05-27T07:32:00 },
]
destinations = ["archiv", "rudder"]
fill = ["ipp"]
[[sources]]
name = "web"
write_keys = []
[[destinations]]
name = "archive"
type = "fiel"
[[destinations]]
name = "rudder"
type = "rudderstack"
url = "data-plane.example.com"
write_key = "${NOT_SET_ANYWHERE}"
[[destinations]]
name = "hook"
type = "http"
url = "https://user:pw@example.com"
headers = { A = "b", B = 3 }
max_age_s = nan
max_events = true
"""
ERRORS = [
    "data_dri: unknown setting",
    'server.listen[0] = "localhost": expected "HOST:PORT"',
    "server.wokers: unknown setting",
    "server.workers = -1: expected an integer from 0 to 1024",
    'server.trusted_proxies[0] = "10.0.0.0/33": expected a network',
    'spool.ack = "sync": expected one of',
    'spool.max_bytes = "20Gib": expected a number of bytes',
    "sources[web].write_keys[1].key = (hidden): expected a non-empty string",
    'sources[web].write_keys[2].expires = "1979-05-27 07:32:00": expected a date-time',
    'sources[web].fill[0] = "ipp": expected one of',
    "sources[web].write_keys = []: expected an array with at least 1 item",
    'destinations[archive].type = "fiel": expected one of',
    'destinations[rudder].url = "data-plane.example.com": expected an http or https URL',
    "destinations[rudder].write_key = (hidden): the environment variable NOT_SET_ANYWHERE is not",
    'destinations[hook].url = "https://…@example.com": expected an http or https URL',
    "destinations[hook].headers.B = (hidden): expected a string without control characters",
    "destinations[hook].max_age_s = NaN: expected a number",
    "destinations[hook].max_events = true: expected an integer",
    "sources[web].name: is duplicated",
    'sources[web].destinations[0] = "archiv": unknown destination; expected one of "archive"',
]


def test_all_errors_are_reported_at_once(tmp_path: Path) -> None:
    problems = problems_of(INVALID, tmp_path)
    assert ERRORS == [p[: len(s)] for p, s in zip(problems, ERRORS, strict=True)]


@pytest.mark.parametrize(
    ("table", "nearest"),
    [
        ({"data_dri": "x"}, "data_dir"),
        ({"server": {"wokers": 1}}, "workers"),
        ({"spool": {"ack": "sync"}}, "synced"),
        ({"destinations": [{"name": "a", "type": "fiel"}]}, "file"),
        ({"destinations": [{"name": "a", "type": "rudder", "url": "x"}]}, "rudderstack"),
        ({"sources": [{"name": "a", "write_keys": ["k"], "destinations": ["arch"]}]}, "archive"),
        ({"sources": [{"name": "a", "write_keys": ["k"], "fill": ["ipp"]}]}, "ip"),
        ({"sources": [{"name": "a", "write_keys": ["k"], "fill": ["ip", "refrer"]}]}, "referer"),
    ],
)
def test_the_most_similar_name_is_suggested(table: dict[str, Any], nearest: str) -> None:
    (problem,) = problems_in(table)
    assert problem.endswith(f'; did you mean "{nearest}"?')


def source(name: str, **fields: Any) -> dict[str, Any]:
    return {"sources": [{"name": name, **fields}]}


def spool(**fields: Any) -> dict[str, Any]:
    return {"spool": fields}


@pytest.mark.parametrize(
    ("table", "start"),
    [
        ({"server": 3}, "server = 3: expected a table"),
        ({"sources": {"name": "a"}}, "sources = { … }: expected an array of tables: [[sources]]"),
        ({"sources": [3]}, "sources[0] = 3: expected a table"),
        (source("a"), "sources[a].write_keys: required setting is missing"),
        (source("a/b", write_keys=["k"]), 'sources[a/b].name = "a/b": expected 1 to 63'),
        (source("a\n", write_keys=["k"]), "sources[a\\x0a].name"),
        (source("", write_keys=["k"]), 'sources[0].name = "": expected 1 to 63'),
        ({"destinations": [{"name": "a"}]}, "destinations[a].type: required setting is missing"),
        ({"destinations": ["a"]}, 'destinations[0] = "a": expected a table'),
        (spool(max_bytes=5), "spool.max_bytes = 5: expected a number of bytes"),
        (spool(max_bytes="5TiBs"), 'spool.max_bytes = "5TiBs": expected a number of bytes'),
        ({"server": {"admin": "x"}}, 'server.admin = "x": expected "HOST:PORT"'),
        ({"server": {"listen": []}}, "server.listen = []: expected"),
        (
            {"server": {"idle_timeout_s": 0}},
            "server.idle_timeout_s = 0: expected a number greater than 0",
        ),
        ({"log": {"level": "loud"}}, 'log.level = "loud": expected one of'),
        ({"data_dir": 5}, "data_dir = 5: expected a non-empty string"),
        ({"destinations": [{"name": "d", "type": ["file"]}]}, 'destinations[d].type = ["file"]'),
        ({"destinations": [{"name": ["d"], "type": "file"}]}, 'destinations[0].name = ["d"]'),
    ],
)
def test_an_error_contains_key_value_and_allowed_values(table: dict[str, Any], start: str) -> None:
    assert [start] == [problem[: len(start)] for problem in problems_in(table)]


def test_a_secret_can_be_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t0ken\n")
    destination = {
        "name": "h",
        "type": "http",
        "url": "https://example.com/",
        "bearer_token": {"file": str(tmp_path / "token")},
    }
    config = config_from_table({"destinations": [destination]})
    assert config.destinations[0].bearer_token == "t0ken"  # type: ignore[union-attr]


@pytest.mark.parametrize("value", [{"file": "/nowhere/at/all"}, {"fil": "x"}, {"file": 3}])
def test_a_secret_from_a_file_that_does_not_exist_is_rejected(value: dict[str, Any]) -> None:
    hook = {"name": "h", "type": "http", "url": "https://example.com/", "bearer_token": value}
    (problem,) = problems_in({"destinations": [hook]})
    assert problem.startswith("destinations[h].bearer_token = ")


def test_a_doubled_dollar_is_a_literal_dollar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A", "x")
    config = config_from_table({"data_dir": "$${A}/${A}/$A"})
    assert config.data_dir == "${A}/x/$A"


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"a = ", "is not valid TOML"), (b"\xff", "is not valid TOML"), (None, "cannot be read")],
)
def test_a_file_that_cannot_be_read_or_parsed_is_an_error(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "x.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigErrors) as caught:
        read_config(path)
    assert str(caught.value).startswith(f"{path}: {message}: ")
    assert 1 == len(str(caught.value).splitlines())


def test_the_settings_survive_being_passed_to_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUDDER_WRITE_KEY", "secret")
    monkeypatch.setenv("TEAM", "blue")
    path = tmp_path / "pixelfast.toml"
    path.write_text(FULL)
    config = read_config(path)
    assert config == msgspec.json.decode(msgspec.json.encode(config), type=Config)


def test_the_effective_settings_are_toml_with_secrets_masked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUDDER_WRITE_KEY", "verysecretwritekey")
    monkeypatch.setenv("TEAM", "verysecretheader")
    path = tmp_path / "pixelfast.toml"
    path.write_text(FULL)
    report = describe(read_config(path))
    table = tomllib.loads(report)
    assert "verysecretwritekey" not in report
    assert "verysecretheader" not in report
    assert "wk_live_1" not in report
    assert table["spool"]["max_bytes"] == "20GiB"
    assert [each["type"] for each in table["destinations"]] == ["file", "rudderstack", "http"]
    assert table["sources"][0]["write_keys"][1]["expires"] == datetime(2027, 1, 31, tzinfo=UTC)


def test_the_effective_default_settings_are_a_valid_settings_file(tmp_path: Path) -> None:
    path = tmp_path / "default.toml"
    path.write_text(describe(Config()))
    assert Config() == read_config(path)
