"""Dead letters have limits of size and age, and no source uses the space of the others."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from pixelfast.deliver.batches import Batch, BatchLimits
from pixelfast.deliver.bundles import Bundle
from pixelfast.deliver.dead import DeadLetterLimits, DeadLetters
from pixelfast.deliver.outcomes import Accepted, Outcome, Partial, Rejected
from pixelfast.deliver.timing import DeliveryClock
from pixelfast.spool import DataDir
from tests.bundles import bundle
from tests.deliver.runners import QUICK, FakeSender, check_sum, make_runner, running
from tests.deliver.running import run
from tests.deliver.spools import event
from tests.deliver.test_rejections import NO, is_settled, numbers
from tests.spools import Feed
from tests.waiting import until

KIB = 1024
DAY_MS = 86_400_000
# The database of versions 1 and 2.
FIRST_SCHEMA = """
CREATE TABLE letter (id INTEGER PRIMARY KEY AUTOINCREMENT, batch TEXT NOT NULL,
    number INTEGER NOT NULL, event BLOB NOT NULL, status INTEGER NOT NULL, reason TEXT NOT NULL,
    answer BLOB NOT NULL, attempts INTEGER NOT NULL, died_ms INTEGER NOT NULL,
    replay INTEGER NOT NULL DEFAULT 0, UNIQUE (batch, number)) STRICT;
CREATE INDEX letter_replay ON letter (replay) WHERE replay > 0;
PRAGMA user_version = 1;
"""
SECOND_SCHEMA = """
CREATE TABLE letter (id INTEGER PRIMARY KEY AUTOINCREMENT, batch TEXT NOT NULL,
    number INTEGER NOT NULL, event BLOB NOT NULL, status INTEGER NOT NULL, reason TEXT NOT NULL,
    answer BLOB NOT NULL, attempts INTEGER NOT NULL, died_ms INTEGER NOT NULL,
    replay INTEGER NOT NULL DEFAULT 0, source TEXT NOT NULL DEFAULT '',
    size_bytes INTEGER GENERATED ALWAYS AS (length(event) + length(reason) + length(answer))
    VIRTUAL, UNIQUE (batch, number)) STRICT;
