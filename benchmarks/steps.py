"""The steps from a request to a stored event, which `bench_micro` measures one by one."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
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
from pixelfast.deliver.event_log import SpoolLog
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
MANY_SOURCES = 5_000
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
    filling = Rules(fill=("ip", "referer", "locale"))
    timed = documented + (
        b"&messageId=m-123&originalTimestamp=2026-11-23T10%3A15%3A30.123Z"
        b"&sentAt=2026-11-23T10%3A16%3A30.456Z"
    )

    def find() -> None:
        events.open(documented)

    def whole(target: bytes = documented, events: EventWriter = events) -> None:
        events.open(target)
        events.write(rules, NOW_MS, address="203.0.113.7")

    def fill_in() -> None:
        events.open(documented)
        events.write(
            filling,
            NOW_MS,
            address="203.0.113.7",
            referer=b"https://example.com/",
            languages=b"en-US,en;q=0.5",
        )

    def with_times() -> None:
        whole(timed)

    def whole_corpus() -> None:
        whole(next(corpus))

    def encode() -> None:
        whole(documented, by_orjson)

    def encode_unseen() -> None:
        whole(next(unseen))

    for step in (whole, fill_in, with_times):
        before = events.from_templates
        for _ in range(10):
            step()
        if events.from_templates == before:
            raise RuntimeError(f"{step.__name__}: the shape has no template")
    return [
        Step("find the parameters", find, 1, 1000),
        Step("+ stamp and encode: the whole", whole, 1, 1000),
        Step("the whole, 1,000 different URLs", whole_corpus, 1, 1000),
        Step("the whole, for a source with `fill`", fill_in, 1, 1000),
        Step("the whole, with `messageId` and two times", with_times, 1, 1000),
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


class _Peers:
    """`A_TURN` connections to a collector with some sources."""

    def __init__(self, write_keys: Sequence[str]) -> None:
        sources = tuple(
            Source(name=f"{SOURCE}-{n}", write_keys=(WriteKey(key=key),))
            for n, key in enumerate(write_keys)
        )
        collector = Collector(
            Sources(sources),
            Responses(),
            Clock(),
            trusted_proxies=Config().server.trusted_proxies,
        )
        all_connections = Connections(collector)
        self._loop = _Loop()
        loop: Any = self._loop
        names = [source.name for source in sources]
        collector.writer = SpoolWriter(loop, loop, loop, names, all_connections.on_stored)
        self._peers: list[tuple[Connection, _Transport]] = []
        for _ in range(A_TURN):
            connection, transport = all_connections.connect(), _Transport()
            connection.connection_made(transport)  # type: ignore[arg-type]
            self._peers.append((connection, transport))

    def exchange(self, requests: Iterator[bytes]) -> None:
        """Send one request on each connection, let the loop turn, and check the responses."""
        for connection, _ in self._peers:
            connection.data_received(next(requests))
        self._loop.turn()
        for _, transport in self._peers:
            response = transport.take()
            if not response.startswith(b"HTTP/1.1 200 "):
                raise RuntimeError(f"not a 200: {response!r}")


def _request_steps() -> list[Step]:
    keys = [f"wk-{n}" for n in range(MANY_SOURCES)]
    one, many = _Peers([WRITE_KEY]), _Peers(keys)
    headers = "".join(f"{name}: {text}\r\n" for name, text in HEADERS.items())

    def requests(method: str, *keys: str, more: str = "") -> Iterator[bytes]:
        tail = f" HTTP/1.1\r\n{headers}{more}\r\n"
        return itertools.cycle([f"{method} {target}{tail}".encode() for target in targets(*keys)])

    def step(name: str, peers: _Peers, own: Iterator[bytes]) -> Step:
        return Step(name, lambda: peers.exchange(own), A_TURN, 20)

    plain = itertools.repeat(f"GET /robots.txt HTTP/1.1\r\n{headers}\r\n".encode())
    kept = requests("GET", WRITE_KEY, more="Connection: keep-alive\r\n")
    return [
        step("a request without an event, by the scan (GET)", one, plain),
        step("a request without an event, by httptools (HEAD)", one, requests("HEAD", WRITE_KEY)),
        step("a pixel, without the kernel and the disk", one, requests("GET", WRITE_KEY)),
        step("the same with `Connection: keep-alive`", one, kept),
        step("the same from 5,000 sources", many, requests("GET", *keys)),
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

    many_names = [f"{SOURCE}-{n}".encode() for n in range(A_COMMIT)]
    mixed = _batch(own, A_COMMIT)

    def seal_mixed() -> None:
        mixed.seal(many_names, segment, 64)

    return [
        Step("add an event to the open batch", gather, A_COMMIT, 10),
        Step("seal it, an event of 256", seal, A_COMMIT, 10),
        Step("the same, each event of another source", seal_mixed, A_COMMIT, 10),
    ]


def _batch(own: list[bytes], sources: int = 1) -> CommitBatch:
    batch = CommitBatch()
    for n, event in enumerate(own):
        batch.add(n % sources, event, NOW_MS)
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
        cutter = Cutter(SpoolLog(data), {}, limits)
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
