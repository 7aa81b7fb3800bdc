"""What is stored on this machine and not replicated."""

from __future__ import annotations

from pathlib import Path

import pytest

from pixelfast.cluster.backlog import SlotBacklog, backlogs, was_replicated
from pixelfast.cluster.cursor import ReplicationCursor, write_cursor
from pixelfast.spool import DataDir, Position
from tests.spools import Slot, open_data


@pytest.fixture
def data(tmp_path: Path) -> DataDir:
    return open_data(tmp_path / "data")


def test_an_empty_spool_has_no_backlog(data: DataDir) -> None:
    slot = Slot(data)
    assert ([], False) == (backlogs(data), was_replicated(data))
    slot.close()


def test_everything_after_the_position_of_a_slot_is_its_backlog(data: DataDir) -> None:
    slot = Slot(data, 3)
    start = slot.position
    slot.write(b'{"a":1}', b'{"a":2}', received_ms=1000)
    first_end = slot.position
    slot.roll()
    slot.write(b'{"a":3}', received_ms=2000)
    second_start, end = Position(2, 64), slot.position
    size_bytes = first_end.offset - start.offset + end.offset - second_start.offset
    assert [SlotBacklog(3, 3, size_bytes, 1000)] == backlogs(data)
    write_cursor(data, 3, ReplicationCursor(position=first_end))
    rest = SlotBacklog(3, 1, end.offset - second_start.offset, 2000)
    assert ([rest], True) == (backlogs(data), was_replicated(data))
    write_cursor(data, 3, ReplicationCursor(position=end))
    assert [] == backlogs(data)
    slot.close()
