"""A repeated error is logged once a minute."""

from __future__ import annotations

import errno
import sqlite3

import pytest
import structlog

from pixelfast.errors import SpoolLocked, operator_error
from pixelfast.operate.sampling import Sampler


class FakeClock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def passed(sampler: Sampler, **line: object) -> dict[str, object] | None:
    try:
        return dict(sampler(None, "error", dict(line)))
    except structlog.DropEvent:
        return None


def test_the_same_error_is_logged_once_a_minute_with_the_count_of_suppressed_lines() -> None:
    clock = FakeClock()
    sampler = Sampler(clock)
    line = {"event": "segment_create_failed", "slot": 0, "error": "No space left on device"}
    assert line == passed(sampler, **line)
    for _ in range(5):
        clock.now_s += 10.0
        assert passed(sampler, **line) is None
    clock.now_s += 10.0
    assert {**line, "suppressed": 5} == passed(sampler, **line)
    clock.now_s += 60.0
    assert line == passed(sampler, **line)


@pytest.mark.parametrize(
    "other",
    [
        {"event": "commit_failed"},
        {"slot": 1},
        {"destination": "hook"},
        {"error": "Input/output error"},
    ],
)
def test_another_error_is_logged_at_once(other: dict[str, object]) -> None:
    sampler = Sampler(FakeClock())
    line = {"event": "e", "slot": 0, "destination": "archive", "error": "No space left on device"}
    assert passed(sampler, **line)
    assert passed(sampler, **{**line, **other})


def test_an_error_that_differs_in_a_path_or_a_number_is_the_same() -> None:
    sampler = Sampler(FakeClock())
    assert passed(sampler, event="e", error="/data/shards/0/17.seg: File too large (17 bytes)")
    assert (
        passed(sampler, event="e", error="/data/shards/0/18.seg: File too large (18 bytes)") is None
    )


def raised(divisor: int) -> Exception:
    try:
        return KeyError(1 // divisor)
    except ZeroDivisionError as error:
        return error


def test_a_traceback_is_logged_once_a_minute() -> None:
    sampler = Sampler(FakeClock())
    assert passed(sampler, event="request_failed", exc_info=raised(0))
    assert passed(sampler, event="request_failed", exc_info=raised(0)) is None
    assert passed(sampler, event="request_failed", exc_info=raised(1))
    try:
        raise ValueError
    except ValueError as error:
        assert passed(sampler, event="request_failed", exc_info=True)
        told = (ValueError, error, error.__traceback__)
        assert passed(sampler, event="request_failed", exc_info=told) is None


def test_all_lines_without_an_error_are_logged() -> None:
    sampler = Sampler(FakeClock())
    for _ in range(3):
        assert passed(sampler, event="process_ended", name="collector-0", code=-9)


def test_the_memory_for_kinds_of_errors_is_limited() -> None:
    sampler = Sampler(FakeClock())
    for n in range(3000):
        assert passed(sampler, event=f"e{n}", error="x")
    assert len(sampler._kinds) <= 1000


def sqlite_error(statement: str) -> sqlite3.Error:
    db = sqlite3.connect(":memory:")
    try:
        db.execute("PRAGMA max_page_count = 1")
        db.execute(statement)
    except sqlite3.Error as error:
        return error
    finally:
        db.close()
    raise AssertionError(statement)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError(errno.EIO, "I/O error", "/data/a"), "/data/a: I/O error"),
        (OSError(errno.EIO, "I/O error", b"/data/a"), "/data/a: I/O error"),
        (MemoryError(), "out of memory"),
        (SpoolLocked("slot 0\nis held"), "slot 0 is held"),
        (sqlite_error("CREATE TABLE t (a)"), "SQLite: database or disk is full"),
        (sqlite_error("SELECT * FROM nothing"), ""),
        (OSError(errno.EBADF, "Bad file descriptor"), ""),
        (OSError("no number"), ""),
        (TimeoutError(), ""),
        (RuntimeError("can't start new thread"), "cannot start a thread"),
        (RuntimeError("other"), ""),
        (KeyError("x"), ""),
    ],
)
def test_an_error_that_an_operator_can_fix_is_distinguished_from_a_bug(
    error: BaseException, line: str
) -> None:
    found = operator_error(error)
    assert found.startswith(line) if line else found == ""
