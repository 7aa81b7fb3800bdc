"""Where a new destination of a cluster starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from pixelfast.cluster.cursor import ReplicationCursor, write_cursor
from pixelfast.config import Config, FileDestination
from pixelfast.deliver import register_destinations
from pixelfast.deliver.cluster.starts import note_starts, start_ms
from pixelfast.deliver.progress import figures_on_disk
from pixelfast.deliver.reclaimer import log_ends
from pixelfast.deliver.timing import DeliveryClock
from pixelfast.spool import DataDir
from tests.spools import Slot, open_data

ONE = Config(destinations=(FileDestination(name="one"),))
TWO = Config(destinations=(FileDestination(name="one"), FileDestination(name="two")))


@pytest.fixture
def data(tmp_path: Path) -> DataDir:
    return open_data(tmp_path / "data")


def test_the_time_at_which_a_destination_was_added_is_kept(data: DataDir) -> None:
    note_starts(ONE, data, lambda: 1000.0)
    note_starts(TWO, data, lambda: 2000.0)
    assert [1_000_000, 2_000_000] == [start_ms(data, name) for name in ("one", "two")]


def test_without_a_record_a_destination_starts_now(data: DataDir) -> None:
    assert 3_000_000 == start_ms(data, "one", lambda: 3000.0)


def test_undelivered_events_of_the_spool_belong_to_a_destination_that_moves_to_a_cluster(
    data: DataDir,
) -> None:
    register_destinations(ONE, data)
    slot = Slot(data, 0)
    slot.write(b'{"a":1}', received_ms=5_000)
    slot.close()
    note_starts(TWO, data, lambda: 9000.0)
    assert [5_000, 9_000_000] == [start_ms(data, name) for name in ("one", "two")]


def test_events_that_were_not_replicated_are_delivered_after_cluster_was_removed(
    data: DataDir,
) -> None:
    note_starts(TWO, data)
    slot = Slot(data, 0)
    slot.write(b'{"a":1}')
    position = slot.position
    slot.write(b'{"a":2}', b'{"a":3}')
    write_cursor(data, 0, ReplicationCursor(position=position))
    register_destinations(ONE, data)
    register_destinations(TWO, data)
    slot.write(b'{"a":4}')
    assert [3, 1] == [figures_of(data, name)["stored"] for name in ("one", "two")]
    assert [3, 1] == [figures_of(data, name)["pending"] for name in ("one", "two")]
    slot.close()


def figures_of(data: DataDir, name: str) -> dict[str, float]:
    ends = {slot: number for slot, (_, number) in log_ends(data).items()}
    return figures_on_disk(data, name, ends, DeliveryClock())
