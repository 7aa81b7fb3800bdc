"""The command line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import click
import pytest
from click.testing import CliRunner, Result

from pixelfast.cli import cli
from tests.program import run_pixelfast


def run(*arguments: str, text: str | None = None) -> Result:
    return CliRunner().invoke(cli, list(arguments), input=text)


def commands() -> list[str]:
    found = []
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        found += [name, *(f"{name} {sub}" for sub in getattr(command, "commands", {}))]
    return found


@pytest.mark.parametrize("name", commands())
def test_the_help_of_each_command_shows_an_example(name: str) -> None:
    result = run(*name.split(), "--help")
    assert result.exit_code == 0
    assert f"  pixelfast {name}" in result.output.split("Example:")[1]


def test_the_list_of_commands_shows_the_summary_of_each_command() -> None:
    output = CliRunner().invoke(cli, ["--help"], terminal_width=200).output
    listed = output.split("Commands:\n")[1].splitlines()
    context = click.Context(cli)
    for name, line in zip(cli.list_commands(context), listed, strict=True):
        command = cli.get_command(context, name)
        assert command is not None
        assert [name, command.get_short_help_str(100)] == line.split(maxsplit=1)


def test_all_commands_exist() -> None:
    wanted = {"serve", "collect", "deliver", "check", "url", "decode", "key new", "version"}
    wanted |= {"spool ls", "spool check", "spool dump"}
    wanted |= {"status", "tail", "key fingerprint"}
    wanted |= {"dead ls", "dead show", "dead replay", "dead drop"}
    assert wanted <= set(commands())


# --- decode ----------------------------------------------------------------------------------


def test_decode_shows_the_event_of_a_published_vector(vector: dict[str, Any]) -> None:
    result = run("decode", vector["target"])
    shown = json.loads(result.output)
    assert vector["status"] == shown["status"]
    assert vector.get("event") == shown.get("event")
    assert vector.get("warnings", 0) == len(shown.get("warnings", []))


def test_decode_reads_one_target_per_line_from_stdin() -> None:
    targets = (
        "/pixel/v1/page?writeKey=k&userId=1\n/nowhere\n\n/pixel/v1/page?writeKey=k&userId=2\r\n"
    )
    result = run("decode", "-", text=targets)
    shown = [json.loads(line) for line in result.output.splitlines()]
    assert [each["status"] for each in shown] == [200, 404, 404, 200]
    assert shown[3]["event"]["userId"] == "2"


def test_decode_accepts_complete_urls() -> None:
    shown = json.loads(
        run("decode", "https://px.example.com/pixel/v1/page?writeKey=k&userId=1").output
    )
    assert shown["event"] == {"type": "page", "userId": "1"}


def test_decode_full_shows_the_fields_that_the_server_adds() -> None:
    target = "/pixel/v1/page?writeKey=k&userId=1&messageId=m"
    plain = json.loads(run("decode", target).output)["event"]
    full = json.loads(run("decode", "--full", target).output)["event"]
    assert "messageId" not in plain
    assert full["messageId"] == "m"
    assert {"receivedAt", "sentAt", "timestamp", "integrations", "channel"} <= set(full)


def test_decode_shows_which_parameters_were_left_out_and_why() -> None:
    shown = json.loads(run("decode", "/pixel/v1/page?writeKey=k&userId=1&a..b=1&type=x").output)
    assert shown["warnings"] == [
        {"parameter": "a..b", "reason": "empty-segment"},
        {"parameter": "type", "reason": "reserved-name"},
    ]


@pytest.mark.parametrize(
    ("query", "warnings"),
    [
        ("amp;a=1", {"amp;a": "html-escaped"}),
        ("anonymousId={{id}}", {"anonymousId": "placeholder"}),
        ("timestamp=yesterday", {"timestamp": "invalid-time"}),
        ("a[]=1&a[]=2", {"a[]": "repeated-array-name"}),
        ("a.0=1&a.b=2", {"a.b": "invalid-index"}),
        ("a=1&a.b=2", {"a": "value-conflict"}),
        ("properties=1", {"properties": "value-for-object"}),
        ("event.a=1", {"event.a": "not-an-object"}),
        ("каша=1&timestamp=1700000000000&userId=&context.app_version=1.10&%20b%20=1", {}),
    ],
)
def test_decode_shows_the_reason_of_each_warning(query: str, warnings: dict[str, str]) -> None:
    shown = json.loads(run("decode", f"//pixel/v1/page.gif?writeKey=k&userId=1&{query}").output)
    assert warnings == {each["parameter"]: each["reason"] for each in shown["warnings"]}


def test_decode_rejects_a_pixel_whose_only_identity_is_a_placeholder() -> None:
    shown = json.loads(run("decode", "/pixel/v1/page?writeKey=k&userId=undefined").output)
    assert (400, "placeholder-identity") == (shown["status"], shown["error"])


def test_decode_applies_the_placeholders_setting_of_a_source(tmp_path: Path) -> None:
    settings = tmp_path / "p.toml"
    for choice, status in (("keep", 200), ("drop", 400)):
        settings.write_text(
            f'[[sources]]\nname = "a"\nwrite_keys = ["k"]\nplaceholders = "{choice}"\n'
        )
        target = "/pixel/v1/page?writeKey=k&userId=undefined"
        assert status == json.loads(run("decode", "-c", str(settings), target).output)["status"]


def test_decode_applies_the_write_keys_and_rules_of_the_settings(tmp_path: Path) -> None:
    settings = tmp_path / "p.toml"
    settings.write_text("""
