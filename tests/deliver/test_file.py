"""The file destination without failures: names, rotation, whole lines, and restarts."""

from __future__ import annotations

import fcntl
import os
import re
import stat
from pathlib import Path

import pytest

from pixelfast.deliver.destinations.file import FileSender
from pixelfast.deliver.outcomes import Accepted
from pixelfast.errors import DestinationError
from tests.deliver.clocks import HandClock
from tests.deliver.running import run
from tests.deliver.spools import batch_of, event, files_in, ndjson, numbers_in

NEVER = 10**12


@pytest.fixture
def clock() -> HandClock:
    return HandClock(1_800_000_000.0)  # 2027-01-15T08:00:00Z


async def send(sender: FileSender, *numbers: int) -> dict[str, object]:
    """Send a batch, which must be accepted, and return the memory."""
    outcome = await sender.send(batch_of([event(n) for n in numbers]))
    assert isinstance(outcome, Accepted), outcome
    assert outcome.memory is not None
    return outcome.memory


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.ndjson"))


def test_a_file_is_named_after_its_start_and_number(tmp_path: Path, clock: HandClock) -> None:
    async def main() -> None:
        sender = FileSender(tmp_path / "events", NEVER, NEVER, clock=clock.clock)
        await sender.open({})
        memory = await send(sender, 1, 2)
        await sender.close()
        name = "20270115T080000Z-00000001.ndjson"
        content = ndjson([event(1), event(2)])
        assert [name] == names(tmp_path / "events")
        assert content == (tmp_path / "events" / name).read_bytes()
        assert {"file": name, "size": len(content)} == memory

    run(main())


def test_no_file_is_created_before_the_first_event(tmp_path: Path) -> None:
    async def main() -> None:
        sender = FileSender(tmp_path, NEVER, NEVER)
        await sender.open({})
        await sender.close()
        assert [] == names(tmp_path)

    run(main())


def test_batches_are_appended_to_one_file_until_it_is_large(
    tmp_path: Path, clock: HandClock
) -> None:
    line = len(event(1)) + 1

    async def main() -> None:
        sender = FileSender(tmp_path, 3 * line, NEVER, clock=clock.clock)
        await sender.open({})
        for n in range(7):
            await send(sender, n)
        await sender.close()

    run(main())
    sizes = [path.stat().st_size // line for path in files_in(tmp_path)]
    assert [3, 3, 1] == sizes
    assert list(range(7)) == numbers_in(tmp_path)


def test_a_batch_is_never_divided_between_files(tmp_path: Path) -> None:
    async def main() -> None:
        sender = FileSender(tmp_path, 10, NEVER)
        await sender.open({})
        await send(sender, 1, 2, 3)
        await send(sender, 4, 5)
        await sender.close()

    run(main())
    lines = [path.read_bytes().count(b"\n") for path in files_in(tmp_path)]
    assert [3, 2] == lines


def test_a_file_is_closed_at_its_maximum_age(tmp_path: Path, clock: HandClock) -> None:
    async def main() -> None:
        sender = FileSender(tmp_path, NEVER, 60.0, clock=clock.clock)
        await sender.open({})
        await send(sender, 1)
        clock.advance(59.0)
        await send(sender, 2)
        clock.advance(1.0)
        await send(sender, 3)
        clock.advance(59.0)
        await send(sender, 4)
        await sender.close()

    run(main())
    assert ["20270115T080000Z-00000001.ndjson", "20270115T080100Z-00000002.ndjson"] == names(
        tmp_path
    )
    lines = [path.read_bytes().count(b"\n") for path in files_in(tmp_path)]
    assert [2, 2] == lines


def test_names_sort_in_the_order_of_writing_even_within_a_second(
    tmp_path: Path, clock: HandClock
) -> None:
    async def main() -> None:
        sender = FileSender(tmp_path, 1, NEVER, clock=clock.clock)
        await sender.open({})
        for n in range(12):
            await send(sender, n)
        await sender.close()

    run(main())
    assert list(range(12)) == numbers_in(tmp_path)
    assert 12 == len(names(tmp_path))


def test_the_age_of_a_file_counts_across_a_restart(tmp_path: Path, clock: HandClock) -> None:
    async def once(number: int, memory: dict[str, object]) -> dict[str, object]:
        sender = FileSender(tmp_path, NEVER, 60.0, clock=clock.clock)
        await sender.open(memory)
        memory = await send(sender, number)
        await sender.close()
        return memory

    memory = run(once(1, {}))
    clock.advance(30.0)
    memory = run(once(2, memory))
    assert 1 == len(names(tmp_path))
    clock.advance(30.0)
    run(once(3, memory))
    assert 2 == len(names(tmp_path))
    assert [1, 2, 3] == numbers_in(tmp_path)


def test_a_file_with_a_future_name_does_not_have_a_negative_age(
    tmp_path: Path, clock: HandClock
) -> None:
    """The clock was set back by a day, but the file is still closed at its maximum age."""

    async def main() -> None:
        sender = FileSender(tmp_path, NEVER, 60.0, clock=clock.clock)
        await sender.open({})
        memory = await send(sender, 1)
        await sender.close()
        clock.advance(-86_400.0)
        sender = FileSender(tmp_path, NEVER, 60.0, clock=clock.clock)
        await sender.open(memory)
        await send(sender, 2)
        clock.advance(60.0)
        await send(sender, 3)
        await sender.close()

    run(main())
    assert 2 == len(names(tmp_path))
    # The numbers order the files, whatever the clock did.
    by_number = sorted(tmp_path.glob("*.ndjson"), key=lambda path: path.name.rpartition("-")[2])
    lines = [path.read_bytes().count(b"\n") for path in by_number]
    assert [2, 1] == lines


def test_a_restart_continues_in_the_newest_file(tmp_path: Path) -> None:
    async def main() -> None:
        memory: dict[str, object] = {}
        for n in range(5):
            sender = FileSender(tmp_path, NEVER, NEVER)
            await sender.open(memory)
            memory = await send(sender, n)
            await sender.close()

    run(main())
    assert 1 == len(names(tmp_path))
    assert list(range(5)) == numbers_in(tmp_path)


def test_a_restart_does_not_continue_in_a_full_file(tmp_path: Path) -> None:
    async def main() -> None:
        memory: dict[str, object] = {}
        for n in range(3):
            sender = FileSender(tmp_path, 1, NEVER)
            await sender.open(memory)
            memory = await send(sender, n)
            await sender.close()

    run(main())
    assert 3 == len(names(tmp_path))


def test_other_files_in_the_folder_are_not_touched(tmp_path: Path) -> None:
    others = {
        "notes.txt": b"torn",
        "20270115T080000Z-00000009.ndjson.bz2": b"torn",
        "x20270115T080000Z-00000009.ndjson": b"torn",
        "20270115T080000Z-9.ndjson": b"torn",
    }
    for name, content in others.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "sub").mkdir()

    async def main() -> None:
        sender = FileSender(tmp_path, NEVER, NEVER)
        await sender.open({})
        memory = await send(sender, 1)
        await sender.close()
        assert re.fullmatch(r"\d{8}T\d{6}Z-00000001\.ndjson", str(memory["file"]))

    run(main())
    assert others == {name: (tmp_path / name).read_bytes() for name in others}


