"""Objects in real stores: every event is in exactly one of them, whatever happens."""

from __future__ import annotations

import asyncio
import io
import json
import os
import random
import signal
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import arro3.io
import pytest

from pixelfast.config import Config, S3Destination
from pixelfast.deliver.destinations.s3 import S3Sender
from pixelfast.deliver.objects.uploads import Bucket, Credentials, signed_headers
from pixelfast.deliver.outcomes import Accepted
from pixelfast.spool import DataDir
from tests.deliver.cutting_proxy import Cut, CuttingProxy
from tests.deliver.products.real.object_stores import (
    KEYS,
    STORES,
    WRITER_KEYS,
    ObjectStore,
    object_store,
)
from tests.deliver.products.real.processes import Absent
from tests.deliver.runners import make_engine, running
from tests.deliver.running import run
from tests.deliver.stores import batch_for, destination, received, unpacked
from tests.load import Load
from tests.program import PIXELFAST
from tests.servers import Server, serving
from tests.spools import Feed, open_data
from tests.waiting import until, wait_until

BUCKET = "events"
HOURS = ("2026-11-27T08:59:59.000Z", "2026-11-27T09:00:00.000Z")
SOURCES = ("web", "mail")


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    yield from _started("seaweedfs", tmp_path_factory)


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    yield from _started("moto", tmp_path_factory)