[[sources]]
name = "web"
write_keys = ["k", { key = "gone", expires = 2020-01-01T00:00:00Z }]
booleans = true
strings = ["properties.code"]
""")
    query = "userId=1&properties.flag=true&properties.code=7&properties.n=7"
    targets = [f"/pixel/v1/page?writeKey={key}&{query}" for key in ("k", "other", "gone")]
    result = run("decode", "-c", str(settings), *targets)
    known, unknown, expired = (json.loads(line) for line in result.output.splitlines())
    assert known["event"]["properties"] == {"flag": True, "code": "7", "n": 7}
    assert (401, "unknown-write-key") == (unknown["status"], unknown["error"])
    assert (401, "expired-write-key") == (expired["status"], expired["error"])


def test_decode_ignores_rate_limits(tmp_path: Path) -> None:
    settings = tmp_path / "p.toml"
    settings.write_text('[[sources]]\nname = "a"\nwrite_keys = ["k"]\nrate_limit = 1\n')
    targets = ["/pixel/v1/page?writeKey=k&userId=1"] * 5
    result = run("decode", "-c", str(settings), *targets)
    assert [200] * 5 == [json.loads(line)["status"] for line in result.output.splitlines()]


@pytest.mark.parametrize(
    ("target", "status", "error"),
    [
        ("/pixel/v1/page?writeKey=k&userId=1&a=" + "x" * 32_768, 414, "target-too-long"),
        ("/pixel/v1/page?writeKey=k&userId=1&a=\x7f", 400, "malformed-request"),
        ("/pixel/v1/page?writeKey=k&userId=1&a=b c", 400, "malformed-request"),
        ("/pixel/v1/page?writeKey=k&userId=1&a=" + "%01" * 10_000, 413, "event-too-large"),
        ("", 404, "not-found"),
    ],
)
def test_decode_rejects_the_pixels_that_the_server_rejects(
    target: str, status: int, error: str
) -> None:
    shown = json.loads(run("decode", target).output)
    assert (status, error) == (shown["status"], shown["error"])


# --- url -------------------------------------------------------------------------------------


class Img(HTMLParser):
    attributes: dict[str, str | None]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag == "img"
        self.attributes = dict(attrs)


def test_decode_accepts_the_url_that_url_builds() -> None:
    result = run(
        *("url", "track", "--event", "Email & Opened", "--user-id", "42", "--write-key", "k"),
        *("-p", "campaign=may=1", "-p", "items.0.price=9.5", "--set", "context.locale=de"),
    )
    event = json.loads(run("decode", result.stdout.strip()).output)["event"]
    assert event == {
        "type": "track",
        "userId": "42",
        "event": "Email & Opened",
        "properties": {"campaign": "may=1", "items": [{"price": 9.5}]},
        "context": {"locale": "de"},
    }


def test_url_img_prints_a_valid_html_tag() -> None:
    result = run("url", "page", "--user-id", '"<&>', "--write-key", "k", "--img")
    parser = Img()
    parser.feed(result.stdout)
    query = dict(parse_qsl(urlsplit(parser.attributes["src"] or "").query))
    assert query == {"writeKey": "k", "userId": '"<&>'}
    assert ("1", "1", "") == tuple(parser.attributes[n] for n in ("width", "height", "alt"))


MERGE_TAGS = [
    "{{user.id}}",
    '{{ user.id | default: "none" }}',
    "{{{user_id}}}",
    "{{пользователь}}",
    "{% if a & b %}",
    "<%= user.id %>",
    "${user.id}",
    "${clientId(pixel)}",
    "*|UNIQID|*",
    "[[email]]",
    "%%EMAIL%%",
    "%%DEVICE_ID%%",
    "%%First Name%%",
    "%%=v(@id)=%%",
    "CLIENT_ID(pixel)",
    "QUERY_PARAM(utm_source,none)",
    "PAGE_VIEW_ID_64",
]


@pytest.mark.parametrize("tag", MERGE_TAGS)
@pytest.mark.parametrize("option", ["--user-id", "--anonymous-id", "--event", "--name"])
def test_url_does_not_encode_merge_tags(tag: str, option: str) -> None:
    base = ["url", "track", "--write-key", "k", "--event", "E", "--user-id", "1", "--base"]
    result = run(*base, "https://p.example", option, f"é&{tag} <{tag}%%")
    assert (0, "") == (result.exit_code, result.stderr)
    assert f"=%C3%A9%26{tag}%20%3C{tag}%25%25" in result.stdout


@pytest.mark.parametrize("tag", MERGE_TAGS)
def test_url_img_escapes_the_text_around_merge_tags_once(tag: str) -> None:
    """A mailer finds them in the HTML source."""
    base = ["url", "page", "--write-key", "k", "--base", "https://p.example", "--img"]
    built = run(*base, "--user-id", tag, "-p", f"a='{tag}'").stdout
    query = f"writeKey=k&amp;userId={tag}&amp;properties.a=%27{tag}%27"
    src = f"https://p.example/pixel/v1/page?{query}"
    assert f'<img src="{src}" width="1" height="1" alt="">\n' == built


@pytest.mark.parametrize(
    "text",
    ["{{}}", "{x}", "[x]", "{{x}", "%%", "100%% of 50%%", "%%%%", "**", "*||*", "a(b)", "$x"],
)
def test_url_encodes_a_value_that_only_resembles_a_merge_tag(text: str) -> None:
    base = ["url", "page", "--write-key", "k", "--base", "https://p.example"]
    built = run(*base, "--user-id", "1", "-p", f"a={text}").stdout
    assert built.endswith(f"&properties.a={quote(text, safe='')}\n")


def test_url_accepts_merge_tags_in_every_field() -> None:
    fields = ["context.ip={{ip}}", "originalTimestamp={{date}}T{{time}}", "channel=*|CHANNEL|*"]
    base = ["url", "page", "--write-key", "{{key}}", "--base", "https://p.example"]
    result = run(*base, "--user-id", "1", *(x for field in fields for x in ("--set", field)))
    assert (0, "") == (result.exit_code, result.stderr)
    assert result.stdout.endswith(
        "?writeKey={{key}}&userId=1&context.ip={{ip}}&originalTimestamp={{date}}T{{time}}"
        "&channel=*|CHANNEL|*\n"
    )


def test_url_checks_the_text_around_merge_tags() -> None:
    base = ["url", "page", "--write-key", "k", "--user-id", "1"]
    assert "rejected with 414" in run(*base, "-p", "a={{a}}" + "x" * 40_000).stderr
    assert (
        "properties.a..b: the parameter would be omitted" in run(*base, "-p", "a..b={{a}}").stderr
    )


def test_url_reports_that_it_uses_a_random_anonymous_id() -> None:
    result = run("url", "page", "--write-key", "k")
    assert re.search(r"anonymousId=anon-[0-9a-f]{16}$", result.stdout.strip())
    assert "using a random anonymousId" in result.stderr


def test_url_uses_the_first_key_and_address_of_the_settings(tmp_path: Path) -> None:
    settings = tmp_path / "p.toml"
    settings.write_text("""