def test_numbers_continue_after_removed_files(tmp_path: Path) -> None:
    """Another process moves finished files, but not the newest one."""

    async def main() -> None:
        sender = FileSender(tmp_path, 1, NEVER)
        await sender.open({})
        for n in range(3):
            memory = await send(sender, n)
        await sender.close()
        for path in files_in(tmp_path)[:-1]:
            path.unlink()
        sender = FileSender(tmp_path, 1, NEVER)
        await sender.open(memory)
        await send(sender, 3)
        await sender.close()

    run(main())
    assert [3, 4] == [int(name[-15:-7]) for name in names(tmp_path)]


def test_an_event_is_in_its_file_when_it_is_accepted(tmp_path: Path) -> None:
    async def main() -> None:
        sender = FileSender(tmp_path, NEVER, NEVER)
        await sender.open({})
        for n in range(3):
            await send(sender, n)
            assert list(range(n + 1)) == numbers_in(tmp_path)
        await sender.close()

    run(main())


def test_an_event_is_in_its_file_within_a_second() -> None:
    assert FileSender("somewhere", NEVER, NEVER).limits.max_age_s < 1.0


def test_a_second_sender_for_the_same_folder_is_rejected(tmp_path: Path) -> None:
    """Both would write at their own offsets, and overwrite each other."""

    async def main() -> None:
        first, second = FileSender(tmp_path, NEVER, NEVER), FileSender(tmp_path, NEVER, NEVER)
        await first.open({})
        with pytest.raises(DestinationError, match="another destination writes to"):
            await second.open({})
        await first.close()
        await second.open({})
        await second.close()

    run(main())


def opened_and_closed(folder: Path, mode: int) -> None:
    async def main() -> None:
        sender = FileSender(folder, NEVER, NEVER, mode=mode)
        await sender.open({})
        await sender.close()

    run(main())


def mode_of(path: Path) -> str:
    return f"{stat.S_IMODE(path.stat().st_mode):04o}"


@pytest.mark.parametrize(
    ("mode", "before", "folder_mode"),
    [
        (0o600, 0o755, "0700"),
        (0o600, 0o2770, "2700"),
        (0o640, 0o700, "0750"),
        (0o640, 0o2775, "2770"),  # the group may still delete files
        (0o644, 0o700, "0755"),
        (0o660, 0o750, "0770"),
    ],
)
def test_an_existing_archive_gets_the_permissions_of_the_settings(
    tmp_path: Path, mode: int, before: int, folder_mode: str
) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    file = folder / "20270115T080000Z-00000001.ndjson"
    file.write_bytes(event(1) + b"\n")
    file.chmod(0o644 if mode == 0o600 else 0o600)
    folder.chmod(before)
    opened_and_closed(folder, mode)
    assert (f"{mode:04o}", folder_mode) == (mode_of(file), mode_of(folder))
    assert "0600" == mode_of(folder / ".lock")


def test_in_a_folder_with_other_files_only_the_archive_gets_permissions(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    ours, other = tmp_path / "20270115T080000Z-00000001.ndjson", tmp_path / "report.txt"
    for path in (ours, other):
        path.touch()
        path.chmod(0o644)
    opened_and_closed(tmp_path, 0o600)
    assert ["0755", "0600", "0644"] == [mode_of(path) for path in (tmp_path, ours, other)]


def test_processes_that_may_read_the_folder_cannot_lock_it(tmp_path: Path) -> None:
    """A process with a lock on the folder itself could stop delivery."""
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        opened_and_closed(tmp_path, 0o640)
    finally:
        os.close(fd)
