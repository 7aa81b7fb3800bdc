"""`pixelfast dead` lists, shows, replays and drops dead letters."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pixelfast.cli import cli
from pixelfast.deliver.bundles import Bundle
from pixelfast.deliver.dead import DeadLetters
from pixelfast.spool import DataDir
from tests.bundles import bundle
from tests.program import on_terminal


def letter(number: int, event: bytes) -> Bundle:
    return bundle(number, event, reason="status 400", response=b'{"error":"no"}', attempts=3)


@pytest.fixture
def data(tmp_path: Path) -> DataDir:
    data = DataDir.open(tmp_path / "data")
    dead = DeadLetters(data.dead_dir("hook") / "dead.db")
    dead.add(letter(n, b'{"type":"track","event":"E%d"}' % n) for n in range(3))
    dead.add([letter(0, b'{"type":"track","event":"E0"}')])  # again, after a crash: once
    dead.close()
    return data


def run(data: DataDir, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["dead", *arguments, "--data-dir", str(data.path)])


def replays(data: DataDir) -> list[int]:
    dead = DeadLetters(data.dead_dir("hook") / "dead.db")
    try:
        return [each.replay for each in dead.read()]
    finally:
        dead.close()


def test_ls_lists_dead_letters_with_their_reasons(data: DataDir) -> None:
    result = run(data, "ls")
    lines = [re.split("  +", line) for line in result.output.splitlines()]
    assert [
        "destination",
        "id",
        "died",
        "source",
        "status",
        "attempts",
        "event",
        "reason",
    ] == lines[0]
    assert [("hook", str(n + 1), f"E{n}") for n in range(3)] == [
        (line[0], line[1], line[6]) for line in lines[1:]
    ]
    assert all(line[3:6] == ["web", "400", "3"] and line[7] == "status 400" for line in lines[1:])


def test_ls_lists_a_limited_number_and_prints_the_total(data: DataDir) -> None:
    result = run(data, "ls", "--limit", "2")
    assert 3 == len(result.stdout.splitlines())
    assert "hook: listed 2 of 3; use --limit 0 to list all\n" == result.stderr
    assert (4, "") == (
        len((full := run(data, "ls", "--limit", "0")).stdout.splitlines()),
        full.stderr,
    )


def test_ls_summary_counts_dead_letters_by_source_and_reason(data: DataDir) -> None:
    dead = DeadLetters(data.dead_dir("hook") / "dead.db")
    dead.add([bundle(batch="other", status=0, reason="no response within 5 s", source="mail")])
    dead.close()
    lines = [re.split("  +", line) for line in run(data, "ls", "--summary").output.splitlines()]
    assert [
        "destination",
        "dead letters",
        "oldest",
        "newest",
        "source",
        "status",
        "reason",
    ] == lines[0]
    assert [
        ("hook", "3", "web", "400", "status 400"),
        ("hook", "1", "mail", "-", "no response within 5 s"),
    ] == [(line[0], line[1], *line[4:]) for line in lines[1:]]


def test_show_prints_json_with_the_event_and_the_response(data: DataDir) -> None:
    found = [json.loads(line) for line in run(data, "show", "hook", "2", "3").output.splitlines()]
    assert [2, 3] == [each["id"] for each in found]
    assert {"type": "track", "event": "E1"} == found[0]["event"]
    assert ('{"error":"no"}', "batch", 1) == (
        found[0]["response"],
        found[0]["batch"],
        found[0]["number"],
    )


def test_replay_marks_the_selected_dead_letters_or_all(data: DataDir) -> None:
    assert "1 dead letter will be replayed\n" == run(data, "replay", "hook", "2").output
    assert [0, 1, 0] == replays(data)
    assert "2 dead letters will be replayed\n" == run(data, "replay", "hook", "--all").output
    assert [1, 1, 1] == replays(data)
    assert "will be replayed" in run(data, "ls", "hook").output


def test_drop_deletes_dead_letters_that_are_not_being_sent(data: DataDir) -> None:
    run(data, "replay", "hook", "2")
    assert "0 dead letters deleted\n" == run(data, "drop", "hook", "2").output
    assert "2 dead letters deleted\n" == run(data, "drop", "hook", "--all").output
    assert [1] == replays(data)


@pytest.mark.parametrize("command", ["replay", "drop"])
@pytest.mark.parametrize("arguments", [(), ("1", "--all")])
def test_either_ids_or_all_must_be_specified(
    data: DataDir, command: str, arguments: tuple[str, ...]
) -> None:
    result = run(data, command, "hook", *arguments)
    assert 2 == result.exit_code
    assert "specify either IDS or --all" in result.output
    assert [0, 0, 0] == replays(data)


def test_show_reports_ids_that_do_not_exist(data: DataDir) -> None:
    result = run(data, "show", "hook", "1", "9")
    assert (1, True) == (
        result.exit_code,
        'destination "hook" has no dead letter 9' in result.output,
    )


@pytest.mark.parametrize(
    ("command", "done"),
    [("replay", "1 dead letter will be replayed"), ("drop", "1 dead letter deleted")],
)
def test_replay_and_drop_report_ids_that_do_not_exist(
    data: DataDir, command: str, done: str
) -> None:
    result = run(data, command, "hook", "8", "9")
    error = 'pixelfast: destination "hook" has no dead letter 8, 9\n'
    assert (1, "", error) == (result.exit_code, result.stdout, result.stderr)
    assert [0, 0, 0] == replays(data)
    result = run(data, command, "hook", "2", "9")
    error = 'pixelfast: destination "hook" has no dead letter 9\n'
    assert (1, f"{done}\n", error) == (result.exit_code, result.stdout, result.stderr)
    assert {"replay": [0, 1, 0], "drop": [0, 0]}[command] == replays(data)


@pytest.mark.parametrize("arguments", [("ls",), ("show", "1"), ("replay", "1"), ("drop", "--all")])
def test_an_unknown_destination_is_an_error_that_lists_those_with_dead_letters(
    data: DataDir, arguments: tuple[str, ...]
) -> None:
    DeadLetters(data.dead_dir("empty") / "dead.db").close()
    data.dead_dir("removed").mkdir(parents=True)
    for name in ("hok", "removed"):
        result = run(data, arguments[0], name, *arguments[1:])
        error = f'pixelfast: destination "{name}" has no dead letters;'
        error += " destinations with dead letters: hook\n"
        assert (1, "", error) == (result.exit_code, result.stdout, result.stderr)


def test_replay_and_drop_of_all_succeed_without_dead_letters(data: DataDir) -> None:
    DeadLetters(data.dead_dir("empty") / "dead.db").close()
    for command, done in (("replay", "will be replayed"), ("drop", "deleted")):
        result = run(data, command, "empty", "--all")
        assert (0, f"0 dead letters {done}\n") == (result.exit_code, result.output)


def test_ls_reports_that_there_are_no_dead_letters(tmp_path: Path) -> None:
    data = DataDir.open(tmp_path)
    result = run(data, "ls")
    assert (0, "no dead letters\n") == (result.exit_code, result.output)


@pytest.mark.parametrize(
    "arguments",
    [
        ("ls",),
        ("ls", "hook"),
        ("show", "hook", "1"),
        ("replay", "hook", "1"),
        ("drop", "hook", "1"),
    ],
)
def test_a_data_directory_that_does_not_exist_is_reported_and_not_created(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    missing = DataDir(tmp_path / "nowhere", bytes(16))
    result = run(missing, *arguments)
    assert 1 == result.exit_code
    assert "" == result.stdout
    expected = (
        f"pixelfast: data directory {missing.path}: does not exist; start the server first, or"
    )
    expected += " specify another one with --data-dir or --config\n"
    assert expected == result.stderr
    assert not missing.path.exists()


def test_ls_truncates_nothing_on_a_terminal_with_80_columns(data: DataDir) -> None:
    dead = DeadLetters(data.dead_dir("rudderstack-production") / "dead.db")
    reason = (
        "status 400: the property plan of type string is not in the tracking plan of this source"
    )
    dead.add([bundle(0, b'{"event":"Email Opened"}', reason=reason, source="newsletter")])
    dead.close()
    output = on_terminal("dead", "ls", "--data-dir", str(data.path), columns=80)
    lines = output.splitlines()
    assert 80 >= max(map(len, lines))
    for cell in ("rudderstack-production", "newsletter", "Email Opened", "status 400"):
        assert cell in output
    assert reason in " ".join(output.split())


def test_dead_letters_of_an_earlier_version_are_shown_without_secrets(
    data: DataDir, tmp_path: Path
) -> None:
    """Earlier versions did not mask them before storing them."""
    dead = DeadLetters(data.dead_dir("hook") / "dead.db")
    secret = "bear3r-token"
    dead.add([bundle(9, b'{"type":"page"}', reason=f"no {secret}", response=secret.encode())])
    identity = dead.read()[-1].id
    dead.close()
    settings = tmp_path / "pixelfast.toml"
    settings.write_text(
        '[[destinations]]\nname = "hook"\ntype = "http"\nurl = "https://example.com"\n'
        'bearer_token = "bear3r-token"\n'
    )
    options = ("-c", str(settings))
    shown = run(data, "show", "hook", str(identity), *options).output
    assert ("no …", "…") == (json.loads(shown)["reason"], json.loads(shown)["response"])
    assert "bear3r" not in run(data, "ls", "hook", *options).output
