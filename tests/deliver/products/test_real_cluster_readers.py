"""Other programs that read the topic of a cluster."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from pixelfast.spool import DataDir
from tests.deliver.products.real.kafka_broker import KafkaBroker
from tests.deliver.products.topics import Topics
from tests.deliver.running import run
from tests.load import Load
from tests.reliability.cluster.machines import Collector

SETTINGS = """
[[sources]]
name = "web"
write_keys = ["wk-read"]
[cluster]
brokers = ["{broker}"]
topic = "{topic}"
min_insync = 1
max_replication_wait_s = 30
"""
_MESSAGE = re.compile(rb"node=(.{16}),slot=(\d+),segment=(\d+),offset=(\d+)\t(\d+)\n", re.DOTALL)


@pytest.fixture
def topic(request: pytest.FixtureRequest, topics: Topics) -> str:
    return topics.create(f"read-{abs(hash(request.node.name)):x}", partitions=1)


def test_kcat_reads_frames_with_their_headers_and_their_events_as_ndjson(
    kafka: KafkaBroker, topic: str, tmp_path: Path
) -> None:
    if shutil.which("kcat") is None:
        pytest.skip("kcat is not installed: apt-get install kcat")
    collector = Collector(tmp_path / "c", SETTINGS.format(broker=kafka.address, topic=topic))
    load = Load(0, "wk-read", connections=4)

    async def main() -> None:
        load.start()
        await load.until_acked(200)
        await load.stop()

    try:
        collector.start()
        load.port = collector.port
        run(main())
        collector.stop()
    finally:
        if collector.is_running:
            collector.kill()
    command = ["kcat", "-b", kafka.address, "-t", topic, "-C", "-e", "-q", "-f", "%h\t%S\n%s"]
    output = subprocess.run(command, capture_output=True, check=True, timeout=30.0).stdout
    found, at, places = [], 0, []
    while at < len(output):
        head = _MESSAGE.match(output, at)
        assert head is not None
        node, slot, segment, offset, size = head.groups()
        value = output[head.end() : head.end() + int(size)]
        at = head.end() + int(size)
        assert (DataDir.open(collector.data_dir).node, b"0") == (node, slot)
        places.append((int(segment), int(offset)))
        found += [json.loads(line)["event"] for line in body_of(value).splitlines()]
    assert sorted(load.acked) == sorted(found)
    assert sorted(set(places)) == places


def body_of(frame: bytes) -> bytes:
    """Return the events of a frame, as docs/spool-format.md describes it."""
    (name_bytes,) = struct.unpack_from("<H", frame, 14)
    (body_bytes,) = struct.unpack_from("<I", frame, 20)
    return frame[48 + name_bytes :][:body_bytes]
