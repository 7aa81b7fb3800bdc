"""Runners that share the sender of a destination, as those of a cluster's partitions do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from pixelfast.deliver.batches import Batch
from pixelfast.deliver.home import SpoolHome
from pixelfast.deliver.outcomes import Accepted, Outcome, Rejected, Retry
from pixelfast.deliver.outlet import Outlet
from pixelfast.deliver.runner import Runner
from pixelfast.spool import DataDir
from tests.deliver.runners import QUICK, FakeSender, running
from tests.deliver.running import run
from tests.deliver.spools import event
from tests.spools import Feed, open_data
from tests.waiting import until

NAMES = "abc"


@pytest.fixture
def logs(tmp_path: Path) -> dict[str, DataDir]:
    """Return three logs of 50 events each, whose numbers are in different hundreds."""
    found = {}
    for place, name in enumerate(NAMES):
        found[name] = open_data(tmp_path / name)
        with Feed(found[name]) as feed:
            for number in range(100 * place, 100 * place + 50):
                feed.write(event(number))
    return found


def runner_of(outlet: Outlet, name: str, data: DataDir) -> Runner:
    return Runner(name, outlet, SpoolHome(name, data), timings=QUICK)


@asynccontextmanager
async def all_running(outlet: Outlet, logs: dict[str, DataDir]) -> AsyncIterator[list[Runner]]:
    runners = [runner_of(outlet, name, data) for name, data in logs.items()]
    async with AsyncExitStack() as stack:
        for each in runners:
            await stack.enter_async_context(running(each))
        yield runners


def owner_of(lines: list[bytes]) -> int:
    return int(json.loads(lines[0])["n"]) // 100


@pytest.mark.parametrize("concurrency", [1, 2])
def test_runners_together_send_no_more_requests_than_their_destination_allows(
    logs: dict[str, DataDir], concurrency: int
) -> None:
    async def main() -> None:
        sender = FakeSender(concurrency=concurrency)
        sender.gate.clear()
        outlet = Outlet("hook", sender, QUICK)
        async with all_running(outlet, logs) as runners:
            await until(lambda: sum(each.queue.batches > 0 for each in runners) >= 2)
            await until(lambda: outlet.requests >= concurrency)
            assert concurrency == outlet.requests
            sender.gate.set()
            await sender.has(150)
        assert concurrency == sender.max_under_way
        assert (0, 0) == (outlet.requests, outlet.probes)

    run(main())


def test_runners_that_share_one_request_send_in_turn(logs: dict[str, DataDir]) -> None:
    async def main() -> None:
        sender = FakeSender()
        sender.gate.clear()
        async with all_running(Outlet("hook", sender, QUICK), logs) as runners:
            await until(lambda: all(each.queue.batches >= 4 for each in runners))
            sender.gate.set()
            await sender.has(150)
        owners = [owner_of(lines) for lines in sender.sent]
        for place in range(1, 13, 3):
            assert {0, 1, 2} == set(owners[place : place + 3])

    run(main())


def test_a_destination_that_is_down_gets_one_request_at_a_time_from_all_runners(
    logs: dict[str, DataDir],
) -> None:
    async def main() -> None:
        under_way: list[int] = []
        sender = FakeSender(concurrency=64, judge=lambda _: Retry("down"))
        sender.retry_first_s = sender.retry_most_s = 0.0
        outlet = Outlet("hook", sender, QUICK)
        sender._on_send = lambda _: under_way.append(sender.under_way)
        async with all_running(outlet, logs):
            await until(lambda: not outlet.health.breaker.is_healthy and not outlet.requests)
            under_way.clear()
            await until(lambda: len(under_way) >= 50)
            assert {0} == set(under_way)
            sender.judge = lambda _: Accepted()
            await until(lambda: len(set(sender.numbers)) == 150)
            assert outlet.health.breaker.is_healthy

    run(main())


def test_an_event_that_one_runner_delivers_proves_that_those_of_others_are_bad(
    logs: dict[str, DataDir],
) -> None:
    def judge(batch: Batch) -> Outcome:
        return Accepted() if owner_of(batch.lines()) == 0 else Rejected("bad", 400)

    async def main() -> None:
        sender = FakeSender(judge=judge, concurrency=8)
        outlet = Outlet("hook", sender, QUICK)
        with Feed(logs["a"], 1) as feed:

            def dead() -> list[int]:
                feed.write(event(1))
                return [each.counted.get("dead", 0) for each in runners]

            async with all_running(outlet, logs) as runners:
                await until(lambda: [0, 50, 50] == dead())
        assert list(range(50)) == sorted(set(sender.numbers))

    run(main())


def test_the_sender_is_open_while_one_runner_uses_it(logs: dict[str, DataDir]) -> None:
    async def main() -> None:
        sender = FakeSender()
        sender.open_errors = [OSError("no such folder")]
        outlet = Outlet("hook", sender, QUICK)
        first, second, third = (runner_of(outlet, name, data) for name, data in logs.items())
        with pytest.raises(OSError, match="no such folder"):
            await first.run()
        assert (1, 1) == (len(sender.memories), sender.closed)
        async with running(second):
            await until(lambda: second.is_open)
            async with running(third):
                await until(lambda: third.is_open)
                assert (2, 1) == (len(sender.memories), sender.closed)
            assert 1 == sender.closed
        assert 2 == sender.closed

    run(main())


def test_the_sender_is_closed_although_a_runner_is_cancelled_while_it_is_opened() -> None:
    async def main() -> None:
        sender = FakeSender()
        outlet = Outlet("hook", sender, QUICK)
        await outlet.open({})
        async with outlet._lock:
            opening = asyncio.create_task(outlet.open({}))
            closing = asyncio.create_task(outlet.close())
            await asyncio.sleep(0)
            opening.cancel()
        await asyncio.wait([opening, closing])
        assert (1, 1) == (len(sender.memories), sender.closed)
        await outlet.open({})
        assert 2 == len(sender.memories)
        await outlet.close()
        assert 2 == sender.closed

    run(main())


def test_a_runner_that_ends_gives_up_its_turn_and_its_requests(logs: dict[str, DataDir]) -> None:
    async def main() -> None:
        sender = FakeSender()
        sender.gate.clear()
        outlet = Outlet("hook", sender, QUICK)
        first, second, third = (runner_of(outlet, name, data) for name, data in logs.items())
        tasks = []
        for each in (first, second):
            tasks.append(asyncio.create_task(each.run()))
            await until(lambda each=each: each.queue.batches)
        assert 1 == outlet.requests
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert 0 == outlet.requests
        sender.gate.set()
        async with running(third):
            await sender.has(50)

    run(main())