def _started(product: str, factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    try:
        with object_store(product, factory.mktemp(product)) as store:
            yield store
    except Absent as why:
        pytest.skip(str(why))


@pytest.fixture(params=sorted(STORES))
def store(request: pytest.FixtureRequest) -> ObjectStore:
    """Each of the stores, with an empty bucket."""
    found: ObjectStore = request.getfixturevalue(request.param)
    found.new_bucket(BUCKET)
    return found


@pytest.fixture(autouse=True)
def leaves_nothing_open() -> None:
    """Ignore descriptors: both clients keep connections for a while."""


@pytest.fixture
def data(tmp_path: Path) -> DataDir:
    return open_data(tmp_path / "data")


def write(data: DataDir, stop: int, noise_bytes: int = 0) -> None:
    """Store the events from 0 to `stop`."""
    with Feed(data, segment_bytes=2**20) as feed:
        extend(feed, 0, stop, noise_bytes)


def extend(feed: Feed, first: int, stop: int, noise_bytes: int = 0) -> None:
    """Store events of two sources and two hours, in commits of 20."""

    def event(n: int) -> bytes:
        noise = random.Random(n).randbytes(noise_bytes).hex()
        return received(n, HOURS[n // 10 % 2], n=n, noise=noise)

    for begin in range(first, stop, 20):
        feed.commit([(SOURCES[n % 2], event(n)) for n in range(begin, min(begin + 20, stop))])


def events_of(name: str, contents: bytes) -> list[dict[str, Any]]:
    """Return the events of an object, by the suffix of its name."""
    if name.endswith(".parquet"):
        table = arro3.io.read_parquet(io.BytesIO(contents)).read_all()
        return [json.loads(each) for each in table.column("json").to_pylist()]
    compression = {".gz": "gzip", ".zst": "zstd"}.get(Path(name).suffix, "none")
    return [json.loads(line) for line in unpacked(contents, compression).splitlines()]


def events_in(store: ObjectStore) -> Counter[int]:
    """Return how often each event is in the bucket, after checking the names of the objects."""
    found: Counter[int] = Counter()
    for name in store.names(BUCKET):
        events = events_of(name, store.contents(BUCKET, name))
        numbers = [each["n"] for each in events]
        found.update(numbers)
        source, date, hour, _ = name.split("/")
        assert {source} == {f"source={SOURCES[n % 2]}" for n in numbers}
        assert {(date, hour)} == {
            (f"date={each['receivedAt'][:10]}", f"hour={each['receivedAt'][11:13]}")
            for each in events
        }
    return found


def each_once(count: int) -> Counter[int]:
    return Counter(range(count))


async def delivered(engine: Any, count: int) -> None:
    """Wait until the destination accepted this many events."""
    await until(lambda: figures_of(engine).get("delivered", 0) >= count, 90.0)


def figures_of(engine: Any) -> dict[str, Any]:
    return engine.stats()["destinations"]["lake"]


@pytest.mark.parametrize(
    ("form", "compression"),
    [("ndjson", "none"), ("ndjson", "gzip"), ("ndjson", "zstd"), ("parquet", "zstd")],
)
def test_every_event_is_in_one_object_of_its_source_and_hour(
    store: ObjectStore, data: DataDir, form: str, compression: str
) -> None:
    write(data, 1000)
    settings = destination(store.port, format=form, compression=compression, max_events=300)
    engine = make_engine(data, config=Config(destinations=(settings,)))

    async def main() -> None:
        async with running(engine):
            await delivered(engine, 1000)

    run(main())
    assert each_once(1000) == events_in(store)
    figures = figures_of(engine)
    assert len(store.names(BUCKET)) == figures["stored_objects"]
    batches = Counter(name.rpartition("/")[2] for name in store.names(BUCKET))
    assert max(batches.values()) == 4, "two sources, two hours"
    sizes = sum(len(store.contents(BUCKET, name)) for name in store.names(BUCKET))
    assert sizes == figures["stored_object_bytes"]


def test_a_missing_bucket_holds_the_destination_until_it_is_created(
    moto: ObjectStore, data: DataDir
) -> None:
    write(data, 40)
    settings = destination(moto.port, bucket="later")
    engine = make_engine(data, config=Config(destinations=(settings,)))

    async def main() -> dict[str, Any]:
        async with running(engine):
            await until(lambda: figures_of(engine)["state"] == "held")
            held = figures_of(engine)
            await asyncio.to_thread(moto.client.create_bucket, Bucket="later")
            await delivered(engine, 40)
            return held

    held = run(main())
    words = "status 404, NoSuchBucket: The specified bucket does not exist"
    assert (words, 0) == (held["last_error"], held.get("dead", 0))
    numbers = [
        each["n"]
        for name in moto.names("later")
        for each in events_of(name, moto.contents("later", name))
    ]
    assert list(range(40)) == sorted(numbers)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"secret_access_key": "wrong-secret-key"}, "status 403, SignatureDoesNotMatch: "),
        ({"access_key_id": "UNKNOWN"}, "status 403, InvalidAccessKeyId: "),
        (
            dict(zip(("access_key_id", "secret_access_key"), WRITER_KEYS, strict=True))
            | {"bucket": "others"},
            "status 403, AccessDenied: ",
        ),
    ],
)
def test_wrong_credentials_hold_the_destination_until_a_reload_corrects_them(
    seaweedfs: ObjectStore, data: DataDir, wrong: dict[str, str], reason: str
) -> None:
    seaweedfs.new_bucket(BUCKET)
    write(data, 100)
    engine = make_engine(data, config=Config(destinations=(destination(seaweedfs.port, **wrong),)))

    async def main() -> str:
        async with running(engine):
            await until(lambda: figures_of(engine)["state"] == "held")
            held = str(figures_of(engine)["last_error"])
            await engine.reload(Config(destinations=(destination(seaweedfs.port),)))
            await delivered(engine, 100)
            return held

    assert run(main()).startswith(reason)
    assert each_once(100) == events_in(seaweedfs)


def test_no_kill_of_the_store_costs_or_repeats_an_event(
    seaweedfs: ObjectStore, data: DataDir
) -> None:
    seaweedfs.new_bucket(BUCKET)
    settings = destination(seaweedfs.port, max_events=50, compression="gzip")
    engine = make_engine(data, config=Config(destinations=(settings,)))
    written = 0
    kills = 2

    async def main() -> None:
        with Feed(data, segment_bytes=2**20) as feed:
            async with running(engine):
                await load(feed)

    async def load(feed: Feed) -> None:
        nonlocal written
        for _ in range(kills):
            for _ in range(20):
                extend(feed, written, written + 100)
                written += 100
                await asyncio.sleep(0)
            await until(lambda n=written: figures_of(engine).get("delivered", 0) > n - 1500)
            seaweedfs.kill()
            await until(lambda: bool(figures_of(engine)["last_error"]))
            await asyncio.to_thread(seaweedfs.start)
        await delivered(engine, written)

    run(main(), 240.0)
    assert each_once(written) == events_in(seaweedfs)
    attempts = engine.stats()["totals"]["attempts"]["lake"]["results"]
    assert attempts["retry"] >= kills
    assert 0 == attempts["held"]