[server]
listen = ["unix:/run/x.sock", "127.0.0.1:9999"]
[[sources]]
name = "web"
write_keys = ["wk_first", "wk_second"]
""")
    result = run("url", "page", "-c", str(settings), "--user-id", "1")
    expected = "http://127.0.0.1:9999/pixel/v1/page?writeKey=wk_first&userId=1\n"
    assert expected == result.stdout


WITH_INACTIVE_KEYS = """
[[sources]]
name = "off"
write_keys = ["wk_off"]
enabled = false
[[sources]]
name = "web"
write_keys = [{ key = "wk_old", expires = 2020-01-01T00:00:00Z }, "wk_new"]
"""


def test_url_does_not_use_an_inactive_key(tmp_path: Path) -> None:
    settings = tmp_path / "p.toml"
    settings.write_text(WITH_INACTIVE_KEYS)
    assert "writeKey=wk_new&" in run("url", "page", "-c", str(settings), "--user-id", "1").stdout
    settings.write_text(settings.read_text().replace(', "wk_new"', ""))
    result = run("url", "page", "-c", str(settings), "--user-id", "1")
    assert (2, True) == (result.exit_code, "the settings have no active write key" in result.stderr)


@pytest.mark.parametrize(
    ("key", "is_active"), [("wk_new", True), ("wk_off", False), ("wk_old", False), ("x", False)]
)
def test_url_warns_about_a_write_key_that_a_collector_would_reject(
    tmp_path: Path, key: str, is_active: bool
) -> None:
    settings = tmp_path / "p.toml"
    settings.write_text(WITH_INACTIVE_KEYS)
    result = run("url", "page", "-c", str(settings), "--user-id", "1", "--write-key", key)
    assert (0, True) == (result.exit_code, f"writeKey={key}&userId=1" in result.stdout)
    warning = "--write-key: not an active key of the settings; the pixel would be rejected\n"
    assert ("" if is_active else warning) == result.stderr


def test_url_appends_several_values_to_an_array() -> None:
    base = ["url", "page", "--write-key", "k", "--user-id", "1"]
    built = run(*base, "-p", "t.-1=x", "-p", "t.-1=y").stdout.strip()
    assert ["x", "y"] == json.loads(run("decode", built).output)["event"]["properties"]["t"]


def test_arguments_that_are_not_utf_8_are_accepted_unchanged() -> None:
    """Python represents them as lone surrogates."""
    built = run("url", "page", "--write-key", "k", "--user-id", "a\udcff", "-p", "b=\udcfe").stdout
    assert "userId=a%FF&properties.b=%FE" in built
    shown = json.loads(run("decode", "/pixel/v1/page?writeKey=k&userId=\udcff").output)
    assert (200, "\ufffd") == (shown["status"], shown["event"]["userId"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["url", "track", "--write-key", "k"], "--event: required"),
        (
            ["url", "page", "--write-key", "k", "-p", "novalue"],
            '-p = "novalue": expected NAME=VALUE',
        ),
        (["url", "page", "--data-dir", "/nowhere"], "--write-key: required"),
        (["url", "page", "--write-key", "k", "--user-id", " "], "rejected with 400 no-identity"),
        (
            ["url", "page", "--write-key", "k", "--user-id", "1", "--set", "userId=2"],
            "userId: is duplicated; the second value would be lost",
        ),
        (
            ["url", "page", "--write-key", "k", "-p", "a=1", "--set", "properties.a=2"],
            "properties.a: is duplicated",
        ),
        (["url", "page", "--write-key", "k", "--set", "writeKey=x"], "writeKey: is duplicated"),
        (
            ["url", "page", "--write-key", "k", "--set", "type=x"],
            "type: the parameter would be omitted",
        ),
        (
            ["url", "page", "--write-key", "k", "-p", "a..b=x"],
            "properties.a..b: the parameter would be omitted",
        ),
        (["url", "page", "--write-key", "k", "-p", "a=" + "x" * 40_000], "rejected with 414"),
        (["url", "page", "--write-key", "k", "-p", "a=" + "é" * 6_000], "rejected with 414"),
        (["url", "page", "--write-key", "k", "--base", "foo bar"], '--base = "foo bar": expected'),
        (["url", "page", "--write-key", "k", "--base", "http://a b"], "--base = "),
        (["url", "page", "--write-key", "k", "--base", "px.example"], "--base = "),
        (["url", "page", "--write-key", "k", "--base", "https://x\udcff"], "--base = "),
        (["url", "page", "--write-key", "k", "-p", "\udcff"], "-p = "),
    ],
)
def test_url_reports_missing_and_lost_parameters(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr


# --- the others ------------------------------------------------------------------------------


def test_check_prints_the_effective_settings(tmp_path: Path) -> None:
    settings = tmp_path / "p.toml"
    settings.write_text('[spool]\nack = "written"\n')
    result = run("check", str(settings))
    assert result.exit_code == 0
    assert 'ack = "written"' in result.output
    assert 'max_bytes = "20GiB"' in result.output


def test_check_prints_warnings_to_standard_error_and_exits_with_0(tmp_path: Path) -> None:
    settings = tmp_path / "p.toml"
    settings.write_text('[[destinations]]\nname = "hook"\ntype = "http"\nurl = "http://h/"\n')
    result = run("check", str(settings), "--rate", "1000", "--event-bytes", "700")
    assert 0 == result.exit_code
    assert 'warning: required destinations without max_lag_bytes: "hook". ' in result.stderr
    assert "(20GiB) within 9 hours at 1,000 pixels/s and 700 bytes per event" in result.stderr
    assert "hook" == tomllib.loads(result.stdout)["destinations"][0]["name"]
    assert 2 == run("check", str(settings), "--rate", "0").exit_code


def test_check_prints_all_errors_and_exits_with_2(tmp_path: Path) -> None:
    settings = tmp_path / "p.toml"
    settings.write_text("[server]\nwokers = 1\nadmin = 3\n")
    result = run("check", str(settings))
    assert result.exit_code == 2
    assert "2 errors" in result.stderr
    assert result.stdout == ""


def test_new_keys_differ_and_need_no_encoding_in_urls() -> None:
    keys = {run("key", "new").output.strip() for _ in range(20)}
    assert len(keys) == 20
    assert all(re.fullmatch(r"wk_live_[A-Za-z0-9_-]{32}", key) for key in keys)


def test_version_prints_the_versions_of_dependencies() -> None:
    output = run("version").output
    for name in ("pixelfast", "Python", "uvloop", "httptools", "orjson", "SQLite"):
        assert re.search(rf"{name} \d", output)


def test_version_is_also_an_option() -> None:
    assert run("version").output.splitlines()[0] == run("--version").output.strip()


def test_an_unknown_command_exits_with_2() -> None:
    result = run_pixelfast("sevre")
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "arguments", ["--help", "key new", "version", "check --help", "url --help"]
)
def test_commands_do_not_import_unneeded_modules(arguments: str) -> None:
    code = (
        "import sys\n"
        "from pixelfast.cli import cli\n"
        "try:\n    cli(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "heavy = {'aiohttp', 'uvloop', 'prometheus_client'} & set(sys.modules)\n"
        "sys.exit(','.join(heavy) or 0)"
    )
    subprocess.run([sys.executable, "-c", code, *arguments.split()], check=True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("\x1b]0;x\x07\u202e",),
        ("dead", "\x9b2J"),
        ("check", "a", "\u202eb"),
        ("serve", "--workers", "\x1b[31m"),
        ("serve", "--\x9b"),
        ("spool", "dump", "--since", "\u202e"),
        ("check", "/no/\x1b[31m"),
    ],
)
def test_control_characters_of_the_command_line_are_escaped_in_errors(
    arguments: tuple[str, ...],
) -> None:
    result = run(*arguments)
    assert 2 == result.exit_code
    assert [] == [char for char in result.output if char != "\n" and not char.isprintable()]


def test_help_and_version_exit_with_0() -> None:
    for arguments in (("--help",), ("--version",), ("spool", "--help"), ("version",)):
        assert 0 == run(*arguments).exit_code


@pytest.mark.parametrize("slot", ["-1", "65536"])
def test_collect_rejects_a_slot_that_the_spool_cannot_have(tmp_path: Path, slot: str) -> None:
    result = run_pixelfast("collect", "--slot", slot, "--data-dir", f"{tmp_path}/data")
    assert 2 == result.returncode
    assert f"Invalid value for '--slot': {slot} is not in the range 0<=x<=65535." in result.stderr
    assert not (tmp_path / "data").exists()
