"""Kill delivery while it compresses and deletes files; every event is in the archive."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
from pathlib import Path

from tests.load import Load
from tests.servers import Server, serving
from tests.waiting import wait_until

SETTINGS = """
[server]
workers = 1
[log]
format = "json"
[[sources]]
name = "web"
write_keys = ["wk-web"]
[[destinations]]
name = "archive"
type = "file"
compression = "gzip"
rotate_bytes = "16KiB"
"""
KILLS = 4


def events_in(folder: Path) -> list[str]:
    found = []
    for path in sorted(folder.glob("*.ndjson*")):
        text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        found += [json.loads(line)["event"] for line in text.splitlines()]
    return found


def plain(folder: Path) -> list[Path]:
    return list(folder.glob("*.ndjson"))


def kill_delivery(server: Server) -> None:
    before = server.children()["pf-delivery"]
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: server.children().get("pf-delivery", before) != before, "it is restarted")


def test_no_kill_of_delivery_costs_an_event_of_a_compressed_archive(tmp_path: Path) -> None:
    archive = tmp_path / "data" / "events" / "archive"

    async def main() -> None:
        with serving(tmp_path / "data", settings=SETTINGS) as server:
            load = Load(server.port, server.write_key, connections=4)
            load.start()
            for _ in range(KILLS):
                files = len(list(archive.glob("*.gz")))
                await asyncio.to_thread(
                    wait_until, lambda n=files: len(list(archive.glob("*.gz"))) > n, "it compresses"
                )
                await asyncio.to_thread(kill_delivery, server)
            await load.stop()
            newest = load.acked[-1].encode()
            await asyncio.to_thread(
                wait_until,
                lambda: any(newest in each.read_bytes() for each in plain(archive)),
                "all are delivered",
            )
            await asyncio.to_thread(
                wait_until, lambda: 1 == len(plain(archive)), "all but the newest are compressed"
            )
        found = events_in(archive)
        assert set() == set(load.acked) - set(found)
        assert not list(archive.glob(".*.part"))

    asyncio.run(main())
