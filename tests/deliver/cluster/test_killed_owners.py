"""Owners of a partition that are killed between any two durable steps."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

from pixelfast.deliver.batches import Batch, BatchLimits
from pixelfast.deliver.cluster.checkpoint import Checkpoint, Place, decode
from pixelfast.deliver.cluster.dead_view import ClusterDeadLetters
from pixelfast.deliver.cluster.home import PartitionHome
from pixelfast.deliver.cluster.log import PartitionLog
from pixelfast.deliver.cluster.store import PartitionState
from pixelfast.deliver.dead import DeadLetterLimits
from pixelfast.deliver.outcomes import Accepted, Outcome, Rejected
from pixelfast.deliver.outlet import Outlet
from pixelfast.deliver.runner import Runner
from pixelfast.deliver.selection import Selection
from tests.deliver.cluster.dead_topics import DeadTopic
from tests.deliver.cluster.partitions import Partition, Slot
from tests.deliver.runners import QUICK, FakeSender
from tests.deliver.running import run
from tests.deliver.spools import event
from tests.waiting import until

EVENTS, PER_FRAME = 18, 3
BAD = {4, 5, 13}
NEVER = 10**9


class Killed(Exception):
    """The process has ended."""


class Site:
    """The durable things: the commits, the topic of dead letters, and the destination.

    Attributes:
        delivered: how often each event was delivered.
        steps_left: the owner is killed when so many steps were done.
    """

    def __init__(self, partition: int = 0) -> None:
        self.number = partition
        self.partition = Partition()
        slot = Slot(bytes(16))
        for first in range(0, EVENTS, PER_FRAME):
            self.partition.produce(slot.frame(*map(event, range(first, first + PER_FRAME))))
        self.dead = DeadTopic(self.step)
        self.checkpoint = Checkpoint(Place(0))
        self.delivered: Counter[int] = Counter()
        self.steps_left = NEVER
        self.bad = BAD

    def step(self) -> None:
        self.steps_left -= 1
        if self.steps_left < 0:
            raise Killed

    def commit(self, offset: int, metadata: str) -> bool:
        self.step()
        self.checkpoint = decode(metadata, offset)
        self.step()
        return True

    def judge(self, batch: Batch) -> Outcome:
        numbers = [json.loads(line)["n"] for line in batch.lines()]
        self.step()
        if self.bad.intersection(numbers):
            return Rejected("bad", 400)
        self.delivered.update(numbers)
        self.step()
        return Accepted()

    def owner(self) -> Runner:
        """Return the next owner, which knows only what is durable."""
        log = PartitionLog(self.number, self.checkpoint, self.partition.fetch)
        batches = self.checkpoint.batches
        after = batches[-1].stop if batches else self.checkpoint.place
        log.add(self.partition.messages[after.offset :])
        dead: Any = self.dead
        state = PartitionState(self.commit)
        home = PartitionHome(
            *("hook", self.number, "AAAAAAAAAAAAAAAAAAAAAQ", self.checkpoint, log),
            *(state, dead, self.dead.index, Selection),
        )
        sender = FakeSender(judge=self.judge, limits=BatchLimits(7, 10**6, 0.0))
        outlet = Outlet("hook", sender, QUICK)
        limits = DeadLetterLimits()
        return Runner("hook", outlet, home, Selection(), dead_limits=limits, timings=QUICK)

    @property
    def totals(self) -> dict[str, int]:
        return self.checkpoint.totals

    @property
    def is_done(self) -> bool:
        return self.checkpoint.place == Place(len(self.partition.messages))

    async def run_until(self, is_done: Any) -> bool:
        """Run an owner until it is killed, or all is done; return whether it was killed."""
        runner = self.runner = self.owner()
        task = asyncio.create_task(runner.run())
        await until(lambda: task.done() or is_done())
        runner.stop()
        await asyncio.wait({task})
        if isinstance(error := task.exception(), Killed):
            return True
        if error is not None:
            raise error
        return False


def test_an_owner_that_is_killed_at_any_step_loses_nothing_and_doubles_no_dead_letter() -> None:
    async def main() -> int:
        for steps in range(NEVER):
            site = Site()
            site.steps_left = steps
            was_killed = await site.run_until(lambda site=site: site.is_done)
            site.steps_left = NEVER
            assert not await site.run_until(lambda site=site: site.is_done)
            assert set(range(EVENTS)) - BAD == set(site.delivered)
            assert sorted(BAD) == sorted(json.loads(each.event)["n"] for each in site.dead.letters)
            assert {"stored": EVENTS, "delivered": EVENTS - len(BAD), "dead": len(BAD)} == {
                name: site.totals.get(name, 0) for name in ("stored", "delivered", "dead")
            }
            if not was_killed:
                return steps
        raise AssertionError

    assert 20 < run(main(), 120.0)


def test_a_replay_that_is_killed_at_any_step_loses_no_dead_letter() -> None:
    async def main() -> int:
        for steps in range(NEVER):
            site = Site()
            assert not await site.run_until(lambda site=site: site.is_done)
            topic: Any = site.dead
            assert 3 == ClusterDeadLetters(topic, "hook").ask_for_replay()
            site.bad = {13}
            site.steps_left = steps

            def is_replayed(site: Site = site) -> bool:
                left = site.dead.letters
                return [(13, 0)] == [(json.loads(each.event)["n"], each.replay) for each in left]

            was_killed = await site.run_until(is_replayed)
            site.steps_left = NEVER
            assert not await site.run_until(is_replayed)
            (left,) = site.dead.letters
            assert left.attempts >= 2
            assert set(range(EVENTS)) - {13} == set(site.delivered)
            assert EVENTS == site.totals["delivered"] + site.totals["dead"]
            if not was_killed:
                assert (17, 1) == (site.totals["delivered"], site.totals["dead"])
                return steps
        raise AssertionError

    assert 6 < run(main(), 120.0)


def test_dead_letters_of_another_partition_are_replayed_by_the_owner_of_the_first_one() -> None:
    async def main() -> None:
        other = Site(partition=3)
        assert not await other.run_until(lambda: other.is_done)
        first = Site()
        first.bad = set()
        first.dead = other.dead
        assert not await first.run_until(lambda: first.is_done)
        topic: Any = other.dead
        ClusterDeadLetters(topic, "hook").ask_for_replay()
        runner = other.owner()  # it does not replay them
        assert not runner.stats({3: EVENTS}).get("dead_letters")

        def is_counted() -> bool:
            figures = first.runner.stats({0: EVENTS})
            return (-3, EVENTS + 3, 0) == tuple(
                figures.get(name) for name in ("dead", "delivered", "pending")
            )

        assert not await first.run_until(is_counted)
        assert [] == first.dead.letters
        assert BAD == {number for number, count in first.delivered.items() if count == 2}
        assert (EVENTS + 3, -3) == (first.totals["delivered"], first.totals["dead"])
        total = Counter(first.totals)
        total.update(other.totals)
        assert 2 * EVENTS == total["stored"] == total["delivered"]
        assert 0 == total["dead"]

    run(main())