def large(settings: dict[str, Any]) -> S3Destination:
    return destination(**settings, multipart_bytes=5 * 2**20, max_bytes=2**26)


def test_a_large_object_is_uploaded_in_parts_and_old_uploads_are_aborted(
    store: ObjectStore,
) -> None:
    noise = random.Random(1).randbytes(20 * 2**20).hex()
    events = [
        ("web", received(n, HOURS[0], n=n, noise=noise[n * 2**20 : (n + 1) * 2**20]))
        for n in range(40)
    ]
    name = "source=web/date=2026-11-27/hour=08/b1.ndjson"
    store.client.create_multipart_upload(Bucket=BUCKET, Key=name)
    store.client.create_multipart_upload(Bucket=BUCKET, Key=f"{name}.of-others")
    assert 2 == len(store.uploads(BUCKET))

    async def main() -> None:
        sender = S3Sender(large({"port": store.port}))
        await sender.open({})
        assert Accepted() == await sender.send(batch_for(events))
        await sender.close()

    run(main())
    assert [name] == store.names(BUCKET)
    expected = b"".join(event + b"\n" for _, event in events)
    assert expected == store.contents(BUCKET, name)
    assert "-" in store.client.head_object(Bucket=BUCKET, Key=name)["ETag"], "it has parts"
    assert [f"{name}.of-others"] == store.uploads(BUCKET)


@pytest.mark.parametrize(("late_s", "status"), [(0, 200), (3600, 403)])
def test_a_store_accepts_our_own_signature_unless_the_clock_is_wrong(
    seaweedfs: ObjectStore, late_s: int, status: int
) -> None:
    seaweedfs.new_bucket(BUCKET)
    url = f"http://127.0.0.1:{seaweedfs.port}/{BUCKET}"
    bucket = Bucket(url, "us-east-1", Credentials(*KEYS))
    now = datetime.now(UTC) - timedelta(seconds=late_s)
    headers = signed_headers(bucket, "GET", f"{url}/", {"uploads": ""}, now)
    with closing(HTTPConnection("127.0.0.1", seaweedfs.port, timeout=30)) as connection:
        connection.request("GET", f"/{BUCKET}/?uploads=", headers=headers)
        response = connection.getresponse()
        body = response.read()
    assert (status, b"RequestTimeTooSkewed" in body) == (response.status, late_s > 0)


CUTS = [Cut(n) for n in (0, 1, 200, 700, 900, 3000)]
CUTS += [Cut(n, is_response=True) for n in (0, 1, 20, 200)]
CUTS += [Cut(600, stalls=True), Cut(0, is_response=True, stalls=True)]


def test_a_network_that_cuts_connections_costs_and_repeats_no_event(
    seaweedfs: ObjectStore, data: DataDir
) -> None:
    seaweedfs.new_bucket(BUCKET)
    write(data, 1000)

    async def main() -> None:
        async with CuttingProxy(seaweedfs.port, *CUTS) as proxy:
            settings = destination(proxy.port, max_events=100, concurrency=2, timeout_s=1.0)
            engine = make_engine(data, config=Config(destinations=(settings,)))
            async with running(engine):
                await delivered(engine, 1000)
            assert sorted(CUTS) == sorted(proxy.seen)

    run(main())
    assert each_once(1000) == events_in(seaweedfs)


PART = 2**24  # of an upload
LARGE_CUTS = [Cut(n) for n in (0, 300, 2**20, PART + 2**20)]
LARGE_CUTS += [Cut(n, is_response=True) for n in (0, 50, 500)]


