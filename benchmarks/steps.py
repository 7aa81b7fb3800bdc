"""The steps from a request to a stored event, which `bench_micro` measures one by one."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from select import POLLIN, poll
from typing import Any, NamedTuple

from benchmarks.backlog import SOURCE, events, fill
from benchmarks.corpus import DOCUMENTED, HEADERS, targets
from pixelfast.collect import Collector, Connection, Connections
from pixelfast.collect.clock import Clock
from pixelfast.collect.responses import Responses
from pixelfast.collect.sources import Sources
from pixelfast.config import Config, Source, WriteKey
from pixelfast.deliver.batches import Batch as Sent
from pixelfast.deliver.batches import BatchLimits
from pixelfast.deliver.cutter import Cutter
from pixelfast.event import EventWriter, Rules
from pixelfast.spool import Committer, DataDir, SpoolWriter
from pixelfast.spool.batch import CommitBatch
from pixelfast.spool.format import SegmentId
from pixelfast.spool.segments import SegmentFile

__all__ = ["Step", "open_steps"]

NOW_MS = 1_795_342_530_123
WRITE_KEY = "wk-demo"
A_TURN = 64  # requests that one turn of the loop reads
A_COMMIT = 256  # events
A_BATCH = 500  # events of one send
LOGGED = 20_000  # events that delivery cuts from
FILE_BYTES = 64 * 2**20


class Step(NamedTuple):
    """A step that is repeated."""

    name: str
    run: Callable[[], object]
    calls: int  # of what is measured, in one run
    counted: int  # runs under callgrind


@contextmanager
def open_steps() -> Iterator[list[Step]]:
    """Yield all steps in their order, and delete their files afterwards."""
    with tempfile.TemporaryDirectory(prefix="pixelfast-bench-") as place:
        folder = Path(place)
        with _commit_steps(folder) as commits:
            yield [
                *_event_steps(),
                *_request_steps(),
                *_batch_steps(),
                *commits,
                *_delivery_steps(folder),
            ]


def _event_steps() -> list[Step]:
    events, by_orjson, rules = EventWriter(), EventWriter(uses_templates=False), Rules()
    documented = DOCUMENTED.encode()
    corpus = itertools.cycle([target.encode() for target in targets(WRITE_KEY)])
    unseen = (documented + b"&properties.%x=1" % n for n in itertools.count())

    def find() -> None:
        events.open(documented)

    def whole(target: bytes = documented, events: EventWriter = events) -> None:
        events.open(target)
        events.write(rules, NOW_MS, address="203.0.113.7")

    def whole_corpus() -> None:
        whole(next(corpus))

    def encode() -> None:
        whole(documented, by_orjson)

    def encode_unseen() -> None:
        whole(next(unseen))

    for _ in range(10):
        whole()
    if not events.from_templates:
        raise RuntimeError("the documented call has no template")
    return [
        Step("find the parameters", find, 1, 1000),
        Step("+ stamp and encode: the whole", whole, 1, 1000),
        Step("the whole, 1,000 different URLs", whole_corpus, 1, 1000),
        Step("no template: decode, stamp, encode by orjson", encode, 1, 1000),
        Step("the same, with a key that was never seen", encode_unseen, 1, 1000),
    ]


class _Loop:
    """An event loop that a step turns, and a disk that completes at once."""

    done_fd = -1
    slot = 0
    segment_bytes = 2**40
    next_number = 0
    is_busy = False

    def __init__(self) -> None:
        self._ready: list[Callable[[], None]] = []
        self._on_done: Callable[[], None] = lambda: None

    def time(self) -> float:
        return 0.0

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._ready.append(callback)

    def call_later(self, *_: Any) -> None:
        """Do nothing, because no time passes."""

    def add_reader(self, _: int, callback: Callable[[], None]) -> None:
        self._on_done = callback

    def run_in_executor(self, _: None, function: Callable[..., Any], *arguments: Any) -> Any:
        done: Future[Any] = Future()
        done.set_result(function(*arguments))
        return done

    def create(self) -> SegmentFile:
        return SegmentFile(SegmentId(bytes(16), 0, 1), Path("none"), -1)

    def measure(self, _: SegmentFile | None) -> tuple[int, int]:
        return 0, 2**40

    def submit(self, *_: Any) -> None:
        """Do nothing, because a job completes at once."""

    def finish(self) -> int:
        return 0

    def turn(self) -> None:
        """Commit the events and send the responses."""
        ready, self._ready = self._ready, []
        for callback in ready:
            callback()
        self._on_done()


class _Transport:
    """A transport that sends nothing."""

    def __init__(self) -> None:
        self.last = b""

    def get_extra_info(self, name: str) -> tuple[str, int] | None:
        return ("127.0.0.1", 40000) if name == "peername" else None

    def set_write_buffer_limits(self, _: int) -> None:
        """Do nothing, because nothing is buffered."""

    def write(self, data: bytes) -> None:
        self.last = data

    def take(self) -> bytes:
        taken, self.last = self.last, b""
        return taken


def _request_steps() -> list[Step]:
    config = Config(sources=(Source(name=SOURCE, write_keys=(WriteKey(key=WRITE_KEY),)),))
    collector = Collector(
        Sources(config.sources),
        Responses(),
        Clock(),
        trusted_proxies=config.server.trusted_proxies,
    )
    all_connections = Connections(collector)
    loop: Any = _Loop()
    collector.writer = SpoolWriter(loop, loop, loop, [SOURCE], all_connections.on_stored)
    peers: list[tuple[Connection, _Transport]] = []
    for _ in range(A_TURN):
        connection, transport = all_connections.connect(), _Transport()
        connection.connection_made(transport)  # type: ignore[arg-type]
        peers.append((connection, transport))
    headers = "".join(f"{name}: {text}\r\n" for name, text in HEADERS.items())
    tails = [f"{target} HTTP/1.1\r\n{headers}\r\n".encode() for target in targets(WRITE_KEY)]
    heads = itertools.cycle([b"HEAD " + tail for tail in tails])
    plain = f"GET /robots.txt HTTP/1.1\r\n{headers}\r\n".encode()
    gets = itertools.cycle([b"GET " + tail for tail in tails])

    def take_responses() -> None:
        for _, transport in peers:
            response = transport.take()
            if not response.startswith(b"HTTP/1.1 200 "):
                raise RuntimeError(f"not a 200: {response!r}")

    def scanned() -> None:
        for connection, _ in peers:
            connection.data_received(plain)
        take_responses()

    def parsed() -> None:
        for connection, _ in peers:
            connection.data_received(next(heads))
        take_responses()

    def pixel() -> None:
        for connection, _ in peers:
            connection.data_received(next(gets))
        loop.turn()
        take_responses()

    return [
        Step("a request without an event, by the scan (GET)", scanned, A_TURN, 20),
        Step("a request without an event, by httptools (HEAD)", parsed, A_TURN, 20),
        Step("a pixel, without the kernel and the disk", pixel, A_TURN, 20),
    ]


def _batch_steps() -> list[Step]:
    own, names, segment = events()[:A_COMMIT], [SOURCE.encode()], SegmentId(bytes(16), 0, 1)
    batch, sealed = CommitBatch(), _batch(own)

    def gather() -> None:
        batch.clear()
        for event in own:
            batch.add(0, event, NOW_MS)

    def seal() -> None:
        sealed.seal(names, segment, 64)

    return [
        Step("add an event to the open batch", gather, A_COMMIT, 10),
        Step("seal it, an event of 256", seal, A_COMMIT, 10),
    ]


def _batch(own: list[bytes]) -> CommitBatch:
    batch = CommitBatch()
    for event in own:
        batch.add(0, event, NOW_MS)
    return batch


@contextmanager
def _commit_steps(folder: Path) -> Iterator[list[Step]]:
    batch = _batch(events()[:A_COMMIT])
    batch.seal([SOURCE.encode()], SegmentId(bytes(16), 0, 1), 64)
    image = batch.sealed()
    fd = os.open(folder / "segment", os.O_RDWR | os.O_CREAT, 0o600)
    os.posix_fallocate(fd, 0, FILE_BYTES)
    offsets = itertools.cycle(range(64, FILE_BYTES - len(image), len(image)))
    committer = Committer()
    done = poll()
    done.register(committer.done_fd, POLLIN)

    def in_thread() -> None:
        committer.submit(fd, batch, next(offsets), True)
        done.poll()
        if committer.finish() != 0:
            raise RuntimeError("a commit failed")

    def here() -> None:
        os.pwrite(fd, image, next(offsets))
        os.fdatasync(fd)

    try:
        yield [
            Step("commit 256 events, by the commit thread", in_thread, 1, 20),
            Step("pwrite and fdatasync of as much, alone", here, 1, 20),
        ]
    finally:
        committer.close()
        os.close(fd)


def _delivery_steps(folder: Path) -> list[Step]:
    fill(folder / "data", LOGGED)
    data = DataDir.open(folder / "data")
    limits = BatchLimits(A_BATCH, 2**22, 1.0)

    def cut(wrap: Callable[[Sent], object] = lambda _: None) -> None:
        cutter = Cutter(data, {}, limits)
        count = 0
        while (is_full := cutter.cut()) or cutter.has_more or cutter.has_moved():
            if not is_full and cutter.has_more:
                continue  # the turn ended
            taken = cutter.close_batch()
            count += taken.events
            wrap(taken.batch())
        cutter.close()
        if count != LOGGED:
            raise RuntimeError(f"{count:,} of {LOGGED:,} events were cut")

    def wrapped() -> None:
        cut(Sent.joined)

    return [
        Step("cut an event into a batch of 500", cut, LOGGED, 1),
        Step("+ the body of the request, a JSON array", wrapped, LOGGED, 1),
    ]
