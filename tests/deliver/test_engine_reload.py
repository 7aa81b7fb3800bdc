"""An engine that gets new settings while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import pytest

from pixelfast.config import Config, Destination
from pixelfast.deliver.engine import Engine, register_destinations
from pixelfast.deliver.sender import Sender
from pixelfast.deliver.timing import DeliveryClock
from pixelfast.spool import DataDir
from tests.deliver.runners import QUICK, FakeSender, reclaimed, running, settings, source
from tests.deliver.running import run
from tests.deliver.spools import event
from tests.spools import Feed
from tests.waiting import until


class Senders:
    """Makes senders, and keeps those of each destination."""

    def __init__(self) -> None:
        self.made: dict[str, list[FakeSender]] = {}

    def __call__(self, destination: Destination, _data: DataDir, _clock: DeliveryClock) -> Sender:
        sender = FakeSender()
        self.made.setdefault(destination.name, []).append(sender)
        return sender

    def numbers(self, name: str) -> list[int]:
        return [n for sender in self.made.get(name, []) for n in sender.numbers]


def make(data: DataDir, config: Config) -> tuple[Engine, Senders]:
    senders = Senders()
    register_destinations(config, data)
    return Engine(config, data, timings=QUICK, make_sender=senders), senders


def changed(config: Config, name: str, **more: object) -> Config:
    """Return the settings with changes of one destination."""
    return msgspec.structs.replace(
        config,
        destinations=tuple(
            msgspec.structs.replace(each, **more) if each.name == name else each
            for each in config.destinations
        ),
    )


async def reload(engine: Engine, config: Config, data: DataDir) -> None:
    register_destinations(config, data)
    await engine.reload(config)


def test_an_unchanged_destination_continues_without_interruption(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        engine, senders = make(data, settings("same", "other"))
        async with running(engine):
            feed.write(event(0))
            await until(lambda: senders.numbers("same") == senders.numbers("other") == [0])
            same = senders.made["same"][0]
            same.gate.clear()
            feed.write(event(1))
            await until(lambda: same.under_way == 1)
            await reload(engine, changed(settings("same", "other"), "other", gzip=True), data)
            assert (1, 0) == (same.under_way, same.closed), "its request is still under way"
            same.gate.set()
            await until(lambda: senders.numbers("same") == senders.numbers("other") == [0, 1])
        assert [1, 2] == [len(senders.made[name]) for name in ("same", "other")]

    run(main())


def test_reloads_lose_and_repeat_no_event(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        config = settings("hook")
        engine, senders = make(data, config)
        async with running(engine):
            for n in range(60):
                feed.write(event(n))
                if n % 3 == 0:
                    await reload(engine, changed(config, "hook", max_events=n + 1), data)
            await until(lambda: len(senders.numbers("hook")) >= 60)
        assert list(range(60)) == senders.numbers("hook")
        assert 21 == len(senders.made["hook"])

    run(main())


def test_a_new_destination_gets_later_events(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        engine, senders = make(data, settings("first"))
        async with running(engine):
            feed.write(event(0))
            await reload(engine, settings("first", "second"), data)
            feed.write(event(1))
            await until(lambda: senders.numbers("second") == [1])
            await until(lambda: senders.numbers("first") == [0, 1])
            assert {"first", "second"} == engine.stats()["destinations"].keys()

    run(main())


def test_a_removed_destination_keeps_its_events_and_gets_them_when_it_returns(
    data: DataDir, feed: Feed
) -> None:
    async def main() -> None:
        engine, senders = make(data, settings("stays", "goes"))
        async with running(engine):
            feed.write(event(0))
            await until(lambda: senders.numbers("stays") == senders.numbers("goes") == [0])
            await reload(engine, settings("stays"), data)
            assert ["stays"] == [runner.name for runner in engine.runners]
            assert 1 == senders.made["goes"][0].closed
            for n in range(1, 20):
                feed.write(event(n))
                feed.roll()
            await until(lambda: len(senders.numbers("stays")) == 20)
            await reclaimed(engine)
            await reload(engine, settings("stays", "goes"), data)
            await until(lambda: len(senders.numbers("goes")) == 20)
        assert list(range(20)) == senders.numbers("goes")

    run(main())


def test_a_destination_that_returns_keeps_its_events_while_another_one_stops(
    data: DataDir, feed: Feed
) -> None:
    """It has no runner until the other one has stopped."""

    async def main() -> None:
        config = settings("stays", "goes", "slow")
        engine, senders = make(data, config)
        async with running(engine):
            await until(lambda: set(senders.made) == {"stays", "goes", "slow"})
            slow = senders.made["slow"][0]
            await reload(engine, settings("stays", "slow"), data)
            for n in range(20):
                feed.write(event(n))
                feed.roll()
            await until(lambda: len(senders.numbers("stays")) == len(senders.numbers("slow")) == 20)
            slow.gate.clear()
            feed.write(event(20))
            await until(lambda: slow.under_way == 1)
            reloading = asyncio.create_task(
                reload(engine, changed(config, "slow", gzip=True), data)
            )
            await reclaimed(engine)
            assert not reloading.done(), "it waits for the request under way"
            slow.gate.set()
            await reloading
            await until(lambda: len(senders.numbers("goes")) == 21)
        assert list(range(21)) == senders.numbers("goes")

    run(main())


def test_segments_are_kept_while_a_destination_changes(data: DataDir, feed: Feed) -> None:
    """Its runner has stopped, and the next one has not read its state yet."""

    async def main() -> None:
        config = settings("fast", "slow")
        engine, senders = make(data, config)
        async with running(engine):
            await until(lambda: set(senders.made) == {"fast", "slow"})
            slow = senders.made["slow"][0]
            slow.gate.clear()
            for n in range(30):
                feed.write(event(n))
                feed.roll()
            await until(lambda: len(senders.numbers("fast")) == 30)
            reloading = asyncio.create_task(
                reload(engine, changed(config, "slow", gzip=True), data)
            )
            await reclaimed(engine)
            assert not reloading.done(), "it waits for the request under way"
            slow.gate.set()
            await reloading
            await until(lambda: len(senders.numbers("slow")) >= 30)
        assert list(range(30)) == senders.numbers("slow")

    run(main())


def test_changes_of_sources_apply_without_a_restart(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        def with_sources(*sources: str) -> Config:
            own = tuple(source(each, *([] if each == "web" else ["one"])) for each in sources)
            return settings("one", "two", sources=own)

        engine, senders = make(data, with_sources("web"))
        two: Callable[[], list[int]] = lambda: senders.numbers("two")  # noqa: E731
        async with running(engine):
            feed.write(event(0), source="web")
            await until(lambda: two() == [0])
            await reload(engine, with_sources("web", "app"), data)
            feed.write(event(1), source="app")
            feed.write(event(2), source="web")
            await until(lambda: two() == [0, 2])
            senders.made["two"][0].gate.clear()
            for n in range(3, 40):
                feed.write(event(n), source="app" if n % 2 else "web")
            await reload(engine, with_sources("web"), data)  # its events are still in the spool
            senders.made["two"][0].gate.set()
            await until(lambda: len(senders.numbers("one")) == 40)
            await until(lambda: two() == [0, *range(2, 40, 2)])
        assert [1, 1] == [len(senders.made[name]) for name in ("one", "two")]

    run(main())


@pytest.mark.parametrize("turns", [0, 1, 2, 4, 8, 32])
def test_a_stop_during_a_reload_ends_it(data: DataDir, feed: Feed, turns: int) -> None:
    async def main() -> None:
        config = settings("hook")
        engine, senders = make(data, config)
        async with running(engine):
            await until(lambda: "hook" in senders.made)
            hook = senders.made["hook"][0]
            hook.gate.clear()
            feed.write(event(0))
            await until(lambda: hook.under_way == 1)
            reloading = asyncio.create_task(
                reload(engine, changed(config, "hook", gzip=True), data)
            )
            for _ in range(turns):
                await asyncio.sleep(0)
            engine.stop()
            hook.gate.set()
            await reloading
        assert 1 == len(senders.made["hook"])

    run(main())


def test_the_count_of_deleted_archive_files_survives_a_reload(data: DataDir) -> None:
    def deleted(engine: Engine) -> dict[str, dict[str, int]]:
        return {name: dict(own) for name, own in engine.stats()["totals"]["senders"].items()}

    async def main() -> None:
        config = settings("one", "two")
        engine, senders = make(data, config)
        figures: dict[str, float] = {"archive_deleted_files": 3, "archive_deleted_bytes": 700}
        for name in ("one", "two"):
            senders.made[name][0].figures = figures.copy  # type: ignore[method-assign]
        async with running(engine):
            assert {"one": figures, "two": figures} == deleted(engine)
            await reload(engine, changed(config, "one", gzip=True), data)
            assert {"one": figures, "two": figures} == deleted(engine)
            senders.made["one"][1].figures = figures.copy  # type: ignore[method-assign]
            twice = {name: 2 * count for name, count in figures.items()}
            await reload(engine, settings("two"), data)
            assert {"one": twice, "two": figures} == deleted(engine)

    run(main())


def test_a_changed_certificate_file_is_a_change_of_its_destination(data: DataDir) -> None:
    path = data.path / "ca.pem"
    path.write_text("one")
    config = changed(
        settings("hook", "plain"), "hook", url="https://127.0.0.1:1/", tls_ca=str(path)
    )

    async def main() -> None:
        engine, senders = make(data, config)
        async with running(engine):
            await reload(engine, config, data)
            path.with_suffix(".new").write_text("two")
            path.with_suffix(".new").replace(path)
            await reload(engine, config, data)
        assert [2, 1] == [len(senders.made[name]) for name in ("hook", "plain")]

    run(main())