def test_a_network_that_cuts_connections_damages_no_large_object(
    seaweedfs: ObjectStore,
) -> None:
    seaweedfs.new_bucket(BUCKET)
    noise = random.Random(1).randbytes(10 * 2**20).hex()
    events = [
        ("web", received(n, HOURS[0], n=n, noise=noise[n * 2**20 : (n + 1) * 2**20]))
        for n in range(20)
    ]

    async def main() -> int:
        attempts = 0
        async with CuttingProxy(seaweedfs.port, *LARGE_CUTS) as proxy:
            sender = S3Sender(large({"port": proxy.port, "timeout_s": 10.0}))
            await sender.open({})
            while Accepted() != await sender.send(batch_for(events)):
                attempts += 1
                assert attempts <= 2 * len(LARGE_CUTS)
            await sender.close()
        return attempts

    assert run(main()) >= 1
    (name,) = seaweedfs.names(BUCKET)
    expected = b"".join(event + b"\n" for _, event in events)
    assert expected == seaweedfs.contents(BUCKET, name)
    assert [] == seaweedfs.uploads(BUCKET)


DELIVER = """
data_dir = "{data}"
[[sources]]
name = "web"
write_keys = ["wk-web"]
[[destinations]]
name = "lake"
type = "s3"
bucket = "events"
endpoint = "http://127.0.0.1:{port}"
allow_http = true
access_key_id = "{key}"
secret_access_key = "{secret}"
start = "earliest"
format = "{form}"
max_age_s = 0.05
"""


@pytest.mark.parametrize(("form", "is_stored"), [("ndjson", False), ("parquet", True)])
def test_a_kill_of_delivery_during_an_upload_costs_and_repeats_no_event(
    seaweedfs: ObjectStore, tmp_path: Path, data: DataDir, form: str, is_stored: bool
) -> None:
    """The upload is cut off, or complete without a response."""
    seaweedfs.new_bucket(BUCKET)
    write(data, 40, noise_bytes=2**14)
    cut = Cut(0, is_response=True, stalls=True) if is_stored else Cut(50_000, stalls=True)
    settings, log = tmp_path / "pixelfast.toml", tmp_path / "log"

    async def main() -> None:
        async with CuttingProxy(seaweedfs.port, *[cut] * 4) as proxy:
            settings.write_text(
                DELIVER.format(
                    data=data.path, port=proxy.port, key=KEYS[0], secret=KEYS[1], form=form
                )
            )
            first = deliver(settings, log)
            try:
                await until(lambda: len(proxy.seen) == 4)
            finally:
                first.kill()
                await asyncio.to_thread(first.wait)
            before = set(await asyncio.to_thread(seaweedfs.names, BUCKET))
            second = deliver(settings, log)
            try:
                state = data.destination_dir("lake") / "state.db"
                await until(lambda: delivered_in(state) == 40)
            finally:
                second.terminate()
                await asyncio.to_thread(second.wait)
        assert is_stored == bool(before)
        assert before <= set(seaweedfs.names(BUCKET))

    run(main())
    assert each_once(40) == events_in(seaweedfs)


def deliver(settings: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start a delivery process."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [*PIXELFAST, "deliver", "-c", str(settings)],
            stdout=subprocess.DEVNULL,
            stderr=output,
        )


def delivered_in(state: Path) -> int:
    with (
        suppress(sqlite3.Error),
        closing(sqlite3.connect(f"{state.as_uri()}?mode=ro", uri=True)) as db,
    ):
        row = db.execute("SELECT value FROM counter WHERE name = 'delivered'").fetchone()
        return int(row[0]) if row else 0
    return 0


def test_kills_of_delivery_under_load_cost_and_repeat_no_event(
    seaweedfs: ObjectStore, tmp_path: Path
) -> None:
    seaweedfs.new_bucket(BUCKET)
    settings = DELIVER.format(
        data=tmp_path / "data", port=seaweedfs.port, key=KEYS[0], secret=KEYS[1], form="ndjson"
    )
    acked: list[str] = []

    def kill_delivery(server: Server) -> None:
        before = server.children()["pf-delivery"]
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: server.children().get("pf-delivery", before) != before, "a restart")

    async def main() -> None:
        with serving(tmp_path / "data", settings=settings) as server:
            load = Load(server.port, server.write_key, connections=4)
            load.start()
            for _ in range(2):
                stored = len(seaweedfs.names(BUCKET))
                await asyncio.to_thread(
                    wait_until, lambda n=stored: len(seaweedfs.names(BUCKET)) > n + 2, "objects"
                )
                await asyncio.to_thread(kill_delivery, server)
            await load.stop()
            acked.extend(load.acked)
            await asyncio.to_thread(
                wait_until,
                lambda: server.metrics().get("pixelfast_pending_events") == 0,
                "delivered",
            )

    run(main(), 120.0)
    found: Counter[str] = Counter()
    for name in seaweedfs.names(BUCKET):
        found.update(each["event"] for each in events_of(name, seaweedfs.contents(BUCKET, name)))
    assert set() == set(acked) - set(found)
    assert {1} == set(found.values())


