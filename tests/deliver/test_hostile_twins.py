"""Every type of destination beside one that does everything legal and illegal, slow and fast."""

from __future__ import annotations

import asyncio
import http.client
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp.client_proto import ResponseHandler

from pixelfast.config import (
    ClickhouseDestination,
    Config,
    Destination,
    ElasticsearchDestination,
    FileDestination,
    HttpDestination,
    PosthogDestination,
    RudderstackDestination,
    SegmentDestination,
)
from pixelfast.deliver.engine import Engine
from pixelfast.spool import DataDir
from tests.deliver.hostile import BEHAVIOURS
from tests.deliver.products.clickhouse import Clickhouse
from tests.deliver.products.elasticsearch import Elasticsearch
from tests.deliver.products.events import tracked
from tests.deliver.products.posthog import Posthog
from tests.deliver.products.segment import BatchApi
from tests.deliver.runners import make_engine, running
from tests.deliver.running import run, watch
from tests.fake_destination import FakeDestination
from tests.spools import Feed, open_data
from tests.waiting import until

EVENTS = 60
MAX_TURN_S = 0.1  # of CPU time, with all doubles in the same loop; interim responses took seconds
SHORT = {"max_age_s": 0.01, "retry_first_s": 0.01, "retry_most_s": 0.02}


@pytest.fixture(scope="session")
def hostile() -> Iterator[str]:
    """The URL of the hostile process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.deliver.hostile"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.stdin.close()
        process.stdout.close()
        process.kill()
        process.wait()


@pytest.fixture
def data(tmp_path: Path) -> DataDir:
    return open_data(tmp_path / "data")


@pytest.fixture
def segment_bytes() -> int:
    return 65536


def destinations_at(url: str, prefix: str, timeout_s: float) -> list[Destination]:
    """Return a destination of each type that uses HTTP."""
    more: dict[str, Any] = {"url": url, "timeout_s": timeout_s, **SHORT}
    return [
        HttpDestination(name=f"{prefix}-array", **more),
        HttpDestination(name=f"{prefix}-single", format="single", **more),
        RudderstackDestination(name=f"{prefix}-rudderstack", write_key="wk_1", **more),
        SegmentDestination(name=f"{prefix}-segment", write_key="wk_1", **more),
        PosthogDestination(name=f"{prefix}-posthog", api_key="phc_1", **more),
        ClickhouseDestination(name=f"{prefix}-clickhouse", table="events", **more),
        ElasticsearchDestination(name=f"{prefix}-elasticsearch", index="events", **more),
    ]


class Doubles:
    """The good destinations, and how many events each has."""

    def __init__(self, data: DataDir) -> None:
        self.clickhouse, self.elasticsearch, self.posthog = Clickhouse(), Elasticsearch(), Posthog()
        self.segment, self.rudderstack = BatchApi(), BatchApi(is_rudderstack=True)
        self.hooks: list[FakeDestination] = []
        self._folder = data.events_dir("good-file")
        self.settings: list[Destination] = [FileDestination(name="good-file")]

    @asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        scripts: list[Any] = [
            (),
            (),
            self.rudderstack,
            self.segment,
            self.posthog,
            self.clickhouse,
            self.elasticsearch,
        ]
        async with AsyncExitStack() as stack:
            for n, script in enumerate(scripts):
                fake = await stack.enter_async_context(FakeDestination(script))
                url = f"http://127.0.0.1:{fake.port}"
                self.settings.append(destinations_at(url, "good", timeout_s=20.0)[n])
                self.hooks.append(fake)
            yield

    def counts(self) -> dict[str, int]:
        found = {
            name: len(made.events)
            for name, made in (
                ("rudderstack", self.rudderstack),
                ("segment", self.segment),
                ("posthog", self.posthog),
            )
        }
        found["clickhouse"] = len(self.clickhouse.rows)
        found["elasticsearch"] = len(self.elasticsearch.documents)
        found["array"] = sum(len(request.events()) for request in self.hooks[0].requests)
        found["single"] = len(self.hooks[1].requests)
        files = self._folder.glob("*.ndjson") if self._folder.exists() else ()
        found["file"] = sum(path.read_bytes().count(b"\n") for path in files)
        return found


def figures_of(engine: Engine) -> list[dict[str, Any]]:
    """Return the engine's figures of the good destinations."""
    found: Any = engine.stats()["destinations"]
    return [each for name, each in found.items() if name.startswith("good-")]


def served_by(url: str, behaviour: str) -> int:
    """Return how many requests this behaviour has had."""
    with closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=5.0)) as connection:
        connection.request("GET", f"/served/{behaviour}")
        return int(connection.getresponse().read())


@pytest.mark.usefixtures("small_heap")
@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_a_hostile_destination_of_every_type_delays_no_good_one(
    behaviour: str,
    hostile: str,
    data: DataDir,
    feed: Feed,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parsed: list[int] = []
    receive = ResponseHandler.data_received

    def counted(handler: ResponseHandler, piece: bytes) -> None:
        parsed.append(len(piece))
        receive(handler, piece)

    monkeypatch.setattr(ResponseHandler, "data_received", counted)
    turns_s: list[float] = []
    before = served_by(hostile, behaviour)

    async def main() -> None:
        good = Doubles(data)
        async with good.served():
            twins = destinations_at(f"{hostile}/{behaviour}", "bad", timeout_s=0.5)
            engine = make_engine(data, config=Config(destinations=(*good.settings, *twins)))
            async with running(engine):
                await until(lambda: engine.stats()["is_ready"])
                watcher = asyncio.create_task(watch(turns_s))
                for n in range(EVENTS):
                    feed.write(tracked(n))
                    if n % 10 == 9:  # in several batches
                        await until(lambda n=n: min(good.counts().values()) > n)
                await until(lambda: set(good.counts().values()) == {EVENTS}, bound_s=20.0)
                watcher.cancel()
                await until(
                    lambda: {EVENTS} == {each.get("delivered") for each in figures_of(engine)}
                )
                assert {0} == {each.get("failures", 0) for each in figures_of(engine)}
                await until(lambda: served_by(hostile, behaviour) - before >= len(twins))

    run(main(), bound_s=40.0)
    slice_bytes = 65_536 if behaviour == "deep" else 4096  # a body with a length is only copied
    assert max(parsed) <= slice_bytes, "no more of a response is parsed at once"
    assert max(turns_s) < MAX_TURN_S
