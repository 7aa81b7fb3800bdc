"""The file destination after kills and power failures: no event is lost, lines are whole."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from pixelfast.deliver.destinations.file import FileSender
from pixelfast.deliver.outcomes import Accepted
from tests.deliver.running import run
from tests.deliver.spools import batch_of, event, files_in, ndjson, numbers_in

NEVER = 10**12
CHUNK = 65536  # the step in which the end of a file is searched


class Syncs:
    """Records how much of each file is synced, and which directories are."""

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}
        self.directories: list[str] = []
        self.is_on = True  # if off, the process dies before its sync

    def note(self, fd: int) -> None:
        if not self.is_on:
            return
        path = os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115
        if Path(path).is_dir():
            self.directories.append(path)
        else:
            self.sizes[path] = os.fstat(fd).st_size


@contextmanager
def watched_syncs() -> Iterator[Syncs]:
    """Record all syncs, without waiting for the disk."""
    syncs = Syncs()
    with (
        mock.patch.object(os, "fsync", syncs.note),
        mock.patch.object(os, "fdatasync", syncs.note),
        capture_logs(),
    ):
        yield syncs


async def opened(folder: Path, memory: dict[str, object], rotate_bytes: int = NEVER) -> FileSender:
    sender = FileSender(folder, rotate_bytes, NEVER)
    await sender.open(memory)
    return sender


async def send(sender: FileSender, *numbers: int) -> dict[str, object]:
    outcome = await sender.send(batch_of([event(n) for n in numbers]))
    assert isinstance(outcome, Accepted), outcome
    return outcome.memory or {}


def only_file(folder: Path) -> Path:
    (path,) = files_in(folder)
    return path


async def crashed_after_append(folder: Path, *numbers: int) -> dict[str, object]:
    """Event 0 is delivered; the next batch is written, but its cursor did not move."""
    sender = await opened(folder, {})
    memory = await send(sender, 0)
    await send(sender, *numbers)
    await sender.close()
    return memory


@pytest.mark.parametrize(
    "cuts",
    [
        [(1, 2, 3)],
        [(1, 2, 3, 4)],
        [(1,), (2, 3)],
        [(1, 2), (3, 4)],
        [(1,), (2,), (3,), (4,)],
    ],
)
def test_events_that_are_already_in_the_file_are_not_written_twice(
    tmp_path: Path, cuts: list[tuple[int, ...]]
) -> None:
    async def main() -> None:
        memory = await crashed_after_append(tmp_path, 1, 2, 3)
        sender = await opened(tmp_path, memory)
        for cut in cuts:
            memory = await send(sender, *cut)
        await sender.close()
        assert {"file": only_file(tmp_path).name, "size": only_file(tmp_path).stat().st_size} == (
            memory
        )

    run(main())
    assert list(range(cuts[-1][-1] + 1)) == numbers_in(tmp_path)


def test_a_crash_at_the_first_batch_repeats_no_event(tmp_path: Path) -> None:
    async def main() -> None:
        sender = await opened(tmp_path, {})
        await send(sender, 1, 2)
        await sender.close()
        sender = await opened(tmp_path, {})
        await send(sender, 1, 2, 3)
        await sender.close()

    run(main())
    assert [1, 2, 3] == numbers_in(tmp_path)


def test_after_a_crash_in_the_middle_of_a_batch_the_rest_is_written(tmp_path: Path) -> None:
    """The second of two crashes occurs when half of the unrecorded bytes are settled."""

    async def main() -> None:
        memory = await crashed_after_append(tmp_path, 1, 2, 3)
        sender = await opened(tmp_path, memory)
        memory = await send(sender, 1)
        await sender.close()
        sender = await opened(tmp_path, memory)
        await send(sender, 2, 3, 4)
        await sender.close()

    run(main())
    assert [0, 1, 2, 3, 4] == numbers_in(tmp_path)


def test_a_batch_that_is_cut_differently_is_repeated_rather_than_lost(tmp_path: Path) -> None:
    """The events of two slots are in another order than before the crash."""

    async def main() -> None:
        memory = await crashed_after_append(tmp_path, 1, 2)
        sender = await opened(tmp_path, memory)
        await send(sender, 2, 1)
        await send(sender, 3)
        await sender.close()

    run(main())
    found = numbers_in(tmp_path)
    assert {0, 1, 2, 3} == set(found)
    assert [0, 3] == [found[0], found[-1]]


def test_a_crash_after_a_new_file_was_started_repeats_no_event(tmp_path: Path) -> None:
    async def main() -> None:
        sender = await opened(tmp_path, {}, rotate_bytes=1)
        memory = await send(sender, 1)
        await send(sender, 2)
        await sender.close()
        sender = await opened(tmp_path, memory, rotate_bytes=1)
        await send(sender, 2)
        await send(sender, 3)
        await sender.close()

    run(main())
    assert [1, 2, 3] == numbers_in(tmp_path)


def test_a_crash_right_after_a_new_file_was_created_loses_no_event(tmp_path: Path) -> None:
    async def main() -> None:
        sender = await opened(tmp_path, {})
        memory = await send(sender, 1)
        await sender.close()
        (tmp_path / "29990101T000000Z-00000002.ndjson").touch()
        sender = await opened(tmp_path, memory)
        await send(sender, 2)
        await sender.close()

    run(main())
    assert [1, 2] == numbers_in(tmp_path)


@pytest.mark.parametrize(
    "memory",
    [
        {},
        {"file": "20270115T080000Z-00000001.ndjson", "size": 1},
        {"file": "20270115T080000Z-00000001.ndjson", "size": 10**9},
        {"file": None, "size": "many"},
        {"size": 5},
    ],
)
def test_a_lost_or_outdated_memory_loses_no_event(
    tmp_path: Path, memory: dict[str, object]
) -> None:
    async def main() -> None:
        await crashed_after_append(tmp_path, 1, 2)
        sender = await opened(tmp_path, memory)
        await send(sender, 1, 2, 3)
        await sender.close()

    run(main())
    found = numbers_in(tmp_path)
    assert {0, 1, 2, 3} == set(found)
    assert 0 == found[0]


def test_a_recorded_size_beyond_the_file_is_reduced_to_its_size(tmp_path: Path) -> None:
    async def main() -> None:
        memory = await crashed_after_append(tmp_path, 1)
        sender = await opened(tmp_path, {**memory, "size": 10**9})
        await send(sender, 1)
        await sender.close()

    run(main())
    assert [0, 1, 1] == numbers_in(tmp_path)


@pytest.mark.parametrize(
    ("whole", "torn"),
    [
        (b"", b"x"),
        (b"", b"x" * (3 * CHUNK + 1)),
        (b'{"n":1}\n', b'{"n":2'),
        (b'{"n":1}\n', b"x" * (CHUNK - 1)),
        (b'{"n":1}\n', b"x" * CHUNK),
        (b'{"n":1}\n', b"\0" * (2 * CHUNK + 5)),
        (b'{"n":1}\n{"n":2}\n', b""),
    ],
)
def test_an_incomplete_line_is_removed_at_the_start(
    tmp_path: Path, whole: bytes, torn: bytes
) -> None:
    path = tmp_path / "20270115T080000Z-00000001.ndjson"
    path.write_bytes(whole + torn)

    async def main() -> None:
        sender = await opened(tmp_path, {})
        assert whole == path.read_bytes()
        await send(sender, 9)
        await sender.close()

    run(main())
    assert whole + ndjson([event(9)]) == path.read_bytes()


def test_an_incompletely_written_batch_is_completed(tmp_path: Path) -> None:
    async def main() -> None:
        memory = await crashed_after_append(tmp_path, 1, 2, 3)
        path = only_file(tmp_path)
        path.write_bytes(path.read_bytes()[:-5])
        sender = await opened(tmp_path, memory)
        await send(sender, 1, 2, 3)
        await sender.close()

    run(main())
    assert [0, 1, 2, 3] == numbers_in(tmp_path)


def test_a_hole_that_a_power_failure_left_is_removed_from_the_file(tmp_path: Path) -> None:
    """The disk has the end of an unsynced batch but not its start, which is zeros."""

    async def main() -> None:
        memory = await crashed_after_append(tmp_path, 1, 2, 3)
        path = only_file(tmp_path)
        start = int(str(memory["size"]))
        content = path.read_bytes()
        path.write_bytes(content[:start] + bytes(20) + content[start + 20 :])
        sender = await opened(tmp_path, memory)
        await send(sender, 1, 2, 3)
        await sender.close()

    run(main())
    assert b"\0" not in only_file(tmp_path).read_bytes()
    assert {0, 1, 2, 3} == set(numbers_in(tmp_path))


def test_data_that_a_killed_process_wrote_is_synced_before_it_counts(tmp_path: Path) -> None:
    """It was killed between write and sync, so a power failure could lose those bytes."""

    async def main() -> None:
        memory = await crashed_after_append(tmp_path, 1, 2)
        with watched_syncs() as syncs:
            sender = await opened(tmp_path, memory)
            await send(sender, 1, 2)
            await sender.close()
        path = only_file(tmp_path)
        assert path.stat().st_size == syncs.sizes.get(str(path))

    run(main())


# A step is the number of events in a batch, and a failure: none; a kill after the append, or before
# its sync; a power failure after or before the append, which keeps a share of the unsynced bytes.
KINDS = ["none", "kill", "kill unsynced", "power", "power before"]
steps = st.lists(
    st.tuples(st.integers(1, 4), st.sampled_from(KINDS), st.floats(0, 1)), min_size=1, max_size=15
)


@settings(max_examples=100)
@given(steps=steps, rotate_bytes=st.sampled_from([40, 100, 10**9]))
def test_no_crash_loses_an_event_or_leaves_an_incomplete_line(
    steps: list[tuple[int, str, float]], rotate_bytes: int
) -> None:
    with tempfile.TemporaryDirectory() as folder, watched_syncs() as syncs:
        total = run(_live_through(Path(folder), syncs, steps, rotate_bytes))
        assert set() == set(range(total)) - set(numbers_in(Path(folder)))


async def _live_through(
    folder: Path, syncs: Syncs, steps: list[tuple[int, str, float]], rotate_bytes: int
) -> int:
    """Deliver events 0, 1, 2, …, and return how many were certainly delivered."""
    done = 0
    memory: dict[str, object] = {}
    sender = await opened(folder, memory, rotate_bytes)
    for count, kind, share in [*steps, (3, "none", 0.0)]:
        syncs.is_on = kind != "kill unsynced"
        if not kind.endswith("before"):
            remembered = await send(sender, *range(done, done + count))
        if kind == "none":
            done, memory = done + count, remembered
            continue
        await sender.close()
        if kind.startswith("power"):
            for path in files_in(folder):
                synced = syncs.sizes.get(str(path), 0)
                size = path.stat().st_size
                os.truncate(path, synced + int(share * (size - synced)))
        syncs.is_on = True
        sender = await opened(folder, memory, rotate_bytes)
    await sender.close()
    return done


@settings(max_examples=30)
@given(steps=steps)
def test_a_kill_alone_repeats_no_event_in_one_file(
    steps: list[tuple[int, str, float]],
) -> None:
    """The remembered size guarantees that each event is written once, whatever is killed."""
    kills = [(count, kind.replace("power", "kill"), 0.0) for count, kind, _ in steps]
    with tempfile.TemporaryDirectory() as folder, watched_syncs() as syncs:
        total = run(_live_through(Path(folder), syncs, [(1, "none", 0.0), *kills], NEVER))
        found = numbers_in(Path(folder))
        assert total <= len(found), "more may stand there already, of the batch to come"
        assert list(range(len(found))) == found
