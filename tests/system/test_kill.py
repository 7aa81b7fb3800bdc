"""kill -9 of the supervisor. tests/reliability covers the events."""

from __future__ import annotations

from pathlib import Path

from tests.reliability.rig import is_gone
from tests.servers import serving
from tests.waiting import wait_until


def test_all_processes_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    with serving(tmp_path / "data", "--workers", "2") as server:
        pids = list(server.children().values())
        assert len(pids) == 3
        server.kill()
        wait_until(lambda: all(map(is_gone, pids)), "no process outlives its supervisor")