# --- other readers -------------------------------------------------------------------------------


@pytest.fixture(params=[("ndjson", "gzip"), ("ndjson", "zstd"), ("parquet", "zstd")])
def folder(request: pytest.FixtureRequest, seaweedfs: ObjectStore, tmp_path: Path) -> Path:
    """A copy of a bucket with 200 events, in one of the forms."""
    seaweedfs.new_bucket(BUCKET)
    form, compression = request.param
    events = [
        (SOURCES[n % 2], received(n, HOURS[n // 10 % 2], n=n, userId=f"u{n}")) for n in range(200)
    ]

    async def main() -> None:
        sender = S3Sender(destination(seaweedfs.port, format=form, compression=compression))
        await sender.open({})
        assert Accepted() == await sender.send(batch_for(events))
        await sender.close()

    run(main())
    for name in seaweedfs.names(BUCKET):
        path = tmp_path / "copy" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(seaweedfs.contents(BUCKET, name))
    return tmp_path / "copy"


EXPECTED = [
    (source, 8 + hour, sum(n for n in range(200) if n % 2 == odd and n // 10 % 2 == hour))
    for odd, source in ((1, "mail"), (0, "web"))
    for hour in (0, 1)
]


def is_parquet(folder: Path) -> bool:
    return any(folder.rglob("*.parquet"))


def test_duckdb_reads_the_objects_and_their_partitions(folder: Path) -> None:
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed: make products")
    if is_parquet(folder):
        files = f"read_parquet('{folder}/**/*.parquet', hive_partitioning = true)"
        number = "CAST(json ->> '$.n' AS INTEGER)"
    else:
        files = f"read_json('{folder}/**/*.ndjson.*', hive_partitioning = true, format = 'nd')"
        number = "n"
    query = (
        f"SELECT source, CAST(hour AS INTEGER), CAST(sum({number}) AS INTEGER) FROM {files}"  # noqa: S608
        " WHERE date = DATE '2026-11-27' GROUP BY ALL ORDER BY ALL"
    )
    with duckdb.connect() as connection:
        assert EXPECTED == connection.sql(query).fetchall()


def test_clickhouse_reads_the_objects(folder: Path) -> None:
    chdb = pytest.importorskip("chdb", reason="chdb is not installed: make products")
    if is_parquet(folder):
        files, number = f"file('{folder}/**/*.parquet', Parquet)", "JSONExtractInt(json, 'n')"
    else:
        files, number = f"file('{folder}/**/*.ndjson.*', JSONEachRow, 'n Int32')", "n"
    query = (
        f"SELECT extract(_path, 'source=([^/]*)') AS source,"  # noqa: S608
        f" toInt32(extract(_path, 'hour=([^/]*)')) AS hour, sum({number}) AS total"
        f" FROM {files} GROUP BY source, hour ORDER BY source, hour"
    )
    rows = str(chdb.query(query, "JSONEachRow"))
    found = [json.loads(line) for line in rows.splitlines()]
    assert EXPECTED == [(each["source"], each["hour"], int(each["total"])) for each in found]


@pytest.mark.parametrize("folder", [("parquet", "zstd")], indirect=True)
def test_pyarrow_reads_parquet_with_times(folder: Path) -> None:
    dataset = pytest.importorskip("pyarrow.dataset", reason="pyarrow is not installed")
    table = dataset.dataset(folder, partitioning="hive").to_table()
    assert sorted(f"u{n}" for n in range(200)) == sorted(table.column("user_id").to_pylist())
    times = {each.isoformat() for each in table.column("received_at").to_pylist()}
    assert {"2026-11-27T08:59:59+00:00", "2026-11-27T09:00:00+00:00"} == times
    assert "timestamp[ms, tz=UTC]" == str(table.schema.field("received_at").type)
