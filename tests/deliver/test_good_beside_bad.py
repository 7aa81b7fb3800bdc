"""A destination that rejects some events of each batch does not delay the others."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import closing
from typing import Any

import pytest

from pixelfast.deliver.batches import Batch
from pixelfast.deliver.dead import DeadLetters
from pixelfast.deliver.dead_keeper import DeadKeeper
from pixelfast.deliver.outcomes import Outcome, Partial, Rejected
from pixelfast.spool import DataDir
from tests.deliver.runners import FakeSender, make_runner, running
from tests.deliver.spools import event
from tests.spools import Feed
from tests.waiting import WAIT_S, until


class Encoding(FakeSender):
    """Encodes batches in its thread, and rejects the first event of each batch."""

    def __init__(self) -> None:
        super().__init__(judge=lambda _: Partial.of({0: Rejected("no", 400)}), concurrency=4)

    async def send(self, batch: Batch) -> Outcome:
        await self.in_thread(batch.joined)
        return await super().send(batch)


class Disk:
    """Writing dead letters hangs during the body."""

    def __init__(self) -> None:
        self.may_write = threading.Event()
        self.is_waiting = threading.Event()

    def wait(self) -> None:
        self.is_waiting.set()
        assert self.may_write.wait(WAIT_S)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    hanging, write = Disk(), DeadKeeper.write

    def write_later(self: DeadKeeper, added: list[Any], *rest: Any) -> None:
        if added:
            hanging.wait()
        write(self, added, *rest)

    monkeypatch.setattr(DeadKeeper, "write", write_later)
    return hanging


def test_batches_are_sent_while_dead_letters_wait_for_the_disk(
    data: DataDir, feed: Feed, disk: Disk
) -> None:
    sender = Encoding()
    sender.gate.clear()
    feed.write(*map(event, range(100)))  # 20 batches, all of them planned before the first response
    runner = make_runner(data, sender)

    async def main() -> None:
        async with running(runner):
            try:
                await until(lambda: len(runner.queue) + sender.under_way == 20)
                sender.gate.set()
                await until(disk.is_waiting.is_set)
                await sender.has(80)  # all but one event of each batch
                assert runner.state is not None
                assert runner.state.waiting_bytes > 0  # the batches are kept for their dead letters
                assert {} == runner.counted
            finally:
                disk.may_write.set()
            await until(lambda: runner.counted.get("dead") == 20)
            assert 0 == runner.state.waiting_bytes

    asyncio.run(main())
    with closing(DeadLetters(data.dead_dir("hook") / "dead.db")) as dead:
        numbers = sorted(json.loads(each.event)["n"] for each in dead.read())
    assert list(range(0, 100, 5)) == numbers
