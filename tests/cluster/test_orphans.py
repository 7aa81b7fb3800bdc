"""Slots without a collector are replicated by another one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pixelfast.cluster.cursor import read_cursor
from pixelfast.cluster.orphans import Orphans
from pixelfast.config import Cluster
from pixelfast.spool import DataDir
from tests.cluster.topic import FakeTopic, events_in
from tests.deliver.running import run
from tests.spools import Slot, open_data
from tests.waiting import until

SETTINGS = Cluster(brokers=("192.0.2.1:9092",))


@pytest.fixture
def data(tmp_path: Path) -> DataDir:
    return open_data(tmp_path / "data")


def orphans(data: DataDir, topic: FakeTopic) -> Orphans:
    return Orphans(data, 0, SETTINGS, round_s=0.05, connect=topic.connect)


def test_slots_without_a_collector_are_replicated_and_removed(data: DataDir) -> None:
    topic = FakeTopic()
    for number in (0, 1, 2):
        slot = Slot(data, number)
        slot.write(b'{"slot":%d}' % number)
        slot.close()

    async def main() -> None:
        found = orphans(data, topic)
        found.start()
        await until(lambda: data.slots() == [0])
        await until(lambda: not found.is_behind)
        assert 2 == found.frames
        await found.close()

    run(main())
    assert [b'{"slot":1}', b'{"slot":2}'] == events_in(topic.stored)


def test_a_slot_with_a_collector_is_left_to_it(data: DataDir) -> None:
    topic = FakeTopic()
    slot = Slot(data, 1)
    slot.write(b'{"a":1}')
    other = Slot(data, 2)
    other.write(b'{"b":1}')
    os.close(other.segment.fd)
    other.files.close()

    async def main() -> None:
        found = orphans(data, topic)
        found.start()
        await until(lambda: events_in(topic.stored) == [b'{"b":1}'])
        await until(lambda: not found.is_behind)
        await found.close()

    run(main())
    assert 0 == read_cursor(data, 1).position.segment
    slot.close()


def test_a_slot_is_left_at_once_when_a_collector_takes_it(data: DataDir) -> None:
    topic = FakeTopic()
    topic.is_up = False
    slot = Slot(data, 1)
    slot.write(b'{"a":1}')
    slot.close()

    async def main() -> None:
        found = orphans(data, topic)
        found.start()
        await until(lambda: bool(topic.transports))
        taken = Slot(data, 1)
        await until(lambda: topic.transports[0].is_closed)
        await until(lambda: not found.is_behind)
        taken.close()
        await found.close()

    run(main())
