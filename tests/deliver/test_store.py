"""A destination's state.db: contents, transactions, and damage."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from pixelfast.deliver.database import open_database
from pixelfast.deliver.store import Changes, Store
from pixelfast.errors import DestinationError
from pixelfast.spool import Position

KILLED_IN_A_COMMIT = """
import os, signal, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode = TRUNCATE")
db.execute("PRAGMA cache_size = 1")  # pages go to the file before the commit
db.execute("BEGIN IMMEDIATE")
db.execute("UPDATE cursor SET segment = 99")
db.executemany("INSERT INTO counter VALUES (?, 1)", [(f"{n:0400}",) for n in range(500)])
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def unsynced_databases() -> None:
    """Use real syncs, because these tests are about databases."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "dest" / "archive" / "state.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    store = Store(path)
    yield store
    store.close()


def commit(
    store: Store,
    after: dict[int, Position],
    memory: dict[str, object] | None = None,
    counted: dict[str, int] | None = None,
) -> None:
    store.commit(Changes(after=after, memory=memory, counted=counted or {}))


def filled(path: Path) -> None:
    store = Store(path)
    commit(store, {0: Position(3, 128, 2)}, {"file": "a", "size": 5}, {"delivered": 10})
    store.close()


def set_aside(path: Path) -> list[Path]:
    return sorted(path.parent.glob("state.db.damaged-*"))


def contents(path: Path) -> tuple[object, ...]:
    store = Store(path)
    try:
        return store.cursors(), store.memory(), store.counters()
    finally:
        store.close()


NOTHING: tuple[dict[int, Position], dict[str, object], dict[str, int]] = ({}, {}, {})
FILLED = ({0: Position(3, 128, 2)}, {"file": "a", "size": 5}, {"delivered": 10})


def test_a_new_store_is_empty(store: Store) -> None:
    assert NOTHING == (store.cursors(), store.memory(), store.counters())


def test_committed_changes_survive_a_restart(path: Path) -> None:
    filled(path)
    assert FILLED == contents(path)
    assert [] == set_aside(path)


def test_cursors_are_positions_and_change_separately(store: Store) -> None:
    commit(store, {0: Position(1, 64), 7: Position(2**40, 2**31, 5)})
    commit(store, {0: Position(2, 72, 1)})
    cursors = store.cursors()
    assert {0: Position(2, 72, 1), 7: Position(2**40, 2**31, 5)} == cursors
    assert all(isinstance(each, Position) for each in cursors.values())


def test_segment_numbers_have_at_least_63_bits(store: Store) -> None:
    commit(store, {65535: Position(2**63 - 1, 2**31, 2**31)})
    assert {65535: Position(2**63 - 1, 2**31, 2**31)} == store.cursors()


def test_memory_is_replaced_or_kept_if_there_is_no_new_one(store: Store) -> None:
    commit(store, {}, {"file": "a", "size": 1})
    commit(store, {0: Position(1, 64)})
    assert {"file": "a", "size": 1} == store.memory()
    commit(store, {}, {"file": "b"})
    assert {"file": "b"} == store.memory()
    commit(store, {}, {})
    assert {} == store.memory()


def test_counters_add_up(store: Store) -> None:
    commit(store, {}, None, {"delivered": 10, "batches": 1})
    commit(store, {}, None, {"delivered": 5, "filtered": 2})
    assert {"delivered": 15, "batches": 1, "filtered": 2} == store.counters()


def test_a_failed_commit_changes_nothing(path: Path) -> None:
    filled(path)
    store = Store(path)
    moved = {0: Position(9, 64)}
    with pytest.raises(TypeError):
        commit(store, moved, {"size": object()}, {"delivered": 1})
    with pytest.raises(sqlite3.IntegrityError):
        commit(store, moved, {"size": 9}, {"delivered": 1, "batches": "many"})  # type: ignore[dict-item]
    assert FILLED == (store.cursors(), store.memory(), store.counters())
    commit(store, {1: Position(1, 64)})  # the failed transaction was closed
    store.close()
    assert {0: Position(3, 128, 2), 1: Position(1, 64)} == contents(path)[0]


def test_the_database_has_a_rollback_journal_that_is_synced(path: Path, store: Store) -> None:
    commit(store, {0: Position(1, 64)})
    with closing(open_database(path, "", 2, lambda _: None)) as db:
        pragma = {
            name: db.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "user_version")
        }
    assert {"journal_mode": "truncate", "synchronous": 2, "user_version": 2} == pragma
    assert {"state.db", "state.db-journal"} == {each.name for each in path.parent.iterdir()}
    assert 0 == path.with_name("state.db-journal").stat().st_size


def test_a_database_in_wal_mode_is_converted(path: Path) -> None:
    filled(path)
    db = sqlite3.connect(path)
    assert ("wal",) == db.execute("PRAGMA journal_mode = WAL").fetchone()
    db.close()
    assert FILLED == contents(path)
    assert [] == list(path.parent.glob("*-wal"))


def test_a_commit_that_a_kill_cut_short_is_rolled_back(path: Path) -> None:
    filled(path)
    child = subprocess.run(
        [sys.executable, "-c", KILLED_IN_A_COMMIT, str(path)], check=False, timeout=30
    )
    assert -signal.SIGKILL == child.returncode
    assert path.with_name("state.db-journal").read_bytes()[:4] == b"\xd9\xd5\x05\xf9", "hot"
    assert FILLED == contents(path)
    assert [] == set_aside(path)


def _garbage(path: Path) -> None:
    path.write_bytes(b"\xa5" * 8192)


def _text(path: Path) -> None:
    path.write_text("not a database")


def _half(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _one_page(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:4096])


def _zeroed_page(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:4096] + bytes(4096) + content[8192:])


def _other_version(path: Path) -> None:
    _execute(path, "PRAGMA user_version = 130")


def _no_tables(path: Path) -> None:
    path.unlink()
    _execute(path, "PRAGMA user_version = 2")


def _another_table(path: Path) -> None:
    _execute(path, "DROP TABLE cursor", "CREATE TABLE cursor (slot INTEGER PRIMARY KEY)")


def _execute(path: Path, *statements: str) -> None:
    db = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        db.execute(statement)
    db.close()


@pytest.mark.parametrize(
    "damage",
    [
        _garbage,
        _text,
        _half,
        _one_page,
        _zeroed_page,
        _other_version,
        _no_tables,
        _another_table,
    ],
)
def test_a_damaged_database_is_renamed_and_a_new_one_created(path: Path, damage: object) -> None:
    filled(path)
    damage(path)  # type: ignore[operator]
    damaged = path.read_bytes()
    assert NOTHING == contents(path)
    assert [damaged] == [each.read_bytes() for each in set_aside(path)]
    filled(path)
    assert FILLED == contents(path)
    assert 1 == len(set_aside(path)), "the new one is sound"


def test_a_database_of_a_newer_version_is_not_changed(path: Path) -> None:
    """It is not damaged, and the newer version continues with it after a downgrade was undone."""
    filled(path)
    _execute(path, "PRAGMA user_version = 3")
    newer = path.read_bytes()
    with pytest.raises(DestinationError) as raised:
        Store(path)
    expected = (
        f"{path} was written by a newer version of pixelfast: it has schema version 3, and this"
        " version supports 2; install the newer version"
    )
    assert expected == str(raised.value)
    assert (newer, []) == (path.read_bytes(), set_aside(path))


def test_a_memory_that_is_not_json_is_ignored(path: Path) -> None:
    filled(path)
    _execute(path, "UPDATE memory SET value = x'7b22'")
    assert {} == contents(path)[1]
    filled(path)
    assert {"file": "a", "size": 5} == contents(path)[1]


def test_an_empty_file_is_a_new_database(path: Path) -> None:
    filled(path)
    path.write_bytes(b"")
    assert NOTHING == contents(path)
    filled(path)
    assert FILLED == contents(path)


def test_the_journal_of_a_damaged_database_is_not_applied_to_the_new_one(path: Path) -> None:
    filled(path)
    subprocess.run([sys.executable, "-c", KILLED_IN_A_COMMIT, str(path)], check=False, timeout=30)
    _garbage(path)
    assert NOTHING == contents(path)
    filled(path)
    assert FILLED == contents(path)


def test_no_flipped_bit_prevents_delivery_from_starting(path: Path, tmp_path: Path) -> None:
    """The store opens, can be read, and accepts a commit, whichever bit is flipped."""
    filled(path)
    content = path.read_bytes()
    used = [place for place, byte in enumerate(content) if byte]
    failures = []
    for place in used[:: len(used) // 60]:
        folder = tmp_path / "flipped"
        folder.mkdir()
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        (folder / "state.db").write_bytes(flipped)
        try:
            with capture_logs():
                contents(folder / "state.db")
                filled(folder / "state.db")
        except Exception as error:  # noqa: BLE001 - all that come are listed
            failures.append((place, repr(error)))
        shutil.rmtree(folder)
    assert [] == failures


def test_a_database_that_another_process_has_locked_is_not_damaged(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup tool or an operator's sqlite3 must not make delivery drop the state."""
    filled(path)
    connect = sqlite3.connect
    other = connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, **{**k, "timeout": 0.01}))
    with pytest.raises(sqlite3.OperationalError):
        Store(path)
    other.execute("COMMIT")
    other.close()
    assert [] == set_aside(path)
    assert FILLED == contents(path)


