"""A whole collector process: real sockets and a real slot, without fakes."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from pixelfast.collect import Worker
from pixelfast.config import Spool
from pixelfast.errors import SpoolLocked
from pixelfast.spool import DataDir
from tests.collect.wire import GIF, TRACK, http, read_responses, statuses
from tests.collect.workers import (
    CLOSE,
    Run,
    ask,
    client,
    make_config,
    read_response,
    stored,
    working,
)
from tests.waiting import until


def test_a_pixel_is_in_the_spool_before_its_response_arrives(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with working(tmp_path) as (_, address):
            sent = await ask(address, http(TRACK.replace(b"demo", b"web"), headers=CLOSE))
            (response,) = read_responses(sent)
            assert (200, GIF) == (response.status, response.body)
            ((source, event),) = stored(tmp_path)  # before the worker stops
            assert ("web", "Opened", "127.0.0.1") == (source, event["event"], event["request_ip"])

    run(main())


def test_every_200_has_its_event_in_the_spool_when_the_worker_stops_under_load(
    run: Run, tmp_path: Path
) -> None:
    acked: set[str] = set()
    asked: set[str] = set()

    async def load(address: Any, name: int, is_enough: asyncio.Event) -> None:
        number = 0
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            async with client(address) as (reader, writer):
                while True:
                    names = [f"{name}-{number + i}" for i in range(1 + name % 5)]
                    number += len(names)
                    asked.update(names)
                    writer.write(
                        b"".join(http(TRACK.replace(b"u1", each.encode())) for each in names)
                    )
                    for each in names:
                        response = await read_response(reader)
                        assert response.startswith(b"HTTP/1.1 200 "), response[:100]
                        acked.add(each)
                    if len(acked) > 1500:
                        is_enough.set()

    async def main() -> None:
        is_enough = asyncio.Event()
        async with working(tmp_path) as (worker, address):
            clients = [asyncio.create_task(load(address, name, is_enough)) for name in range(20)]
            await is_enough.wait()
            await worker.stop()
            await asyncio.gather(*clients)
            assert set() == worker.connections.open

    run(main())
    found = [event["userId"] for _, event in stored(tmp_path)]
    assert len(set(found)) == len(found), "stored twice"
    assert acked <= set(found), "acknowledged and lost"
    assert set(found) <= asked, "stored but not sent"
    assert len(acked) > 1500
    assert len(list((tmp_path / "shards" / "0").glob("*.seg"))) > 1  # several segments are full


def test_a_stop_closes_idle_connections_and_accepts_no_new_ones(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with working(tmp_path) as (worker, address), client(address) as (reader, writer):
            writer.write(http())
            await read_response(reader)
            stopping = asyncio.create_task(worker.stop())
            assert b"" == await reader.read()
            writer.close()
            await stopping
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(*address)

    run(main())


def test_a_request_that_arrives_just_after_a_stop_begins_gets_its_response(
    run: Run, tmp_path: Path
) -> None:
    async def main() -> None:
        async with (
            working(tmp_path) as (worker, address),
            client(address) as (used, to_used),
            client(address) as (fresh, to_fresh),
        ):
            to_used.write(http())
            await read_response(used)
            await until(lambda: len(worker.connections.open) == 2)
            stopping = asyncio.create_task(worker.stop())
            await until(lambda: worker.connections.is_draining)
            for reader, writer in ((used, to_used), (fresh, to_fresh)):
                writer.write(http())
                (response,) = read_responses(await reader.read())
                assert (200, True) == (response.status, response.closes)
                writer.close()
            await stopping

    run(main())
    assert 3 == len(stored(tmp_path))


def test_a_partly_received_request_gets_its_response_before_the_stop(
    run: Run, tmp_path: Path
) -> None:
    async def main() -> None:
        async with working(tmp_path) as (worker, address), client(address) as (reader, writer):
            writer.write(http() + http()[:40])
            await read_response(reader)  # the part after it has been read too
            stopping = asyncio.create_task(worker.stop())
            await until(lambda: worker.connections.is_draining)
            writer.write(http()[40:])
            (response,) = read_responses(await reader.read())
            assert (200, True) == (response.status, response.closes)
            writer.close()
            await stopping

    run(main())
    assert 2 == len(stored(tmp_path))


def test_a_slot_has_one_worker_at_a_time(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with working(tmp_path) as (_, address):
            data = DataDir.open(tmp_path)
            second = Worker(make_config(tmp_path), data, slot=0, lock_wait_s=0.0)
            with pytest.raises(SpoolLocked, match="slot 0"):
                await second.start([])
            assert [200] == statuses(await ask(address, http(headers=CLOSE)))

    run(main())


def test_a_worker_can_stop_right_after_its_start(run: Run, tmp_path: Path) -> None:
    """Its first segment is still being created then."""

    async def main() -> None:
        for _ in range(3):
            async with working(tmp_path):
                pass

    run(main())


def test_the_next_worker_continues_in_the_same_slot(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        for number in range(3):
            async with working(tmp_path) as (_, address):
                target = TRACK.replace(b"u1", b"u%d" % number)
                assert [200] == statuses(await ask(address, http(target, headers=CLOSE)))

    run(main())
    assert ["u0", "u1", "u2"] == [event["userId"] for _, event in stored(tmp_path)]


def test_a_worker_closes_connections_that_time_out(run: Run, tmp_path: Path) -> None:
    """It checks once per second."""

    async def main() -> None:
        limits: dict[str, Any] = {"idle_timeout_s": 0.01, "header_timeout_s": 0.01}
        async with (
            working(tmp_path, **limits) as (_, address),
            client(address) as (idle, _),
            client(address) as (slow, writer),
        ):
            writer.write(b"GET /")
            assert b"" == await idle.read()
            assert [408] == statuses(await slow.read())

    run(main())


def test_stats_count_requests_and_events(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with working(tmp_path) as (worker, address):
            requests = http() * 2 + http(TRACK.replace(b"demo", b"who")) + http(b"/", headers=CLOSE)
            assert [200, 200, 401, 404] == statuses(await ask(address, requests))
            stats = worker.stats()
            totals = stats["totals"]
            assert {"200": 2, "401": 1, "404": 1} == totals["responses"]
            assert {"demo": 2} == totals["accepted_events"]
            assert {"": {"unknown-write-key": 1}} == totals["rejected_requests"]
            assert 2 == totals["untemplated_events"]["new-shape"]
            assert (0, True, 2) == (stats["slot"], stats["is_ready"], totals["stored_events"])
            assert (1, worker.connections.max_connections) == (
                totals["accepted_connections"],
                stats["max_connections"],
            )
            assert stats == orjson.loads(orjson.dumps(stats))

    run(main())


def test_histograms_count_commits_and_syncs(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with working(tmp_path) as (worker, address):
            await ask(address, http() * 3 + http(headers=CLOSE))
            totals = worker.stats()["totals"]
            for name in ("commit_durations", "sync_durations"):
                assert 1 == sum(totals[name]["counts"])
                assert 0.0 < totals[name]["sum"] < 10.0
            assert totals["sync_durations"]["sum"] < totals["commit_durations"]["sum"]
            # One commit of four events: the third bucket counts commits of 3 and 4.
            assert ([0, 0, 1] + [0] * 18, 4.0) == (
                totals["commit_events"]["counts"],
                totals["commit_events"]["sum"],
            )

    run(main())


def test_segments_are_at_most_an_eighth_of_the_collectors_share_of_the_spool(
    run: Run, tmp_path: Path
) -> None:
    config = msgspec.structs.replace(make_config(tmp_path), spool=Spool(max_bytes=4 * 2**20))

    async def main() -> None:
        worker = Worker(config, DataDir.open(tmp_path), slot=0, workers=2)
        await worker.start([])
        folder = tmp_path / "shards" / "0"
        expected = [2**18] * 2  # the one that is written, and the one made ahead
        await until(lambda: expected == [path.stat().st_size for path in folder.glob("*.seg")])
        await worker.stop()

    run(main())
