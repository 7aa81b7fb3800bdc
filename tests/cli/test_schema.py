"""`pixelfast schema`: the statements that create a destination's table."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pixelfast.cli import cli

SETTINGS = """
[[destinations]]
name = "warehouse"
type = "postgres"
host = "db.example.com"
database = "analytics"
table = "pixels.Events"
username = 'a"b'
password = { file = "/no/such/file" }

[[destinations]]
name = "columns"
type = "clickhouse"
url = "https://clickhouse.example.com:8443"
database = "pixels"
table = "events"

[[destinations]]
name = "archive"
type = "file"
"""
SECOND = SETTINGS.replace("warehouse", "second").replace("columns", "other").split("[[")[1:3]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["schema", *arguments])


@pytest.fixture
def settings(tmp_path: Path) -> str:
    path = tmp_path / "pixelfast.toml"
    path.write_text(SETTINGS)
    return str(path)


@pytest.fixture
def several(tmp_path: Path) -> str:
    path = tmp_path / "several.toml"
    path.write_text(SETTINGS + "".join(f"[[{each}" for each in SECOND))
    return str(path)


def test_the_statements_have_the_names_of_the_destination(settings: str) -> None:
    result = run("postgres", "-c", settings)
    assert 0 == result.exit_code
    assert 'CREATE TABLE "pixels"."Events" (' in result.output
    assert 'GRANT USAGE ON SCHEMA "pixels" TO "a""b";' in result.output
    assert 'GRANT TEMPORARY ON DATABASE "analytics" TO "a""b";' in result.output
    result = run("clickhouse", "-c", settings, "--destination", "columns")
    assert 0 == result.exit_code
    assert "CREATE TABLE `pixels`.`events` (" in result.output
    assert "\nSETTINGS non_replicated_deduplication_window = 1000\n" in result.output


def test_without_settings_the_table_has_a_default_name_and_no_permissions() -> None:
    printed = run("postgres").output
    assert 'CREATE TABLE "events" (' in printed
    assert "GRANT" not in printed
    assert "CREATE TABLE `default`.`events` (" in run("clickhouse").output


@pytest.mark.parametrize("kind", ["postgres", "clickhouse"])
def test_one_of_several_destinations_must_be_selected(kind: str, several: str) -> None:
    result = run(kind, "-c", several)
    assert 2 == result.exit_code
    assert f"has several destinations of type {kind}; select one with --destination: " in (
        result.output
    )
    name = {"postgres": "second", "clickhouse": "other"}[kind]
    assert 0 == run(kind, "-c", several, "--destination", name).exit_code


@pytest.mark.parametrize("name", ["archive", "columns", "nonsense"])
def test_a_destination_of_another_type_is_rejected(name: str, settings: str) -> None:
    result = run("postgres", "-c", settings, "--destination", name)
    assert 2 == result.exit_code
    assert f'--destination "{name}"' in result.output
    assert 'expected "warehouse"' in result.output


def test_settings_without_such_a_destination_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "pixelfast.toml"
    path.write_text("")
    result = run("clickhouse", "-c", str(path))
    assert 2 == result.exit_code
    assert f"{path} has no destination of type clickhouse" in result.output
    result = run("clickhouse", "--destination", "warehouse")
    assert 2 == result.exit_code
    assert "--destination requires a settings file: --config FILE" in result.output