def test_a_database_that_cannot_be_opened_now_is_not_damaged(path: Path) -> None:
    """A lack of file descriptors is temporary, so the state must be kept."""
    filled(path)
    script = """
import os, resource, sqlite3, sys
from pathlib import Path
from pixelfast.deliver.database import open_database
from pixelfast.deliver.store import Changes, Store
used = os.open("/dev/null", os.O_RDONLY)
resource.setrlimit(resource.RLIMIT_NOFILE, (used + 1, used + 1))
try:
    Store(Path(sys.argv[1]))
except (sqlite3.Error, OSError):
    sys.exit(7)
"""
    child = subprocess.run(
        [sys.executable, "-c", script, str(path)], check=False, timeout=30, capture_output=True
    )
    assert 7 == child.returncode, child.stderr.decode()
    assert FILLED == contents(path)
    assert [] == set_aside(path)


def test_a_full_disk_leaves_the_state_unchanged(path: Path) -> None:
    """The whole commit fails; when there is disk space again, the next one succeeds."""
    filled(path)
    script = """
import resource, signal, sqlite3, sys
from pathlib import Path
from pixelfast.deliver.database import open_database
from pixelfast.deliver.store import Changes, Store
from pixelfast.spool import Position
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = Store(Path(sys.argv[1]))
unlimited = resource.RLIM_INFINITY
resource.setrlimit(resource.RLIMIT_FSIZE, (100, unlimited))
try:
    store.commit(Changes({0: Position(8, 64)}, memory={"file": "b"}, counted={"delivered": 1}))
except sqlite3.OperationalError:
    resource.setrlimit(resource.RLIMIT_FSIZE, (unlimited, unlimited))
    assert {0: Position(3, 128, 2)} == store.cursors()
    store.commit(Changes({1: Position(8, 64)}))
    sys.exit(7)
"""
    child = subprocess.run(
        [sys.executable, "-c", script, str(path)], check=False, timeout=30, capture_output=True
    )
    assert 7 == child.returncode, child.stderr.decode()
    assert {0: Position(3, 128, 2), 1: Position(8, 64)} == contents(path)[0]


def test_a_rollback_on_a_full_disk_is_not_damage(path: Path) -> None:
    """The journal of a killed commit is kept until there is disk space to apply it."""
    filled(path)
    subprocess.run([sys.executable, "-c", KILLED_IN_A_COMMIT, str(path)], check=False, timeout=30)
    script = """
import resource, signal, sqlite3, sys
from pathlib import Path
from pixelfast.deliver.database import open_database
from pixelfast.deliver.store import Changes, Store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    Store(Path(sys.argv[1]))
except sqlite3.OperationalError:
    sys.exit(7)
"""
    child = subprocess.run(
        [sys.executable, "-c", script, str(path)], check=False, timeout=30, capture_output=True
    )
    assert 7 == child.returncode, child.stderr.decode()
    assert FILLED == contents(path)
    assert [] == set_aside(path)
