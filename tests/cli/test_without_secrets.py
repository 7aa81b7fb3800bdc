"""Commands that only read do not require the secrets of destinations."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pixelfast.cli import cli
from pixelfast.config import fingerprint, read_config
from pixelfast.errors import ConfigErrors
from pixelfast.spool import DataDir

SETTINGS = """
data_dir = "{folder}/data"
[[sources]]
name = "web"
write_keys = ["wk_web_0123456789"{more_keys}]
[[destinations]]
name = "hook"
type = "http"
url = "https://${{PIXELFAST_TEST_HOST}}/in"
username = "${{PIXELFAST_TEST_USER}}"
password = {{ file = "{folder}/none" }}
headers = {{ X-Token = "${{PIXELFAST_TEST_TOKEN}}", X-Plain = "1" }}
signing_secrets = ["${{PIXELFAST_TEST_SECRET}}"]
[[destinations]]
name = "rudder"
type = "rudderstack"
url = "https://rudder.example.com"
write_key = "${{PIXELFAST_TEST_KEY}}"
tls_cert = "${{PIXELFAST_TEST_CERT}}"
tls_key = "/key.pem"
"""


CLUSTER = """
[cluster]
brokers = ["${{PIXELFAST_TEST_BROKER}}:9092"]
security = "sasl_ssl"
username = "pixelfast"
password = {{ file = "{folder}/none" }}
[[destinations]]
name = "warehouse"
type = "clickhouse"
url = "https://clickhouse.example.com"
table = "pixels"
"""


@pytest.fixture
def settings(tmp_path: Path) -> str:
    path = tmp_path / "pixelfast.toml"
    path.write_text(SETTINGS.format(folder=tmp_path, more_keys=""))
    DataDir.open(tmp_path / "data")
    return str(path)


@pytest.fixture
def clustered(tmp_path: Path, settings: str) -> str:
    """The same settings with `[cluster]`, whose password cannot be read."""
    with Path(settings).open("a") as file:
        file.write(CLUSTER.format(folder=tmp_path))
    return settings


def run(*arguments: str, text: str = "") -> Result:
    return CliRunner().invoke(cli, arguments, input=text)


@pytest.mark.parametrize(
    "command",
    [
        "spool ls",
        "spool check",
        "spool dump",
        "dead ls",
        "key fingerprint",
        "url page --user-id 1",
        "decode /pixel/v1/page?writeKey=wk_web_0123456789&userId=1",
    ],
)
def test_a_command_that_only_reads_runs_without_secrets(settings: str, command: str) -> None:
    result = run(*command.split(), "-c", settings)
    assert 0 == result.exit_code, result.output


@pytest.mark.parametrize(
    "command",
    [
        "spool ls",
        "status",
        "schema clickhouse",
        "key fingerprint",
        "url page --user-id 1",
        "decode /pixel/v1/page?writeKey=wk_web_0123456789&userId=1",
    ],
)
def test_a_command_that_does_not_connect_to_brokers_runs_without_their_secrets(
    clustered: str, command: str
) -> None:
    result = run(*command.split(), "-c", clustered)
    assert "cluster." not in result.stderr
    is_running = command != "status"  # which requires a running server
    assert (0 if is_running else 1) == result.exit_code, result.output


@pytest.mark.parametrize("command", ["dead ls", "drain"])
def test_a_command_that_connects_to_brokers_reports_their_missing_secrets(
    clustered: str, command: str
) -> None:
    result = run(*command.split(), "-c", clustered)
    assert 2 == result.exit_code
    assert "cluster.password" in result.stderr


@pytest.mark.parametrize("command", ["serve", "collect", "deliver"])
def test_a_command_that_uses_secrets_reports_all_missing_ones(settings: str, command: str) -> None:
    result = run(command, "-c", settings)
    assert 2 == result.exit_code
    assert "7 errors" in result.stderr


def test_check_requires_secrets_by_default(settings: str) -> None:
    result = run("check", settings)
    assert (2, True) == (result.exit_code, "7 errors" in result.stderr)
    result = run("check", settings, "--without-secrets")
    assert (0, True) == (result.exit_code, 'name = "hook"' in result.stdout)


def test_other_errors_are_reported_without_secrets(settings: str) -> None:
    path = Path(settings)
    path.write_text(path.read_text() + 'gzipp = true\nurl2 = "${PIXELFAST_TEST_HOST}"\n')
    result = run("spool", "ls", "-c", settings)
    assert (2, True) == (result.exit_code, "2 errors" in result.stderr)


def test_write_keys_are_required_by_commands_that_use_them(tmp_path: Path, settings: str) -> None:
    text = SETTINGS.format(folder=tmp_path, more_keys=', "${PIXELFAST_TEST_WEB}"')
    Path(settings).write_text(text)
    for command in ("spool ls", "dead ls"):
        assert 0 == run(*command.split(), "-c", settings).exit_code
    for command in ("url page --user-id 1", "decode /pixel/v1/page"):
        result = run(*command.split(), "-c", settings)
        assert (2, True) == (result.exit_code, "PIXELFAST_TEST_WEB" in result.stderr)


def test_a_missing_secret_is_empty_or_the_default(settings: str) -> None:
    with pytest.raises(ConfigErrors):
        read_config(settings)
    hook, rudder = read_config(settings, may_lack=("destinations",)).destinations
    assert ("", None, {"X-Plain": "1"}, ()) == (
        hook.username,  # type: ignore[union-attr]
        hook.password,  # type: ignore[union-attr]
        hook.headers,  # type: ignore[union-attr]
        hook.signing_secrets,  # type: ignore[union-attr]
    )
    assert ("", "/key.pem") == (rudder.write_key, rudder.tls_key)  # type: ignore[union-attr]


# --- fingerprints ---------------------------------------------------------------------------------


def test_a_fingerprint_is_the_start_of_the_sha256_of_the_key() -> None:
    expected = hashlib.sha256(b"wk_web_0123456789").hexdigest()[:12]
    assert expected == fingerprint("wk_web_0123456789")
    assert f"{expected}\n" == run("key", "fingerprint", "wk_web_0123456789").stdout
    assert f"{expected}\n" == run("key", "fingerprint", "-", text="wk_web_0123456789\n\n").stdout


def test_the_fingerprints_of_all_keys_of_the_settings_are_listed(settings: str) -> None:
    lines = run("key", "fingerprint", "-c", settings).stdout.splitlines()
    assert ["fingerprint", "source", "key", "expires"] == lines[0].split()
    assert [fingerprint("wk_web_0123456789"), "web", "wk_web_0…", "-"] == lines[1].split()


def test_a_fingerprint_requires_a_key_or_a_settings_file() -> None:
    assert 2 == run("key", "fingerprint").exit_code


# --- the exit code of decode ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("targets", "code"), [(["good"], 0), (["bad"], 1), (["bad", "good"], 1), (["-"], 1)]
)
def test_decode_exits_with_1_if_a_pixel_is_rejected(targets: list[str], code: int) -> None:
    known = {"good": "/pixel/v1/page?writeKey=k&userId=1", "bad": "/pixel/v1/page?userId=1"}
    lines = "\n".join(known.values()) + "\n"
    result = run("decode", *(known.get(each, each) for each in targets), text=lines)
    assert code == result.exit_code
    assert (2 if len(targets) == 2 or targets == ["-"] else 1) == len(result.stdout.splitlines())
    assert all(json.loads(line)["status"] in (200, 400) for line in result.stdout.splitlines())


def test_the_help_of_decode_describes_its_exit_status() -> None:
    assert "The exit status is 1 if a pixel would be rejected." in " ".join(
        run("decode", "--help").output.split()
    )
