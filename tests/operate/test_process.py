"""A process that cannot do its work ends, so that it is restarted."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from pixelfast.config import Config, FileDestination
from pixelfast.operate.child import Child
from pixelfast.operate.control import Orders
from tests.deliver.running import run
from tests.spools import open_data
from tests.waiting import until

# Python imports this before the program of each process.
BROKEN = """
import pixelfast.deliver.engine
async def run(self):
    raise RuntimeError("broken engine")
pixelfast.deliver.engine.Engine.run = run
"""


def test_a_delivery_process_whose_engine_fails_is_restarted(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = open_data(tmp_path / "data")
    (tmp_path / "sitecustomize.py").write_text(BROKEN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    config = Config(data_dir=str(data.path), destinations=(FileDestination(name="one"),))

    async def main() -> None:
        child = Child(Orders(role="delivery", config=config, data_dir=str(data.path)))
        task = asyncio.create_task(child.run(asyncio.Event()))
        try:
            await until(lambda: child.starts >= 2)
        finally:
            await child.stop(task, 10.0)

    with capture_logs() as logs:
        run(main())
    assert ("process_ended", 1) == (logs[0]["event"], logs[0]["code"])
    assert "broken engine" in capfd.readouterr().err
