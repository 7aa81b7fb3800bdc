"""The order in which delivery makes its results durable."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from pixelfast.deliver.batches import Batch, BatchLimits
from pixelfast.deliver.cluster.checkpoint import Checkpoint, Place, decode
from pixelfast.deliver.cluster.dead_index import DeadLetterIndex
from pixelfast.deliver.cluster.home import PartitionHome
from pixelfast.deliver.cluster.log import PartitionLog
from pixelfast.deliver.cluster.store import PartitionState
from pixelfast.deliver.outcomes import Accepted, Outcome, Rejected
from pixelfast.deliver.outlet import Outlet
from pixelfast.deliver.runner import Runner
from pixelfast.deliver.selection import Selection
from pixelfast.errors import DestinationError
from tests.deliver.cluster.partitions import Partition, Slot
from tests.deliver.runners import QUICK, FakeSender, running
from tests.deliver.running import run
from tests.deliver.spools import event
from tests.waiting import until

PARTITION = 5
EVENTS, PER_FRAME = 60, 6
BAD = {n for n in range(EVENTS) if n % 10 == 3}


class Steps:
    """The topic of dead letters and the commits of one partition, in their order.

    Attributes:
        dead: the events of the dead letters.
        sender: the sender of the current owner.
        commits: for each commit, its state, and the events that were delivered and that were dead
            letters before it.
        failures: how often writing dead letters fails.
    """

    def __init__(self, failures: int = 0) -> None:
        self.dead: list[int] = []
        self.sender = FakeSender()
        self.commits: list[tuple[Checkpoint, set[int], set[int]]] = []
        self.failures = failures

    def write(self, messages: Iterable[tuple[bytes, bytes | None]]) -> None:
        if self.failures:
            self.failures -= 1
            raise DestinationError("the brokers do not respond")
        self.dead += [json.loads(value or b"")["event"]["n"] for _, value in messages]

    def commit(self, offset: int, metadata: str) -> bool:
        delivered = set(self.sender.numbers)
        self.commits.append((decode(metadata, offset), delivered, set(self.dead)))
        return True

    def last(self) -> Checkpoint:
        return self.commits[-1][0] if self.commits else Checkpoint(Place(0))


def make_runner(steps: Steps, partition: Partition) -> Runner:
    """Make the runner of the partition's next owner, which knows only the last commit."""
    checkpoint = steps.last()
    steps.sender = FakeSender(judge=judge, limits=BatchLimits(20, 10**6, 0.0))
    log = PartitionLog(PARTITION, checkpoint, partition.fetch)
    log.add(partition.messages[checkpoint.after.offset :])
    dead: Any = steps
    home = PartitionHome(
        *("hook", PARTITION, "AAAAAAAAAAAAAAAAAAAAAQ", checkpoint, log),
        *(PartitionState(steps.commit), dead, DeadLetterIndex(None), Selection),
    )
    outlet = Outlet("hook", steps.sender, QUICK)
    return Runner("hook", outlet, home, Selection(), retry_for_s=10**9, timings=QUICK)


def judge(batch: Batch) -> Outcome:
    bad = any(json.loads(line)["n"] in BAD for line in batch.lines())
    return Rejected("bad", 400) if bad else Accepted()


def make_partition() -> Partition:
    partition, slot = Partition(), Slot(bytes(16))
    for first in range(0, EVENTS, PER_FRAME):
        partition.produce(slot.frame(*map(event, range(first, first + PER_FRAME))))
    return partition


def test_an_offset_is_committed_after_delivery_and_after_the_dead_letters_before_it() -> None:
    steps, partition = Steps(), make_partition()

    async def main() -> None:
        async with running(make_runner(steps, partition)):
            await until(lambda: steps.last().place == Place(len(partition.messages)))

    run(main())
    assert BAD == set(steps.dead)
    assert set(range(EVENTS)) - BAD == set(steps.sender.numbers)
    for checkpoint, delivered, dead in steps.commits:
        place = checkpoint.place
        before = set(range(place.offset * PER_FRAME + place.skip))
        assert before <= delivered | dead
        assert checkpoint.totals.get("delivered", 0) <= len(delivered)
        assert checkpoint.totals.get("dead", 0) <= len(dead)


@pytest.mark.parametrize("failures", [1, 3])
def test_no_event_is_lost_if_its_dead_letter_cannot_be_written(failures: int) -> None:
    steps, partition = Steps(failures), make_partition()

    async def main() -> None:
        for _ in range(failures):
            with pytest.raises(DestinationError):
                await make_runner(steps, partition).run()
            assert 0 == steps.last().totals.get("dead", 0)
        async with running(make_runner(steps, partition)):
            await until(lambda: steps.last().place == Place(len(partition.messages)))

    run(main())
    assert BAD == set(steps.dead)
    assert len(BAD) == steps.last().totals["dead"]
