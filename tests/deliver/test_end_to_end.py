"""From the spool's files to real sockets and files, with the real senders."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pixelfast.config import (
    Config,
    FileDestination,
    HttpDestination,
    RudderstackDestination,
)
from pixelfast.spool import Committer, DataDir, SlotFiles, SpoolWriter
from tests.deliver.clocks import HandClock
from tests.deliver.runners import counters_on_disk, make_engine, running, source
from tests.deliver.running import run
from tests.deliver.spools import event, numbers_in
from tests.fake_destination import FakeDestination, FakeResponse, Request
from tests.spools import Feed, open_data
from tests.waiting import WAIT_S, until

SHORT: dict[str, Any] = {
    "concurrency": 1,
    "max_age_s": 0.01,
    "retry_first_s": 0.01,
    "retry_most_s": 0.02,
}


@pytest.fixture
def data(tmp_path: Path) -> DataDir:
    return open_data(tmp_path / "data")


@pytest.fixture
def feed(data: DataDir) -> Iterator[Feed]:
    with Feed(data, segment_bytes=4096) as feed:
        yield feed


def hook(name: str, destination: FakeDestination, **more: Any) -> HttpDestination:
    return HttpDestination(name=name, url=destination.url, **{**SHORT, **more})


def numbers(destination: FakeDestination) -> list[int]:
    return [each["n"] for each in destination.events()]


async def has(destination: FakeDestination, count: int, bound_s: float = WAIT_S) -> None:
    await until(lambda: len(set(numbers(destination))) >= count, bound_s)


def test_every_kind_of_destination_gets_every_event(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        async with FakeDestination() as one, FakeDestination() as two, FakeDestination() as three:
            url = f"http://127.0.0.1:{three.port}"
            config = Config(
                destinations=(
                    FileDestination(name="archive"),
                    hook("array", one, max_events=7),
                    hook("lines", two, format="ndjson", gzip=True),
                    RudderstackDestination(name="rudder", url=url, write_key="k", **SHORT),
                )
            )
            async with running(make_engine(data, config=config)):
                for n in range(100):
                    feed.write(event(n))
                for destination in (one, two, three):
                    await has(destination, 100)
                await until(lambda: len(numbers_in(data.events_dir("archive"))) == 100)
            for destination in (one, two, three):
                assert list(range(100)) == numbers(destination)
                assert 1 == destination.connections
            assert list(range(100)) == numbers_in(data.events_dir("archive"))
            assert all(len(request.events()) <= 7 for request in one.requests)

    run(main())


def test_a_destination_that_was_down_gets_all_events_when_it_is_up(
    data: DataDir, feed: Feed
) -> None:
    async def main() -> None:
        async with FakeDestination() as up, FakeDestination(is_up=False) as down:
            config = Config(destinations=(hook("up", up), hook("down", down, max_events=10)))
            engine = make_engine(data, config=config)
            async with running(engine):
                for n in range(200):
                    feed.write(event(n))
                await has(up, 200)
                figures = engine.stats()["destinations"]
                await until(lambda: engine.stats()["destinations"]["down"].get("failures", 0) > 1)
                assert [] == down.requests
                assert figures["up"].get("failures", 0) == 0
                await down.go_up()
                await has(down, 200)
            assert list(range(200)) == numbers(up)
            assert list(range(200)) == numbers(down)

    run(main())


def test_a_stop_delivers_stored_events_and_does_not_wait_for_a_destination_that_is_down(
    data: DataDir, feed: Feed
) -> None:
    async def main() -> None:
        never = [FakeResponse(first="never")] * 100
        async with (
            FakeDestination() as up,
            FakeDestination(is_up=False) as down,
            FakeDestination(never) as deaf,
        ):
            config = Config(
                destinations=(
                    hook("up", up, max_age_s=1000.0),
                    hook("down", down, retry_first_s=1000.0, retry_most_s=1000.0),
                    hook("deaf", deaf, timeout_s=0.3),
                )
            )
            for n in range(50):
                feed.write(event(n))
            clock = HandClock(a_look_s=1e-6).clock  # `stop_s` never passes
            engine = make_engine(data, config=config, clock=clock)
            async with running(engine):
                await until(lambda: engine.stats()["destinations"]["down"].get("failures"))
                await deaf.received(1)
            assert list(range(50)) == numbers(up)
            assert 50 == counters_on_disk(data, "up")["delivered"]
            assert "delivered" not in counters_on_disk(data, "down")

    run(main())


def test_restarts_lose_and_repeat_no_event(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        async with FakeDestination() as destination:
            config = Config(
                destinations=(hook("hook", destination, max_events=3), FileDestination(name="file"))
            )
            for start in range(0, 60, 10):
                async with running(make_engine(data, config=config)):
                    for n in range(start, start + 10):
                        feed.write(event(n))
                    await has(destination, start + 5)
            assert list(range(60)) == numbers(destination)
            assert list(range(60)) == numbers_in(data.events_dir("file"))

    run(main())


def test_single_events_survive_an_invalid_response_between_two_attempts(
    data: DataDir, feed: Feed
) -> None:
    """After a rejection and an invalid response, each event is delivered."""
    strange = (("Retry-After", "Mon, 23 Nov 99999999999 10:00:00 GMT"),)
    responses = [FakeResponse(503)] * 32 + [FakeResponse(503, strange)] + [FakeResponse(503)] * 3

    async def main() -> None:
        taken: list[int] = []

        def script(request: Request) -> FakeResponse:
            response = responses.pop(0) if responses else FakeResponse()
            if response.status == 200:
                taken.append(request.events()[0]["n"])
            return response

        async with FakeDestination(script) as destination:
            single = hook("single", destination, format="single", max_events=200)
            feed.write(*map(event, range(100)))
            engine = make_engine(data, config=Config(destinations=(single,)))
            async with running(engine):
                await until(lambda: engine.runners[0].cursors == {0: feed.position})
            assert set() == set(range(100)) - set(taken)

    run(main())


def test_a_bad_network_loses_invents_and_changes_no_event(data: DataDir) -> None:
    """The spool writers of collectors, and a destination that fails at random."""
    chance = random.Random(7)
    bad = [
        FakeResponse(503),
        FakeResponse(429, (("Retry-After", "0"),)),
        FakeResponse(500, then="close"),
        FakeResponse(first="reset"),
        FakeResponse(body=b"x" * 5000, then="cut"),
        FakeResponse(raw=b"HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\n", then="close"),
        FakeResponse(raw=b"", then="close"),
    ]
    sources = (source("web", "flaky", "steady"), source("mail", "steady"))
    acked: dict[str, list[int]] = {"web": [], "mail": []}

    async def write(slot: int, count: int) -> None:
        loop = asyncio.get_running_loop()
        files = SlotFiles(data, slot, 2**17)

        def on_stored(waiters: list[tuple[str, int]], _: int, is_stored: bool) -> None:
            assert is_stored
            for name, number in waiters:
                acked[name].append(number)

        names = [each.name for each in sources]
        writer = SpoolWriter(loop, files, Committer(), names, on_stored)
        await until(lambda: writer.is_ready)
        for n in range(count):
            number = 10 * n + slot
            which = chance.randrange(2)
            body = event(number, padding=chance.randrange(300))
            assert writer.add(which, body, time.time_ns() // 1_000_000, (names[which], number))[0]
            if n % 20 == 0:
                await asyncio.sleep(0)
        await until(lambda: writer.waiting_bytes == 0)
        await writer.close()

    def settled(name: str) -> int:
        counted = counters_on_disk(data, name)
        return counted.get("delivered", 0) + counted.get("filtered", 0)

    async def main() -> None:
        def script(_: Request) -> FakeResponse:
            return chance.choice(bad) if chance.random() < 0.4 else FakeResponse()

        async with FakeDestination(script) as flaky, FakeDestination() as steady:
            config = Config(
                sources=sources,
                destinations=(
                    hook("flaky", flaky, max_events=10),
                    hook("steady", steady, max_events=100),
                ),
            )
            engine = make_engine(data, config=config)
            async with running(engine):
                await asyncio.gather(write(0, 1500), write(1, 1500))
                flaky_count, count = len(acked["web"]), len(acked["web"]) + len(acked["mail"])
                assert 3000 == count
                await has(steady, count)
                await has(flaky, flaky_count, bound_s=60.0)
                # Received events may not be settled yet, because the response may be lost.
                await until(lambda: settled("flaky") == settled("steady") == count)
            assert set(acked["web"]) == set(numbers(flaky))
            assert Counter(acked["web"] + acked["mail"]) == Counter(numbers(steady))
            for slot in range(2):
                once = dict.fromkeys(n for n in numbers(flaky) if n % 10 == slot)
                assert [n for n in acked["web"] if n % 10 == slot] == list(once), "in order"
            assert all(set(each) == {"n", "p"} for each in flaky.events())
            assert [count, count] == [settled("flaky"), settled("steady")]

    run(main(), bound_s=90.0)


KILLED = """
import json, sys, uvloop
from pixelfast.config import Config, FileDestination, HttpDestination
from pixelfast.deliver.timing import Timings
from pixelfast.deliver.engine import Engine
from pixelfast.spool import DataDir
url, folder = sys.argv[1:]
hook = HttpDestination(name="hook", url=url, max_events=3, max_age_s=0.01, concurrency=1)
config = Config(destinations=(hook, FileDestination(name="file", rotate_bytes=1024)))
timings = Timings(min_look_pause_s=0.001)
uvloop.run(Engine(config, DataDir.open(folder), timings=timings).run())
"""


def test_kills_at_any_moment_lose_no_event(data: DataDir, feed: Feed) -> None:
    chance = random.Random(3)

    async def main() -> None:
        async with FakeDestination() as destination:
            written = 0
            for turn in range(4):
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-c", KILLED, destination.url, str(data.path)
                )
                try:
                    left = chance.randrange(100)  # events until it is killed
                    while left > 0:
                        feed.write(event(written, padding=100))
                        written += 1
                        await asyncio.sleep(0.001)  # the pace of pixels
                        left -= len(destination.requests) > 3 * turn
                finally:
                    process.send_signal(signal.SIGKILL)
                    await asyncio.wait_for(process.wait(), WAIT_S)
            config = Config(destinations=(hook("hook", destination), FileDestination(name="file")))
            async with running(make_engine(data, config=config)):
                await has(destination, written)
                await until(lambda: len(set(numbers_in(data.events_dir("file")))) >= written)
            assert set(range(written)) == set(numbers(destination))
            firsts = list(dict.fromkeys(numbers(destination)))
            assert list(range(written)) == firsts, "in order, except repeated events"
            assert set(range(written)) == set(numbers_in(data.events_dir("file")))
            assert json.loads((data.path / "META").read_text())["format"] == 2

    run(main(), bound_s=60.0)
