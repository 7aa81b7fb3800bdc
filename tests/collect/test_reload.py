"""A collector whose settings change between two requests."""

from __future__ import annotations

from pathlib import Path

import msgspec

from pixelfast.collect import Worker
from pixelfast.collect.budgets import RateBudgets
from pixelfast.config import Config, Server, Source, WriteKey
from pixelfast.spool import DataDir
from tests.collect.wire import TRACK, ask, http
from tests.collect.workers import Run, client, make_config, read_response, stored, working
from tests.fakes import DEMO, FakeCollector
from tests.waiting import until


def source(name: str, key: str = "", **more: object) -> Source:
    return Source(name=name, write_keys=(WriteKey(key=key or f"wk-{name}"),), **more)  # type: ignore[arg-type]


def test_sources_keep_their_numbers_and_counts() -> None:
    fake = FakeCollector((DEMO, source("shop")))
    for key in (b"wk-shop", b"wk-demo", b"wk-none"):
        ask(fake, http(TRACK.replace(b"wk-demo", key)))
    sources = fake.collector.sources
    sources.follow([source("app"), source("shop", "wk-next")])
    assert [("demo", 0, 1), ("shop", 1, 1), ("app", 2, 0)] == [
        (each.name, each.number, each.accepted) for each in sources.all
    ]
    assert {"unknown-write-key": 1} == sources.unknown.rejected
    responses = [
        ask(fake, http(TRACK.replace(b"wk-demo", key))).status
        for key in (b"wk-demo", b"wk-shop", b"wk-next")
    ]
    assert [401, 401, 200] == responses
    sources.follow([DEMO])
    assert 0 == sources.check("wk-demo", 0).number


def test_new_rules_apply_although_a_template_exists() -> None:
    fake = FakeCollector((DEMO,))
    target = TRACK + b"&properties.price=7"
    for _ in range(40):
        ask(fake, http(target))
    fake.collector.sources.follow([source("demo", strings=("properties.price",))])
    ask(fake, http(target))
    events = [event for _, event in fake.disk.events()]
    assert b'"price":7' in events[-2]
    assert b'"price":"7"' in events[-1]


def test_an_unchanged_rate_limit_keeps_its_state() -> None:
    limited = source("demo", rate_limit=2.0)
    fake = FakeCollector((limited,))
    budgets = RateBudgets.private(["demo"])
    fake.collector.sources.follow([limited], budgets)

    def statuses() -> list[int]:
        return [ask(fake, http()).status for _ in range(3)]

    assert [200, 200, 429] == statuses()
    fake.collector.sources.follow([limited], budgets)
    assert [429, 429, 429] == statuses()
    fake.collector.sources.follow([DEMO], budgets)
    assert [200, 200, 200] == statuses()


def test_a_new_health_path_and_always_200_apply() -> None:
    fake = FakeCollector(health_path="/health")
    unknown = http(TRACK.replace(b"wk-demo", b"wk-none"))
    assert [200, 401] == [ask(fake, each).status for each in (http(b"/health"), unknown)]
    fake.collector.follow((), True, "/up")
    assert [404, 200, 200] == [
        ask(fake, each).status for each in (http(b"/health"), http(b"/up"), unknown)
    ]


def test_a_raised_connection_limit_applies_immediately() -> None:
    fake = FakeCollector(connections={"max_connections": 1})
    fake.connect()
    assert 503 == ask(fake, http()).status
    fake.connections.follow(max_connections=3)
    assert 200 == ask(fake, http()).status


def accepted_by(worker: Worker) -> int:
    return sum(each.accepted for each in worker.collector.sources.all)


def test_events_that_wait_for_the_disk_keep_their_sources(run: Run, tmp_path: Path) -> None:
    """Requests continue while sources are added, removed and reordered."""

    def settings(*names: str) -> Config:
        return msgspec.structs.replace(
            make_config(tmp_path), sources=tuple(source(name) for name in names)
        )

    rounds = [("app", "web"), ("web",), ("new", "web", "app"), ("web", "app", "more")]

    async def main() -> None:
        sent = 0
        async with working(tmp_path) as (worker, address), client(address) as (reader, writer):
            for n in range(40):
                names = rounds[n % len(rounds)]
                worker.reload(settings(*names))
                for name in names:
                    target = TRACK.replace(b"demo", name.encode())
                    writer.write(http(target.replace(b"Opened", name.encode())))
                sent += len(names)
                # The events are buffered and not stored yet when the settings change.
                await until(lambda wanted=sent: accepted_by(worker) == wanted)
            for _ in range(sent):
                assert b" 200 " in await read_response(reader)
        found = stored(tmp_path)
        assert sent == len(found)
        assert [name for name, _ in found] == [event["event"] for _, event in found]

    run(main())


def test_a_worker_that_has_not_started_applies_new_settings(run: Run, tmp_path: Path) -> None:
    """A collector may wait a long time for its slot."""

    async def main() -> None:
        async with working(tmp_path):
            other = Worker(make_config(tmp_path), DataDir.open(tmp_path), slot=1)
            other.reload(msgspec.structs.replace(make_config(tmp_path), sources=(source("new"),)))
            await other.start([])
            assert [b"demo", b"web", b"new"] == other.collector.writer.names
            await other.stop()

    run(main())


def test_new_limits_of_a_worker_apply(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with working(tmp_path) as (worker, address), client(address) as (reader, writer):
            server = Server(header_timeout_s=0.01, trusted_proxies=())
            worker.reload(msgspec.structs.replace(make_config(tmp_path), server=server))
            writer.write(b"GET /pixel")
            assert b" 408 " in await read_response(reader)

    run(main())