CREATE INDEX letter_replay ON letter (replay) WHERE replay > 0;
CREATE TABLE source (name TEXT PRIMARY KEY, letters INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL, dropped INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE INDEX letter_source ON letter (source);
CREATE INDEX letter_died ON letter (died_ms);
CREATE TRIGGER letter_removed AFTER DELETE ON letter BEGIN
    UPDATE source SET letters = letters - 1, size_bytes = size_bytes - old.size_bytes
    WHERE name = old.source; END;
CREATE TRIGGER letter_changed AFTER UPDATE OF reason, answer ON letter BEGIN
    UPDATE source SET size_bytes = size_bytes + new.size_bytes - old.size_bytes
    WHERE name = old.source; END;
PRAGMA user_version = 2;
"""


def letter(number: int, source: str = "web", size_bytes: int = 10, batch: str = "b") -> Bundle:
    return bundle(number, b"x" * size_bytes, batch=batch, source=source)


def rows(dead: DeadLetters) -> list[int]:
    """Return the number of dead letters in each row of the database."""
    with closing(sqlite3.connect(dead.path)) as db:
        return [letters for (letters,) in db.execute("SELECT letters FROM letter ORDER BY id")]


def sums(dead: DeadLetters) -> dict[str, tuple[int, int]]:
    """Return the number and size of each source's dead letters, from the rows."""
    query = "SELECT source, sum(letters), sum(size_bytes) FROM letter GROUP BY source"
    with closing(sqlite3.connect(dead.path)) as db:
        return {source: (letters, size_bytes) for source, letters, size_bytes in db.execute(query)}


def check_sums(dead: DeadLetters) -> None:
    """Check that the counts of the sources match the rows."""
    found = {name: own[:2] for name, own in dead.by_source().items() if own.letters}
    assert sums(dead) == found


@pytest.fixture
def dead(tmp_path: Path) -> Iterator[DeadLetters]:
    dead = DeadLetters(tmp_path / "dead" / "dead.db")
    yield dead
    dead.close()


def ids(dead: DeadLetters) -> set[int]:
    return {each.id for each in dead.read()}


def kept(dead: DeadLetters, source: str) -> list[int]:
    return [each.number for each in dead.read() if each.source == source]


def test_the_oldest_dead_letters_are_dropped_above_the_limit_and_counted(dead: DeadLetters) -> None:
    limits = DeadLetterLimits(256 * KIB)
    for start in range(0, 400, 10):
        dead.add([letter(n, size_bytes=25 * KIB) for n in range(start, start + 10)], limits)
        assert dead.sizes().used_bytes <= 256 * KIB
    numbers = kept(dead, "web")
    assert list(range(400 - len(numbers), 400)) == numbers
    assert len(numbers) >= 6
    own = dead.by_source()["web"]
    assert (len(numbers), 400 - len(numbers)) == (own.letters, own.dropped)
    assert dead.path.stat().st_size <= 256 * KIB + 12 * 26 * KIB, "free pages are used again"


@pytest.mark.parametrize("max_bytes", [64 * KIB, 100 * KIB, 1024 * KIB])
@pytest.mark.parametrize("size_bytes", [500, 2300, 9000])
def test_a_small_limit_keeps_the_newest_dead_letters_that_fit(
    dead: DeadLetters, max_bytes: int, size_bytes: int
) -> None:
    limits = DeadLetterLimits(max_bytes)
    empty_bytes = dead.sizes().used_bytes
    for start in range(0, 1000, 50):
        batch = [letter(n, size_bytes=size_bytes) for n in range(start, start + 50)]
        dead.add(batch, limits)
    found = kept(dead, "web")
    assert list(range(1000 - len(found), 1000)) == found
    assert dead.sizes().used_bytes <= max_bytes
    pages_each = -(-(size_bytes + 100) // 4096) * 4096 if size_bytes > 2000 else size_bytes + 100
    assert len(found) >= min(1000, (max_bytes - empty_bytes) // pages_each // 2)


def test_a_source_with_many_dead_letters_drops_only_its_own(dead: DeadLetters) -> None:
    """Its write key is public, so a client must not be able to drop those of other sources."""
    limits = DeadLetterLimits(256 * KIB)
    dead.add([letter(n, "shop", 1 * KIB) for n in range(20)], limits)
    for n in range(100, 400):
        dead.add([letter(n, "flooded", 20 * KIB)], limits)
    assert list(range(20)) == kept(dead, "shop")
    assert 399 == kept(dead, "flooded")[-1]
    by_source = dead.by_source()
    assert (0, True) == (by_source["shop"].dropped, by_source["flooded"].dropped > 280)


def test_new_dead_letters_replace_old_ones_on_a_full_disk(dead: DeadLetters) -> None:
    limit_bytes = [2**30]
    limits = DeadLetterLimits(4096 * KIB, disk_limit=lambda _: limit_bytes[0])
    dead.add([letter(n, size_bytes=8 * KIB) for n in range(250)], limits)
    before = dead.sizes().file_bytes
    assert 2048 * KIB < before < 4096 * KIB
    limit_bytes[0] = -5  # other programs have filled the disk
    for start in range(250, 1000, 10):
        dead.add([letter(n, size_bytes=8 * KIB) for n in range(start, start + 10)], limits)
        dead.keep_within(limits)
    assert dead.sizes().file_bytes <= before + 256 * KIB, "it grows by one step at most"
    assert dead.sizes().used_bytes > before - 600 * KIB, "no more than necessary are dropped"
    limit_bytes[0] = 2**30
    dead.add([letter(n, size_bytes=8 * KIB) for n in range(1000, 1200)], limits)
    assert before < dead.sizes().file_bytes
    assert before + 512 * KIB < dead.sizes().used_bytes <= 4096 * KIB
    numbers = kept(dead, "web")
    assert list(range(1200 - len(numbers), 1200)) == numbers


def test_dead_letters_above_the_maximum_age_are_dropped(tmp_path: Path) -> None:
    now_ms = 10 * DAY_MS
    dead = DeadLetters(tmp_path / "dead.db", DeliveryClock(wall_s=lambda: now_ms / 1000))
    limits = DeadLetterLimits(max_age_s=86_400.0, on_full="hold")
    dead.add([letter(1)], limits)
    now_ms = 11 * DAY_MS - 1
    dead.add([letter(2)], limits)
    assert [1, 2] == kept(dead, "web")
    now_ms = 11 * DAY_MS + 1
    dead.keep_within(limits)
    assert [2] == kept(dead, "web")
    assert 11 * DAY_MS - 1 == dead.by_source()["web"].oldest_ms
    now_ms = 20 * DAY_MS
    dead.keep_within(limits)
    assert ([], (0, 0, 2, 0)) == (kept(dead, "web"), dead.by_source()["web"])
    dead.close()


def test_hold_drops_no_dead_letter_for_lack_of_disk_space(dead: DeadLetters) -> None:
    dead.add(
        [letter(n, size_bytes=25 * KIB) for n in range(20)],
        DeadLetterLimits(64 * KIB, on_full="hold"),
    )
    assert list(range(20)) == kept(dead, "web")


@pytest.mark.parametrize("limits", [DeadLetterLimits(64 * KIB), DeadLetterLimits(max_age_s=-1.0)])
def test_a_dead_letter_that_is_being_replayed_is_not_dropped(
    dead: DeadLetters, limits: DeadLetterLimits
) -> None:
    dead.add([letter(n, size_bytes=25 * KIB) for n in range(10)])
    dead.ask_for_replay([1, 2])
    assert [1] == [each.id for each in dead.take_for_replay(1, 2**20)]  # a plan refers to it
    dead.keep_within(limits)
    assert [0] == kept(dead, "web")
    dead.end_replay([1])
    assert (0, 0) == dead.by_source()["web"][:2]


def test_a_replay_observes_the_limits_of_a_batch(dead: DeadLetters) -> None:
    dead.add([letter(n, size_bytes=25 * KIB) for n in range(10)])
    dead.ask_for_replay()
    taken = [
        len(dead.take_for_replay(*limits)) for limits in ((500, 101 * KIB), (3, 2**20), (9, 1))
    ]
    assert [4, 3, 1] == taken


def test_the_sums_of_sources_are_right_after_every_kind_of_change(dead: DeadLetters) -> None:
    dead.add([letter(n, f"s{n % 3}", n) for n in range(30)])
    dead.add([letter(n, f"s{n % 3}", n) for n in range(30)])  # repeated after a crash
    dead.drop([3, 4])
    dead.ask_for_replay([7, 8])
    dead.take_for_replay(10, 2**20)
    dead.end_replay([7], {8: Rejected("a longer reason", 500, b"response")})
    other = DeadLetters(dead.path)  # like `pixelfast dead`
    other.drop([20, 21])
    other.close()
    assert (25, {7, 3, 4, 20, 21}) == (dead.count(), set(range(1, 31)) - ids(dead))
    check_sums(dead)


def test_a_database_of_version_1_is_migrated(tmp_path: Path) -> None:
    path = tmp_path / "dead.db"
    db = sqlite3.connect(path)
    db.executescript(FIRST_SCHEMA)
    db.executemany(
        "INSERT INTO letter (batch, number, event, status, reason, answer, attempts, died_ms)"
        " VALUES ('b', ?, ?, 400, 'no', X'', 1, 1000)",
        [(n, b"x" * 20 * KIB) for n in range(20)],
    )
    db.commit()
    db.close()
    dead = DeadLetters(path)
    assert list(range(20)) == kept(dead, "")
    assert (20, 20 * (20 * KIB + 2), 0, 1000) == dead.by_source()[""]
    dead.add([letter(0, "web", batch="c")], DeadLetterLimits(128 * KIB))
    assert [0] == kept(dead, "web")
    assert dead.by_source()[""].dropped > 10
    dead.close()
    DeadLetters(path).close()
    assert [] == list(tmp_path.glob("dead.db.damaged-*"))


def test_a_database_of_version_2_is_migrated(tmp_path: Path) -> None:
    path = tmp_path / "dead.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(SECOND_SCHEMA)
        db.executemany(
            "INSERT INTO letter (batch, number, event, status, reason, answer, attempts, died_ms,"
            " source) VALUES ('b', ?, ?, 400, 'no', X'', 1, 1000, 'web')",
            [(n, b"x" * KIB) for n in range(20)],
        )
        db.execute("INSERT INTO source VALUES ('web', 20, 20 * 1026, 3)")
        db.commit()
    with closing(DeadLetters(path)) as dead:
        assert list(range(20)) == kept(dead, "web")
        dead.add([letter(n, size_bytes=KIB) for n in range(30)])
        assert [1] * 20 + [3, 3, 3, 1] == rows(dead)
        assert set(range(1, 31)) == ids(dead)
        assert 6 == dead.drop([1, 2, 3, 20, 21, 22])
        check_sums(dead)
        assert (24, 3) == (dead.by_source()["web"].letters, dead.by_source()["web"].dropped)
    assert [] == list(tmp_path.glob("dead.db.damaged-*"))


def test_rows_of_a_database_of_version_3_are_read_changed_and_added_to(tmp_path: Path) -> None:
    """Version 4 has the same tables, but another content of `parts`."""
    path = tmp_path / "dead.db"
    with closing(DeadLetters(path)) as dead:
        dead.add([bundle(n, b"e%d" % n, response=b"a%d" % n, batch="c") for n in range(3)])
    with closing(sqlite3.connect(path)) as db:
        db.execute(
            "INSERT INTO letter (id, letters, batch, number, status, reason, attempts, died_ms,"
            " source, parts, event, answer) VALUES (4, 3, 'b', 5, 400, 'no', 1, 1000, 'web', ?,"
            " CAST('e5' || char(10) || 'e7' || char(10) || 'e9' AS BLOB), X'61626363')",
            [struct.pack("<6I", 5, 7, 9, 1, 0, 3)],
        )
        db.execute("UPDATE source SET letters = 6, size_bytes = size_bytes + 14")
        db.execute("UPDATE sqlite_sequence SET seq = 6")
        db.execute("PRAGMA user_version = 3")
        db.commit()
    old = [(5, b"e5", b"a"), (7, b"e7", b""), (9, b"e9", b"bcc")]
    new = [(n, b"e%d" % n, b"a%d" % n) for n in range(3)]
    with closing(DeadLetters(path)) as dead:
        assert new + old == [(each.number, each.event, each.response) for each in dead.read()]
        dead.add([bundle(n, batch="b") for n in (5, 6)])
        assert [3, 3, 1] == rows(dead), "5 is known"
        assert 1 == dead.drop([5])
        assert old[::2] == [(each.number, each.event, each.response) for each in dead.read([4, 6])]
        check_sums(dead)
    with closing(sqlite3.connect(path)) as db:
        assert (4,) == db.execute("PRAGMA user_version").fetchone()


def test_what_the_responses_of_a_row_share_is_stored_once(dead: DeadLetters) -> None:
    responses = [b'{"id":"%d","reason":"%b"}' % (n * 7919, b"no " * 100) for n in range(10)]
    responses[3], responses[7] = b"", b'{"id":"'
    dead.add([bundle(n, response=each) for n, each in enumerate(responses)])
    assert responses == [each.response for each in dead.read()]
    with closing(sqlite3.connect(dead.path)) as db:
        ((stored_bytes,),) = db.execute("SELECT length(answer) FROM letter").fetchall()
    assert stored_bytes < 400
    dead.drop([1, 2])
    assert responses[2:] == [each.response for each in dead.read()]
    check_sums(dead)


def test_many_dead_letters_are_added_by_few_statements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each statement releases the GIL, and waits to get it back."""
    statements: list[str] = []
    connect = sqlite3.connect

    def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
        db = connect(*arguments, **options)
        db.set_trace_callback(statements.append)
        return db

    monkeypatch.setattr(sqlite3, "connect", traced)
    with closing(DeadLetters(tmp_path / "traced.db", max_bytes=2**30)) as dead:
        statements.clear()
        added = [letter(n, size_bytes=700, batch=f"b{n % 8}") for n in range(2000)]
        dead.add(added, DeadLetterLimits())
        assert 2000 == dead.count()
    assert len(statements) < 30


def test_the_events_of_a_row_are_stored_unchanged(dead: DeadLetters) -> None:
    """Other programs can search the file for them."""
    events = [b'{"messageId":"m-%d","padding":"%b"}' % (n, b"-" * (n * 7)) for n in range(100)]
    dead.add([bundle(n, event, response=b"a" * n) for n, event in enumerate(events)])
    assert max(rows(dead)) > 10
    assert len(rows(dead)) < 20
    stored = dead.path.read_bytes()
    assert [] == [event for event in events if event not in stored]


def test_changing_some_dead_letters_of_a_row_leaves_the_others_unchanged(
    dead: DeadLetters,
) -> None:
    dead.add([bundle(n, b"e%d" % n, response=b"a%d" % n) for n in range(10)])
    assert [10] == rows(dead)
    before = {each.id: each for each in dead.read()}
    assert 2 == dead.ask_for_replay([3, 9, 11])
    assert [3, 9] == [each.id for each in dead.take_for_replay(5, 100)]
    dead.end_replay([9], {3: Rejected("no again", 500)})
    assert 1 == dead.drop([9, 10])
    expected = before | {3: before[3]._replace(status=500, reason="no again", response=b"")}
    expected[3] = expected[3]._replace(attempts=2)
    assert [expected[n] for n in range(1, 9)] == dead.read()
    assert [expected[5], expected[2]] == dead.read([5, 9, 2, 77])
    check_sums(dead)


def test_the_outcomes_of_a_replay_are_recorded_together_or_not_at_all(dead: DeadLetters) -> None:
    """Otherwise a crash could leave dead letters that are neither replayed nor listed again."""
    dead.add([bundle(n, b"e%d" % n) for n in range(4)])
    dead.ask_for_replay()
    dead.take_for_replay(10, 100)
    before = dead.read()
    with pytest.raises(sqlite3.ProgrammingError):
        dead.end_replay([1, 2], {3: NO, 4: Rejected(object())})  # type: ignore[arg-type]
    assert before == dead.read()
    dead.end_replay([1, 2], {3: NO, 4: NO})
    assert [(3, 0, 2), (4, 0, 2)] == [(each.id, each.replay, each.attempts) for each in dead.read()]
    check_sums(dead)


def test_dead_letters_of_one_row_are_replayed_in_as_many_batches_as_needed(
    dead: DeadLetters,
) -> None:
    dead.add([bundle(n, b"e%d" % n) for n in range(10)])
    assert 10 == dead.ask_for_replay()
    assert [1, 2, 3, 4] == [each.id for each in dead.take_for_replay(4, 100)]
    assert [5, 6] == [each.id for each in dead.take_for_replay(100, 6)]
    dead.give_back([1, 2, 5])  # the plans that a crash left
    assert [3, 4, 6, 7, 8, 9, 10] == [each.id for each in dead.take_for_replay(100, 100)]
    assert [] == dead.take_for_replay(100, 100)
    dead.end_replay(range(1, 11))
    assert (0, 0) == (dead.count(), dead.by_source()["web"].size_bytes)


def test_a_row_that_is_replayed_as_a_whole_is_not_divided(dead: DeadLetters) -> None:
    dead.add([bundle(n, b"e%d" % n) for n in range(10)])
    dead.ask_for_replay()
    dead.take_for_replay(10, 100)
    dead.give_back([])
    dead.take_for_replay(10, 100)
    assert [10] == rows(dead)
    dead.end_replay(range(1, 11))
    assert [] == rows(dead)


def test_a_search_for_dead_letters_to_replay_reads_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Delivery searches every 2 s, and there may be a million dead letters."""
    steps = 0
    connect = sqlite3.connect

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    def counting(*arguments: Any, **options: Any) -> sqlite3.Connection:
        db = connect(*arguments, **options)
        db.set_progress_handler(count, 1)
        return db

    monkeypatch.setattr(sqlite3, "connect", counting)
    with closing(DeadLetters(tmp_path / "dead.db")) as dead:
        dead.add([letter(n, batch=f"b{n}") for n in range(300)])
        steps = 0
        assert [] == dead.take_for_replay(10, 100)
        dead.give_back([])
        assert 0 < steps < 100


@pytest.mark.parametrize("identity", [-(2**70), -1, 0, 4, 2**63 - 1, 2**63, 2**70])
def test_an_id_that_no_dead_letter_can_have_is_not_found(dead: DeadLetters, identity: int) -> None:
    dead.add([bundle(n, b"e%d" % n) for n in range(3)])
    assert ([], 0, 0) == (
        dead.read([identity]),
        dead.ask_for_replay([identity]),
        dead.drop([identity]),
    )
    assert [2] == [each.id for each in dead.read([identity, 2])]


def test_no_id_is_assigned_twice(dead: DeadLetters) -> None:
    """An operator who drops 17 must not drop another dead letter."""
    dead.add([letter(n) for n in range(10)])
    dead.drop()
    dead.add([letter(n, batch="c") for n in range(5)])
    assert {11, 12, 13, 14, 15} == ids(dead)
    dead.drop([15])
    dead.add([])
    with closing(DeadLetters(dead.path)) as again:
        again.add([letter(1, batch="d")])
        assert {11, 12, 13, 14, 16} == ids(again)


def test_a_damaged_row_is_an_error(dead: DeadLetters) -> None:
    dead.add([letter(n) for n in range(10)])
    with closing(sqlite3.connect(dead.path)) as db:
        db.execute("UPDATE letter SET parts = X'00'")
        db.commit()
    with pytest.raises(sqlite3.DatabaseError, match="damaged"):
        dead.read()
    with closing(DeadLetters(dead.path)) as again:
        assert 0 == again.count()
    assert 1 == len(list(dead.path.parent.glob("dead.db.damaged-*")))


def test_a_migration_on_a_full_disk_leaves_the_database_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "dead.db"
    db = sqlite3.connect(path)
    db.executescript(FIRST_SCHEMA)
    db.close()
    before = path.read_bytes()
    connect = sqlite3.connect

    def connect_to_full(*arguments: Any, **options: Any) -> sqlite3.Connection:
        db = connect(*arguments, **options)
        db.execute("PRAGMA max_page_count = 1")
        return db

    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", connect_to_full)
        with pytest.raises(sqlite3.OperationalError, match="full"):
            DeadLetters(path)
    assert before == path.read_bytes()
    DeadLetters(path).close()
    assert [] == list(tmp_path.glob("dead.db.damaged-*"))


# --- delivery --------------------------------------------------------------------------------

MANY = BatchLimits(max_events=50, max_bytes=10**6, max_age_s=0.0)


def rejecting_odd(batch: Batch) -> Outcome:
    failed = {place: NO for place, number in enumerate(numbers(batch)) if number % 2}
    return Partial.of(failed) if failed else Accepted()


@pytest.mark.parametrize("segment_bytes", [2**20])
def test_a_flood_of_large_bad_events_neither_holds_the_destination_nor_fills_the_disk(
    data: DataDir, feed: Feed
) -> None:
    async def main() -> None:
        sender = FakeSender(judge=rejecting_odd, limits=MANY, concurrency=8)
        runner = make_runner(data, sender, dead_limits=DeadLetterLimits(512 * KIB))
        with capture_logs() as logs:
            async with running(runner):
                feed.commit([("shop", event(n)) for n in range(10)])
                await until(lambda: is_settled(runner, feed))
                for start in range(10, 310, 50):
                    feed.write(*(event(n, 10 * KIB) for n in range(start, start + 50)))
                await until(lambda: is_settled(runner, feed))
                figures = runner.stats({0: 310})
                assert "healthy" == runner.health.breaker.state
        assert (155, 155) == (figures["delivered"], figures["dead"])
        check_sum(figures)
        letters = figures["dead_letters"]
        assert isinstance(letters, dict)
        assert (5, 0) == (letters["shop"]["letters"], letters["shop"]["dropped"])
        assert 150 == letters["web"]["letters"] + letters["web"]["dropped"]
        told = [each["event"] for each in logs]
        assert 1 == told.count("dead_letters_nearly_full")
        assert 1 == told.count("dead_letters_dropped"), "once a minute"
        assert 1 == told.count("events_rejected")

    run(main())
    path = data.dead_dir("hook") / "dead.db"
    assert path.stat().st_size < 2 * 512 * KIB


def test_a_restart_above_the_limit_drops_dead_letters_to_the_limit(
    data: DataDir, feed: Feed
) -> None:
    dead = DeadLetters(data.dead_dir("hook") / "dead.db")
    dead.add([letter(n, size_bytes=25 * KIB) for n in range(40)])
    dead.close()
    timings = replace(QUICK, dead_age_s=0.01)

    async def main() -> None:
        feed.write(*map(event, range(3)))
        runner = make_runner(
            data, FakeSender(limits=MANY), timings=timings, dead_limits=DeadLetterLimits(256 * KIB)
        )
        async with running(runner):
            await until(lambda: runner.state and runner.state.dead.by_source["web"].dropped)
            assert runner.state
            assert runner.state.dead.size_bytes <= 256 * KIB
            await until(lambda: is_settled(runner, feed))

    run(main())


def test_a_hold_for_full_dead_letters_ends_when_some_are_dropped(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        sender = FakeSender(judge=rejecting_odd, limits=MANY, concurrency=8)
        limits = DeadLetterLimits(128 * KIB, on_full="hold")
        runner = make_runner(data, sender, dead_limits=limits)
        with capture_logs() as logs:
            async with running(runner):
                for start in range(0, 40, 4):
                    feed.write(*(event(n, 10 * KIB) for n in range(start, start + 4)))
                    await runner.pause(0.02)
                await until(lambda: runner.health.breaker.state == "held")
                attempts = len(sender.sent)
                await until(lambda: len(sender.sent) > attempts + 3)
                assert "the dead letters have reached their size limit" == runner.last_error
                told = [each["event"] for each in logs]
                assert "destination_recovered" not in told[told.index("destination_held") :]
                check_sum(runner.stats({0: 40}))
                dead = DeadLetters(data.dead_dir("hook") / "dead.db")
                while not is_settled(runner, feed):
                    dead.drop()
                    await runner.pause(0.02)
                dead.close()
                assert "healthy" == runner.health.breaker.state
                check_sum(runner.stats({0: 40}))
        assert "dead_letters_dropped" not in [each["event"] for each in logs]
        assert set(range(0, 40, 2)) == set(sender.numbers)

    run(main())


def test_a_hold_for_a_full_disk_ends_when_there_is_space(data: DataDir, feed: Feed) -> None:
    limit_bytes = [256 * KIB]

    async def main() -> None:
        limits = DeadLetterLimits(2**30, on_full="hold", disk_limit=lambda _: limit_bytes[0])
        sender = FakeSender(limits=MANY, judge=rejecting_odd)
        runner = make_runner(data, sender, dead_limits=limits)
        async with running(runner):
            for n in range(200):
                feed.write(event(n, padding=8 * KIB))
            await until(lambda: runner.stats(None)["state"] == "held")
            assert "the dead letters have reached their size limit" == runner.last_error
            limit_bytes[0] = 2**30
            await until(lambda: is_settled(runner, feed))

    run(main())


def test_dropping_dead_letters_during_a_replay_keeps_the_counts_right(
    data: DataDir, feed: Feed
) -> None:
    """An operator replays all of them while more are added than fit."""
    timings = replace(QUICK, dead_age_s=0.01)

    async def main() -> None:
        sender = FakeSender(judge=rejecting_odd, limits=MANY, concurrency=8)
        runner = make_runner(data, sender, timings=timings, dead_limits=DeadLetterLimits(128 * KIB))
        async with running(runner):
            dead = DeadLetters(data.dead_dir("hook") / "dead.db")
            number = 0
            for _ in range(10):
                feed.write(*(event(n, 10 * KIB) for n in range(number, number + 6)))
                number += 6
                dead.ask_for_replay()
                dead.drop([number])
                await runner.pause(0.02)
            await until(lambda: is_settled(runner, feed))
            sender.judge = lambda _: Accepted()
            while dead.count():  # some return from an attempt under way
                dead.ask_for_replay()
                await runner.pause(0.02)
            await until(lambda: is_settled(runner, feed))
            own = dead.by_source()["web"]
            check_sum(runner.stats({0: number}))
            assert own.dropped > 0
            await until(lambda: runner.counted["dead"] == own.dropped)
            dead.close()
        assert number - own.dropped == len(set(sender.numbers))

    run(main())


def test_each_dead_letter_has_the_source_of_its_event(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        names = ("web", "web", "mail", "app")
        feed.commit([(names[n % 4], event(n)) for n in range(40)])
        with Feed(data, slot=1) as other:
            other.commit([(names[n % 4], event(n)) for n in range(40, 60)])
            sender = FakeSender(judge=lambda batch: NO if batch.events > 3 else Accepted())
            sender.limits = MANY
            runner = make_runner(data, sender)
            async with running(runner):
                await until(lambda: runner.counted.get("delivered") == 60)
                sender.judge = rejecting_odd
                feed.commit([(names[n % 4], event(n)) for n in range(100, 140)])
                await until(lambda: runner.counted.get("dead") == 20)
        dead = DeadLetters(data.dead_dir("hook") / "dead.db")
        found = {event_number(each.event): each.source for each in dead.read()}
        dead.close()
        assert {n: names[n % 4] for n in range(101, 140, 2)} == found

    run(main())


def event_number(line: bytes) -> int:
    (number,) = numbers(Batch(body=line + b"\n", events=1))
    return number


def test_replayed_dead_letters_have_the_sources_of_their_events(data: DataDir, feed: Feed) -> None:
    """At once, and after a crash, when their batch is read from the dead letters."""
    sources = ["shop", "shop", "mail", "shop"]
    dead = DeadLetters(data.dead_dir("hook") / "dead.db")
    dead.add([letter(n, source) for n, source in enumerate(sources)])
    dead.ask_for_replay()
    dead.close()
    feed.write(event(0))
    sent: list[list[str]] = []

    def keep(batch: Batch) -> None:
        if batch.events == len(sources):
            sent.append(batch.sources())

    async def main() -> None:
        crashing = FakeSender(limits=MANY, on_send=keep)
        crashing.judge = lambda _: ZeroDivisionError() if sent else Accepted()  # type: ignore[assignment,return-value]
        with pytest.raises(ZeroDivisionError):
            await make_runner(data, crashing).run()
        async with running(make_runner(data, FakeSender(limits=MANY, on_send=keep))):
            await until(lambda: len(sent) == 2)

    run(main())
    assert [sorted(sources)] * 2 == [sorted(each) for each in sent]
    assert sent[0] == sent[1]


@pytest.mark.parametrize("again", [0, 1, 99, 150])
def test_dead_letters_that_are_added_twice_are_counted_once(dead: DeadLetters, again: int) -> None:
    """After a crash, the dead letters of the last transaction may be added again."""
    everything = [letter(n, "web" if n % 3 else "mail", n) for n in range(150)]
    dead.add(everything[:again])
    dead.add(everything)
    found = dead.by_source()
    assert (50, 100) == (found["mail"].letters, found["web"].letters)
    check_sums(dead)
    assert {each.numbers[0]: (each.events[0], each.source) for each in everything} == {
        each.number: (each.event, each.source) for each in dead.read()
    }
    assert 150 == len(ids(dead))


def test_the_sizes_of_sources_are_zero_without_dead_letters(dead: DeadLetters) -> None:
    """Additions are counted by Python, and deletions by SQLite."""
    reasons = ["no", "nö", "a\0b", "\0", ""]
    dead.add([letter(n)._replace(reason=reason) for n, reason in enumerate(reasons)])
    assert dead.by_source()["web"].size_bytes == 10 * 5 + 2 + 2 + 1
    dead.drop()
    assert (0, 0) == dead.by_source()["web"][:2]


def test_dead_letters_of_several_batches_keep_their_own_values(dead: DeadLetters) -> None:
    expected = [
        (batch, attempts, f"s{n % 2}", 400 + n % 3, n, b"e%d" % n, b"a" * n)
        for batch, attempts, count in (("a", 1, 70), ("b", 2, 1), ("a", 3, 3))
        for n in range(100 * attempts, 100 * attempts + count)
    ]
    dead.add(
        bundle(
            number,
            event,
            batch=batch,
            attempts=attempts,
            source=source,
            status=status,
            response=response,
        )
        for batch, attempts, source, status, number, event, response in expected
    )
    assert len(rows(dead)) < 20, "those that failed in the same way share a row"
    assert sorted(expected) == sorted(
        (
            each.batch,
            each.attempts,
            each.source,
            each.status,
            each.number,
            each.event,
            each.response,
        )
        for each in dead.read()
    )


@pytest.mark.parametrize(("max_bytes", "page_bytes"), [(2**16, 4096), (2**30, 16384)])
def test_a_file_for_many_dead_letters_has_large_pages(
    tmp_path: Path, max_bytes: int, page_bytes: int
) -> None:
    dead = DeadLetters(tmp_path / "dead.db", max_bytes=max_bytes)
    dead.add([letter(1)])
    assert dead.sizes().used_bytes < 10 * page_bytes
    assert 0 == dead.sizes().used_bytes % page_bytes
    dead.close()
    again = DeadLetters(
        tmp_path / "dead.db", max_bytes=2**16
    )  # an existing file keeps its page size
    assert 0 == again.sizes().used_bytes % page_bytes
    again.close()
