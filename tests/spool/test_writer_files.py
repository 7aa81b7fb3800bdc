"""The complete spool with real loops, files and commit threads: stored events are read."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from pixelfast.spool import (
    Committer,
    DataDir,
    Position,
    SlotFiles,
    SlotReader,
    SpoolWriter,
)
from pixelfast.spool.format import segment_name
from pixelfast.spool.segments import SegmentFile
from tests.leaks import open_fds
from tests.spool.tools import drain, events_of, read_events, read_frames

TIMEOUT_S = 5.0
SEGMENT_BYTES = 2**17

Body = Callable[[SpoolWriter], Awaitable[None]]


def on_stored(waiters: list[asyncio.Future[bool]], _: int, is_stored: bool) -> None:
    for waiter in waiters:
        waiter.set_result(is_stored)


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest, data: DataDir) -> Callable[..., None]:
    """Run a test's coroutine with a writer on a loop of either kind, then close the writer."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    async def with_writer(body: Body, files: SlotFiles, options: dict[str, Any]) -> None:
        loop = asyncio.get_running_loop()
        writer = SpoolWriter(loop, files, Committer(), ["web", "app"], on_stored, **options)
        await asyncio.wait_for(body(writer), TIMEOUT_S)
        await asyncio.wait_for(writer.close(), TIMEOUT_S)

    def run(body: Body, files: SlotFiles | None = None, **options: Any) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            slot = files or SlotFiles(data, 0, SEGMENT_BYTES)
            runner.run(with_writer(body, slot, options))

    return run


async def until_ready(writer: SpoolWriter) -> None:
    while not writer.is_ready:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0)


def add(writer: SpoolWriter, event: bytes, source: int = 0) -> asyncio.Future[bool]:
    future = asyncio.get_running_loop().create_future()
    assert writer.add(source, event, 1, future)[0] > 0
    return future


def test_acknowledged_events_are_in_the_files(run: Callable[..., None], data: DataDir) -> None:
    events = [b'{"n":%d}' % number for number in range(300)]

    async def body(writer: SpoolWriter) -> None:
        for start in range(0, 300, 30):
            told = [add(writer, event, n % 2) for n, event in enumerate(events[start : start + 30])]
            assert await asyncio.gather(*told) == [True] * 30
            assert set(events[: start + 30]) == set(read_events(data))

    run(body)
    web = [events_of([f]) for f in read_frames(data) if f.source == "web"]
    assert events[::2] == [event for each in web for event in each]


def test_segments_roll_over_under_load(run: Callable[..., None], data: DataDir) -> None:
    events = [b"%01000d" % number for number in range(1000)]

    async def body(writer: SpoolWriter) -> None:
        told = []
        for number, event in enumerate(events):
            told.append(add(writer, event))
            if number % 10 == 0:
                await asyncio.sleep(0)
        assert all(await asyncio.gather(*told))

    run(body)
    assert len(data.segments(0)) >= 8
    assert events == read_events(data)


def test_closing_under_load_stores_all_accepted_events(
    run: Callable[..., None], data: DataDir
) -> None:
    # More than the segment and the one made ahead can hold.
    events = [b"%01000d" % number for number in range(1000)]
    told: list[asyncio.Future[bool]] = []

    async def body(writer: SpoolWriter) -> None:
        await until_ready(writer)
        told.extend(add(writer, event) for event in events)

    run(body)
    assert all(future.result() for future in told)
    assert events == read_events(data)


def test_closing_right_after_the_start_ends(run: Callable[..., None], data: DataDir) -> None:
    told: list[asyncio.Future[bool]] = []

    async def body(writer: SpoolWriter) -> None:
        told.append(add(writer, b"{}"))

    run(body)
    assert [True] == [future.result() for future in told]
    assert read_events(data) == [b"{}"]


def test_each_start_continues_in_a_new_segment(run: Callable[..., None], data: DataDir) -> None:
    async def body(writer: SpoolWriter) -> None:
        assert await add(writer, b"{}")

    first: list[int] = []
    for _ in range(3):
        run(body)
        first.append(read_frames(data)[-1].segment)
    assert sorted(set(first)) == first
    assert read_events(data) == [b"{}"] * 3


def test_a_reader_follows_a_writer(run: Callable[..., None], data: DataDir) -> None:
    events = [b"%0700d" % number for number in range(600)]
    found: list[bytes] = []
    reader = SlotReader(data, 0, Position())

    async def body(writer: SpoolWriter) -> None:
        told = []
        for number, event in enumerate(events):
            told.append(add(writer, event))
            if number % 7 == 0:
                await asyncio.sleep(0)
                found.extend(events_of(reader.read()))
        await asyncio.gather(*told)

    run(body)
    found.extend(events_of(drain(reader)))
    assert events == found
    assert (0, 0) == (reader.damaged_bytes, reader.missing_segments)
    reader.close()


class FullFiles(SlotFiles):
    """The first segments are on a full device although they were created."""

    broken = 1

    def create(self) -> SegmentFile:
        segment = super().create()
        if self.broken:
            self.broken -= 1
            full = os.open("/dev/full", os.O_RDWR | os.O_CLOEXEC)
            os.dup2(full, segment.fd, inheritable=False)
            os.close(full)
        return segment


def test_a_full_device_loses_no_event(run: Callable[..., None], data: DataDir) -> None:
    async def body(writer: SpoolWriter) -> None:
        await until_ready(writer)
        told = [add(writer, b"%d" % number) for number in range(5)]
        assert await asyncio.gather(*told) == [True] * 5
        assert (1, 1) == (writer.failed_commits, writer.commits)

    run(body, FullFiles(data, 0, SEGMENT_BYTES))
    assert [b"0", b"1", b"2", b"3", b"4"] == read_events(data)
    assert (data.slot_dir(0) / segment_name(1)).read_bytes()[64:].strip(b"\0") == b""


def test_a_device_that_stays_full_is_reported(run: Callable[..., None], data: DataDir) -> None:
    files = FullFiles(data, 0, SEGMENT_BYTES)
    files.broken = 2

    async def body(writer: SpoolWriter) -> None:
        await until_ready(writer)
        assert not await add(writer, b"1")
        assert writer.rejection == "disk-full"

    run(body, files)
    assert read_events(data) == []


def test_nothing_is_left_behind(run: Callable[..., None], tmp_path: Path, data: DataDir) -> None:
    del tmp_path

    async def body(writer: SpoolWriter) -> None:
        told = [add(writer, b"%01000d" % number) for number in range(200)]
        await asyncio.gather(*told)

    run(body)
    before = open_fds(), threading.active_count()
    run(body)
    assert before == (open_fds(), threading.active_count())
    assert len(read_events(data)) == 400
