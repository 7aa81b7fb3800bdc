"""kill -9 under load: every event that was answered with 200 is delivered after the restart."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.load import Load
from tests.servers import Server, serving

ROUNDS = 3


def wait_for_end(pids: list[int], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline, "a process outlived its supervisor"
        time.sleep(0.02)


async def load_and_kill(server: Server, victim: str, load: Load) -> None:
    load.start()
    await load.until_acked(300)
    pid = server.process.pid if victim == "supervisor" else server.children()[victim]
    os.kill(pid, signal.SIGKILL)
    if victim != "supervisor":
        await load.until_acked(300)  # it is started again, and the others went on
    await load.stop()


def check(acked: list[str], sent: set[str], server: Server) -> int:
    """Nothing missing, nothing invented; returns how many came twice."""
    deadline = time.monotonic() + 30
    while True:
        counts = Counter(event["event"] for event in server.events())
        missing = [one for one in acked if not counts[one]]
        if not missing:
            break
        assert time.monotonic() < deadline, f"{len(missing)} of {len(acked)} lost:\n{server.log}"
        time.sleep(0.05)
    assert [one for one in counts if one not in sent] == []
    return sum(counts.values()) - len(counts)


@pytest.mark.parametrize("victim", ["pf-collector-0", "pf-delivery", "supervisor"])
def test_what_was_answered_200_is_delivered_after_kill_9(victim: str, tmp_path: Path) -> None:
    acked: list[str] = []
    sent: set[str] = set()
    for attempt in range(ROUNDS):
        with serving(tmp_path / "data", "--workers", "2") as server:
            load = Load(server.port, server.write_key, name=f"{victim}-{attempt}")
            pids = list(server.children().values())
            asyncio.run(load_and_kill(server, victim, load))
            if victim == "supervisor":
                server.kill()
                wait_for_end(pids)
            acked += load.acked
            sent |= load.sent
    with serving(tmp_path / "data", "--workers", "2") as server:
        duplicates = check(acked, sent, server)
        assert server.track("still-works") == 200
        assert len(acked) >= ROUNDS * 300
        assert duplicates <= len(sent)


def test_all_processes_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    with serving(tmp_path / "data", "--workers", "2") as server:
        pids = list(server.children().values())
        assert len(pids) == 3
        server.kill()
        wait_for_end(pids)
