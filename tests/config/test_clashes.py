"""Conflicts between settings, and values that would fail later or have no effect."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from pixelfast.config import Config, read_config
from pixelfast.config.reader import config_from_table
from pixelfast.errors import ConfigErrors

HOOK = {"name": "h", "type": "http", "url": "https://example.com/"}
RUDDER = {"name": "h", "type": "rudderstack", "url": "https://example.com", "write_key": "k"}


def problems_in(table: dict[str, Any]) -> list[str]:
    try:
        config_from_table(table)
    except ConfigErrors as errors:
        return [str(problem) for problem in errors.problems]
    return []


def hook(**fields: Any) -> dict[str, Any]:
    return {"destinations": [{**HOOK, **fields}]}


def files(*paths: str, **fields: Any) -> dict[str, Any]:
    named = zip("abc", paths, strict=False)
    return {
        "destinations": [{"name": n, "type": "file", "path": path} for n, path in named],
        **fields,
    }


def archive(**fields: Any) -> dict[str, Any]:
    return {"destinations": [{"name": "a", "type": "file", **fields}]}


def source(**fields: Any) -> dict[str, Any]:
    return {"sources": [{"name": "a", "write_keys": ["k"], **fields}]}


def test_a_write_key_of_two_sources_is_rejected_without_showing_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SHARED", "wk_shared_secret")
    keys = {"a": "wk_shared_secret", "b": "${SHARED}"}
    sources = [{"name": name, "write_keys": [key]} for name, key in keys.items()]
    problems = problems_in({"sources": sources})
    assert problems == ['sources[b].write_keys[0]: source "a" has the same key']


def test_a_write_key_that_a_source_has_twice_is_rejected() -> None:
    problems = problems_in(source(write_keys=["k", "other", "k"]))
    assert ["sources[a].write_keys[2]: is duplicated"] == problems


@pytest.mark.parametrize("key", ["wk ", " wk", "\u200bwk", "wk\u00ad"])
def test_a_write_key_with_white_space_at_an_end_is_rejected(key: str) -> None:
    (problem,) = problems_in(source(write_keys=[key]))
    assert problem.startswith("sources[a].write_keys[0]: begins or ends with white space")
    assert [] == problems_in(source(write_keys=[key.strip(" \n\u200b\u00ad") + " x"]))


@pytest.mark.parametrize(
    "table",
    [
        files("/data", "/data"),
        files("/x/o", "/x/o/"),
        files("/x/o", "/x/./y/../o"),
        files("/x/o", "//x/o"),
        files("", "/d/events/a", data_dir="/d"),
    ],
)
def test_two_file_destinations_with_the_same_directory_are_rejected(table: dict[str, Any]) -> None:
    assert problems_in(table) == ['destinations[b].path: destination "a" uses the same directory']


def test_file_destinations_with_different_directories_are_accepted() -> None:
    assert [] == problems_in(files("/x/o", "/x/o/p", ""))


def test_a_bearer_token_cannot_be_combined_with_a_username() -> None:
    problems = problems_in(hook(username="u", bearer_token="t"))
    assert problems == ["destinations[h].bearer_token: cannot be combined with username"]


@pytest.mark.parametrize(
    "name",
    "Host content-length Content-Encoding Transfer-Encoding CONNECTION Keep-Alive "
    "Proxy-Connection TE Trailer Upgrade Expect".split(),
)
def test_a_header_that_pixelfast_sets_itself_is_rejected(name: str) -> None:
    problems = problems_in(hook(headers={name: "5", "X-Mine": "1"}))
    assert problems == [
        f"destinations[h].headers.{name}: pixelfast sets this header itself; remove it"
    ]


def test_a_duplicate_header_is_rejected() -> None:
    assert ["destinations[h].headers.x-a: is duplicated"] == problems_in(
        hook(headers={"X-A": "1", "x-a": "2"})
    )
    (problem,) = problems_in(hook(headers={"authorization": "x"}, bearer_token="t"))
    assert problem.startswith("destinations[h].headers.authorization: cannot be combined with")


def test_every_invalid_header_is_reported() -> None:
    problems = problems_in(hook(headers={"A b": "x", "C": "y\n", "D": 3, "E": "secret"}))
    assert [problem.partition(":")[0] for problem in problems] == [
        'name in destinations[h].headers = "A b"',
        "destinations[h].headers.C = (hidden)",
        "destinations[h].headers.D = (hidden)",
    ]


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({"username": "u:x", "password": "p"}, "username"),
        ({"username": "u\r\nX: y", "password": "p"}, "username"),
        ({"username": "u", "password": "p\n"}, "password"),
        ({"bearer_token": "a\nX: y"}, "bearer_token"),
        ({"bearer_token": "a b"}, "bearer_token"),
        ({"bearer_token": "ä"}, "bearer_token"),
        ({"bearer_token": "a\x7f"}, "bearer_token"),
    ],
)
def test_credentials_that_no_header_can_contain_are_rejected(
    fields: dict[str, Any], key: str
) -> None:
    (problem,) = problems_in(hook(**fields))
    assert problem.startswith(f"destinations[h].{key} = ")


@pytest.mark.parametrize("key", ["a:b", "a\n", "\0"])
def test_a_write_key_that_no_header_can_contain_is_rejected(key: str) -> None:
    (problem,) = problems_in({"destinations": [{**RUDDER, "write_key": key}]})
    assert problem.startswith("destinations[h].write_key = (hidden): expected a string without")


def test_a_password_requires_a_username_but_a_username_requires_no_password() -> None:
    assert [] == problems_in(hook(username="an-api-key"))
    (problem,) = problems_in(hook(password="secret-of-nobody"))
    assert problem == "destinations[h].password: requires username"


@pytest.mark.parametrize("number", [10**23, 2**63, 2**62 + 1])
@pytest.mark.parametrize(
    ("section", "name"),
    [
        ("spool", "max_bytes"),
        ("spool", "max_waiting_bytes"),
        ("spool", "segment_bytes"),
        ("server", "max_connections"),
        ("server", "workers"),
        ("server", "idle_timeout_s"),
    ],
)
def test_a_number_that_is_too_large_is_rejected(section: str, name: str, number: int) -> None:
    (problem,) = problems_in({section: {name: number}})
    assert problem.startswith(f"{section}.{name} = {number}: expected ")
    assert " at most " in problem or re.search(r" from \d\S* to \d", problem)


@pytest.mark.parametrize("text", ["1" * 5000, "9" * 400 + ".5TiB", "99999999TiB"])
def test_a_size_that_is_too_large_is_rejected(text: str) -> None:
    (problem,) = problems_in({"spool": {"max_bytes": text}})
    assert problem.startswith('spool.max_bytes = "')


@pytest.mark.parametrize(
    ("listen", "place"),
    [
        (["127.0.0.1:80", "127.0.0.1:80"], 1),
        (["[::1]:80", "h:80", "[0:0::1]:80"], 2),
        (["unix:/run/x.sock", "unix:/run//x.sock"], 1),
    ],
)
def test_a_duplicate_address_is_rejected(listen: list[str], place: int) -> None:
    (problem,) = problems_in({"server": {"listen": listen, "admin": ""}})
    assert problem.startswith(f"server.listen[{place}] = ")


def test_addresses_with_port_0_are_not_duplicates() -> None:
    server = {"listen": ["127.0.0.1:0", "127.0.0.1:0"], "admin": "127.0.0.1:0"}
    assert [] == problems_in({"server": server})


@pytest.mark.parametrize(
    "server",
    [
        {"admin": "127.0.0.1:8080"},
        {"listen": ["127.0.0.1:8081"]},
        {"listen": ["unix:/x", "127.0.0.1:9"], "admin": "127.0.0.1:9"},
        {"listen": ["unix:/x"], "admin": "unix:/x"},
    ],
)
def test_an_admin_address_that_accepts_pixels_is_rejected(server: dict[str, Any]) -> None:
    (problem,) = problems_in({"server": server})
    assert problem.startswith("server.admin = ")


def tls(*listen: str, **more: Any) -> dict[str, Any]:
    return {"server": {"tls": {"listen": list(listen), "cert": "/c", "key": "/k"} | more}}


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (
            tls("127.0.0.1:8080"),
            'server.tls.listen[0] = "127.0.0.1:8080": duplicate address',
        ),
        (tls("h:1", "h:2", "h:1"), 'server.tls.listen[2] = "h:1": duplicate address'),
        (
            tls("127.0.0.1:8081"),
            'server.admin = "127.0.0.1:8081": address is also in server.tls.listen',
        ),
        (tls(), "server.tls.listen = []: expected an array with at least 1 item"),
        (tls("h:1", cert=""), 'server.tls.cert = "": expected a non-empty string'),
        ({"server": {"tls": {"listen": ["h:1"]}}}, "server.tls.cert: required setting is missing"),
        ({"server": {"tls": True}}, "server.tls = true: expected a table"),
    ],
)
def test_invalid_tls_settings_are_rejected(table: dict[str, Any], problem: str) -> None:
    assert [problem] == problems_in(table)


def test_tls_and_plain_addresses_can_be_combined() -> None:
    assert [] == problems_in(tls("127.0.0.1:8443", "[::1]:8443", "unix:/run/tls.sock"))


def test_without_a_file_the_default_admin_address_is_not_a_conflict() -> None:
    config = read_config(None, {"server.listen": ["127.0.0.1:8081"]})
    assert "127.0.0.1:8081" == config.server.admin
    with pytest.raises(ConfigErrors, match=r"server\.admin"):
        read_config(None, {"server.listen": ["127.0.0.1:9"], "server.admin": "127.0.0.1:9"})


@pytest.mark.parametrize(
    ("table", "start"),
    [
        ({"destinations": []}, "destinations = []: expected an array with at least 1 item"),
        (
            source(destinations=[]),
            "sources[a].destinations = []: expected an array with at least 1 item",
        ),
        (
            source(strings=["a.b", "c"], force_numbers=["d", "c"]),
            'sources[a].force_numbers[1] = "c": field is also in strings',
        ),
        (
            source(strings=["propertis.."]),
            'sources[a].strings[0] = "propertis..": expected non-empty names',
        ),
        (
            source(force_numbers=["a", ""]),
            'sources[a].force_numbers[1] = "": expected non-empty names',
        ),
        (hook(retry_first_s=9, retry_most_s=8), "destinations[h].retry_first_s = 9.0: expected at"),
        (hook(connect_timeout_s=9, timeout_s=8), "destinations[h].connect_timeout_s = 9.0: exp"),
        (
            {"spool": {"segment_bytes": "128MiB", "max_bytes": "100MiB"}},
            'spool.segment_bytes = "128MiB": expected segment_bytes (128MiB) to be at most',
        ),
        (
            archive(keep_bytes="1MiB"),
            'destinations[a].keep_bytes = "1MiB": expected rotate_bytes (64MiB) to be at most',
        ),
        ({"spool": {"max_bytes": "10MiB"}}, 'spool.max_bytes = "10MiB": expected segment_bytes (6'),
        (hook(url="https://exa mple.com/"), 'destinations[h].url = "https://exa mple.com/"'),
        (files("/a\0b"), 'destinations[a].path = "/a\\u0000b": expected a path without control'),
    ],
)
def test_a_value_that_has_no_effect_or_would_fail_later_is_rejected(
    table: dict[str, Any], start: str
) -> None:
    assert [start] == [problem[: len(start)] for problem in problems_in(table)]


def test_a_default_does_not_conflict_with_another_setting() -> None:
    assert [] == problems_in(hook(timeout_s=2, retry_most_s=0.1))


def test_every_item_of_an_array_is_checked() -> None:
    listen = ["127.0.0.1:1", "a:b", ":80", "h:99999", "unix:x", 3]
    places = [
        problem.partition(" = ")[0] for problem in problems_in({"server": {"listen": listen}})
    ]
    assert places == [f"server.listen[{place}]" for place in range(1, 6)]


@pytest.mark.parametrize("overrides", [{"server.listen": ["h:1"]}, {"server.workers": 1}])
def test_an_override_in_a_section_that_is_not_a_table_is_an_error(
    tmp_path: Path, overrides: dict[str, Any]
) -> None:
    path = tmp_path / "x.toml"
    path.write_text("server = 3\n")
    with pytest.raises(ConfigErrors, match="server = 3: expected a table"):
        read_config(path, overrides)


def test_a_value_that_is_not_utf_8_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BYTES", "\udcff")
    assert ["data_dir = (hidden): expected a string in valid UTF-8"] == problems_in(
        {"data_dir": "${BYTES}"}
    )
    with pytest.raises(ConfigErrors, match="a string in valid UTF-8"):
        read_config(None, {"data_dir": "/\udcff"})


def test_the_defaults_have_no_conflicts() -> None:
    assert Config() == config_from_table({})


@pytest.mark.parametrize("path", ["", "{data}/events/shared", "{data}", "{link}/events"])
def test_an_archive_in_the_data_directory_cannot_be_shared(tmp_path: Path, path: str) -> None:
    data, link = tmp_path / "data", tmp_path / "link"
    data.mkdir()
    link.symlink_to(data)
    archive = {"name": "a", "type": "file", "path": path.format(data=data, link=link)}
    table = {"data_dir": str(data), "destinations": [{**archive, "archive_mode": "0640"}]}
    with pytest.raises(ConfigErrors) as caught:
        config_from_table(table)
    what = "requires a path outside data_dir, because only the owner can enter data_dir"
    assert [f"destinations[a].archive_mode: {what}"] == [str(p) for p in caught.value.problems]
    table["destinations"] = [{**archive, "archive_mode": "0600"}]
    config_from_table(table)


def test_an_archive_outside_of_the_data_directory_can_be_shared(tmp_path: Path) -> None:
    archive = {"name": "a", "type": "file", "path": str(tmp_path / "a"), "archive_mode": "0640"}
    config_from_table({"data_dir": str(tmp_path / "data"), "destinations": [archive]})
