"""`pixelfast spool`: its output, its exit status, and that it changes nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pixelfast.deliver.store import Changes, Store
from pixelfast.spool import DataDir, Position
from tests.program import PIXELFAST, on_terminal, run_pixelfast
from tests.spool.recycled import fill, recycle, start_recycled
from tests.spools import Slot

NOON_MS = 1_769_860_800_000  # 2026-01-31T12:00:00Z
LATE_MS = 4_102_444_800_000  # 2100-01-01T00:00:00Z, after the clock of every machine


def run(data: DataDir, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_pixelfast("spool", *arguments, "--data-dir", str(data.path))


@pytest.fixture
def data(tmp_path: Path) -> DataDir:
    return DataDir.open(tmp_path / "data")


@pytest.fixture
def slot(data: DataDir) -> Iterator[Slot]:
    """Return a slot that is being written: three segments, the last one without a frame."""
    slot = Slot(data)
    slot.write(b'{"n":1}', b'{"n":2}', received_ms=NOON_MS)
    slot.write(b'{"n":3}', source="app", received_ms=NOON_MS + 1000)
    slot.roll()
    slot.write(b'{"n":4}', received_ms=NOON_MS + 60_000)
    slot.roll()
    yield slot
    slot.close()


def tree(data: DataDir) -> dict[str, tuple[int, int]]:
    found = (path for path in data.path.rglob("*") if path.is_file())
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in found}


def test_ls_shows_slots_and_undelivered_events_of_destinations(data: DataDir, slot: Slot) -> None:
    for name, cursor in [("archive", {0: Position(1, 64, 1)}), ("new", {})]:
        store = Store(data.destination_dir(name) / "state.db")
        store.commit(Changes(after=cursor))
        store.close()
    data.destination_dir("odd").mkdir()
    (data.destination_dir("odd") / "state.db").write_bytes(b"no database" * 100)
    before = tree(data)
    result = run(data, "ls")
    assert result.returncode == 0, result.stderr
    header, row = [re.split("  +", line.strip()) for line in result.stdout.splitlines()]
    assert ["archive pending", "new pending", "odd pending"] == header[6:]
    used = slot.path(1).stat().st_size + slot.path(2).stat().st_size
    times = ["2026-01-31T12:00:00Z", "2026-01-31T12:01:00Z"]
    assert ["0", "3", str(used), "4", *times, "3", "4", "?"] == row
    assert before == tree(data)


def test_ls_truncates_nothing_on_a_terminal_with_80_columns(data: DataDir, slot: Slot) -> None:
    name = "a-destination-with-a-long-name"
    store = Store(data.destination_dir(name) / "state.db")
    store.commit(Changes(after={0: Position(1, 64, 1)}))
    store.close()
    output = on_terminal("spool", "ls", "--data-dir", str(data.path), columns=80)
    pairs = dict(re.split("  +", line) for line in output.splitlines())
    assert ["0", "3", "2026-01-31T12:00:00Z", "2026-01-31T12:01:00Z", "3"] == [
        pairs[each] for each in ("slot", "segments", "first", "last", f"{name} pending")
    ]
    del slot


def test_check_exits_with_0_if_the_spool_has_no_damage(data: DataDir, slot: Slot) -> None:
    slot.next_number += 5
    slot.write(b"{}")
    before = tree(data)
    result = run(data, "check")
    assert (0, "") == (result.returncode, result.stderr)
    assert ["0", "4", "5", "5", "0", "0", "0"] == result.stdout.splitlines()[1].split()
    assert before == tree(data)


@pytest.mark.parametrize(("offset", "damaged"), [(70, "bytes 64 to 131"), (5, "bytes 0 to 64")])
def test_check_reports_damage_exits_with_1_and_changes_nothing(
    data: DataDir, slot: Slot, offset: int, damaged: str
) -> None:
    with slot.path(1).open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff")
    before = tree(data)
    result = run(data, "check")
    assert result.returncode == 1
    assert f"damaged: slot 0, segment 1, {damaged}" in result.stderr
    assert f"damaged: slot 0, segment 1, {damaged}" in run(data, "dump").stderr
    assert before == tree(data)


def test_dump_prints_events_unchanged(data: DataDir, slot: Slot) -> None:
    before = tree(data)
    result = run(data, "dump")
    assert result.stdout == '{"n":1}\n{"n":2}\n{"n":3}\n{"n":4}\n'
    assert before == tree(data)
    del slot


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--source", "app"], [3]),
        (["--source", "app", "--source", "web"], [1, 2, 3, 4]),
        (["--since", "2026-01-31T12:00:01Z"], [3, 4, 5]),
        (["--until", "2026-01-31T13:00:01+01:00"], [1, 2]),
        (["--since", "2026-01-31T12:00:01Z", "--until", "2026-01-31T12:01:00Z"], [3]),
        (["--since", "1h"], [5]),
        (["--until", "1.5m"], [1, 2, 3, 4]),
    ],
)
def test_dump_filters_by_source_and_time(
    data: DataDir, slot: Slot, options: list[str], expected: list[int]
) -> None:
    slot.write(b'{"n":5}', source="late", received_ms=LATE_MS)
    result = run(data, "dump", *options)
    assert "".join(f'{{"n":{n}}}\n' for n in expected) == result.stdout, result.stderr


@pytest.mark.usefixtures("slot")
def test_dump_rejects_a_source_that_neither_the_settings_nor_the_spool_contain(
    data: DataDir, tmp_path: Path
) -> None:
    options = ("--source", "mail", "--until", "2020-01-01T00:00:00Z")
    result = run(data, "dump", "--source", "web", *options)
    error = 'pixelfast: unknown source "mail"; known sources: app, web\n'
    assert (1, "", error) == (result.returncode, result.stdout, result.stderr)
    settings = tmp_path / "pixelfast.toml"
    settings.write_text('[[sources]]\nname = "mail"\nwrite_keys = ["${MISSING}"]\n')
    result = run(data, "dump", *options, "-c", str(settings))
    assert (0, "") == (result.returncode, result.stdout)


@pytest.mark.parametrize("moment", ["yesterday", "2026-01-31T12:00:00", "5", "-2h"])
def test_dump_rejects_an_invalid_time(data: DataDir, moment: str) -> None:
    result = run(data, "dump", f"--since={moment}")
    assert result.returncode == 2
    assert "expected a time such as" in result.stderr


def test_dump_ends_quietly_when_its_reader_ends(data: DataDir) -> None:
    slot = Slot(data, segment_bytes=8 * 2**20)
    for _ in range(6):
        slot.write(b"x" * 2**20)
    slot.close()
    reading, writing = os.pipe()
    command = [*PIXELFAST, "spool", "dump", "--data-dir", str(data.path)]
    with subprocess.Popen(command, stdout=writing, stderr=subprocess.PIPE) as process:
        os.close(writing)
        os.read(reading, 100)
        os.close(reading)
        assert process.stderr is not None
        assert (b"", 0) == (process.stderr.read(), process.wait(30))


def test_a_data_directory_that_does_not_exist_is_reported_and_not_created(tmp_path: Path) -> None:
    missing = DataDir(tmp_path / "nowhere", bytes(16))
    for command in ("ls", "check", "dump"):
        result = run(missing, command)
        assert result.returncode == 1
        assert "nowhere" in result.stderr
        assert "Traceback" not in result.stderr
    assert not missing.path.exists()


@pytest.fixture
def recycled(data: DataDir) -> Iterator[Slot]:
    """Return a slot that continues in a recycled segment of 512 KiB, full of old frames."""
    slot = Slot(data, segment_bytes=2**19)
    start_recycled(slot, b'{"old":"%01000d"}')
    slot.write(b'{"n":1}')
    yield slot
    slot.close()


def test_check_dump_and_ls_do_not_see_the_old_content_of_recycled_segments(
    data: DataDir, recycled: Slot
) -> None:
    before = tree(data)
    result = run(data, "check")
    assert (0, "") == (result.returncode, result.stderr)
    assert ["0", "2", "2", "0", "0", "0", "0"] == result.stdout.splitlines()[1].split()
    result = run(data, "dump")
    assert (0, 'between\n{"n":1}\n', "") == (result.returncode, result.stdout, result.stderr)
    assert ["0", "2"] == run(data, "ls").stdout.splitlines()[1].split()[:2]
    assert before == tree(data)
    del recycled


def test_dump_continues_after_a_segment_that_is_recycled_while_it_reads_it(
    data: DataDir, recycled: Slot
) -> None:
    old = fill(recycled, b'{"new":"%01000d"}')
    command = [*PIXELFAST, "spool", "dump", "--data-dir", str(data.path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        start = b""
        while start.count(b"\n") < 4:  # it reads the segment, and the pipe cannot hold all of it
            start += process.stdout.read(1024)
        recycled.roll()
        recycled.write(b"after")
        recycle(recycled)
        recycled.roll()
        fill(recycled, b'{"again":"%01000d"}')
        printed, errors = start + process.stdout.read(), process.stderr.read().splitlines()
    assert 0 == process.returncode
    events = printed.splitlines()
    assert [b"between", b'{"n":1}', *old][: len(events)] == events
    assert 4 <= len(events) < 2 + len(old), "the rest was overwritten"
    assert ["segment_missing"] == [json.loads(line)["event"] for line in errors]
