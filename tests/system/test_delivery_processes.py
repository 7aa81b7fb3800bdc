"""The destinations of a real server are spread over several delivery processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

from pixelfast.commands.running import ask
from pixelfast.operate.reload import RELOAD_OUTCOME, UPGRADE_OUTCOME, Outcome
from pixelfast.spool import DataDir
from tests.load import Load
from tests.program import run_pixelfast
from tests.servers import Server, serving
from tests.waiting import wait_until

HEAD = """
[server]
workers = 1
[deliver]
processes = {processes}
[[sources]]
name = "web"
write_keys = ["wk-web"]
"""
DESTINATION = """
[[destinations]]
name = "{name}"
type = "file"
{more}
"""


def settings(*names: str, processes: int = 2, **more: str) -> str:
    parts = [DESTINATION.format(name=name, more=more.get(name, "")) for name in names]
    return "".join([HEAD.format(processes=processes), *parts])


def rewrite(server: Server, text: str) -> None:
    path = server.data_dir.parent / f"{server.data_dir.name}.toml"
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").replace(path)


def reload(server: Server, text: str) -> Outcome:
    rewrite(server, text)
    outcome = ask(DataDir.find(server.data_dir), signal.SIGHUP, RELOAD_OUTCOME, 60.0)
    assert outcome.is_successful, server.log
    return outcome


def spread(server: Server) -> dict[str, str]:
    """Return the process of each destination that has one."""
    destinations: dict[str, dict[str, Any]] = json.loads(server.admin("/health/ready"))[
        "destinations"
    ]
    return {name: own["process"] for name, own in destinations.items()}


def attempts_of(server: Server, destination: str) -> float:
    return server.metrics_of("pixelfast_delivery_attempts_total", destination=destination)


def deliveries(server: Server) -> dict[str, int]:
    """Return the ids of the delivery processes by name."""
    return {
        name.removeprefix("pf-"): pid
        for name, pid in server.children().items()
        if name.startswith("pf-delivery")
    }


def test_there_are_never_more_processes_than_destinations(tmp_path: Path) -> None:
    with serving(tmp_path / "data", settings=settings("one", "two", processes=5)) as server:
        wait_until(lambda: len(deliveries(server)) == 2, "two processes")
        server.write_key = "wk-web"
        assert [200] * 3 == [server.track(name) for name in ("A", "B", "C")]
        for name in ("one", "two"):
            wait_until(lambda name=name: len(server.events(name)) == 3, f"the events of {name}")
        assert {"one": "delivery", "two": "delivery-1"} == spread(server)
        wait_until(lambda: server.metrics().get("pixelfast_delivered_events_total") == 6, "sum")
        assert 1 == server.metrics_of("pixelfast_process_starts_total", process="delivery-1")
        assert 0 == server.metrics()["pixelfast_pending_events"]
        server.check_sums()
        status = run_pixelfast(
            "status",
            "--data-dir",
            str(server.data_dir),
            "--admin",
            f"127.0.0.1:{server.admin_port}",
        ).stdout
        rows = [line.split() for line in status.splitlines()]
        assert ["destination", "process", "state", "pending"] == rows[-3][:4]
        assert ["one", "delivery", "healthy", "0"] == rows[-2][:4]
        assert ["two", "delivery-1", "healthy", "0"] == rows[-1][:4]


def wait_for_processes(server: Server, names: set[str]) -> None:
    wait_until(lambda: names == deliveries(server).keys(), f"{names} run")


def test_a_reload_moves_no_destination_to_another_process(tmp_path: Path) -> None:
    async def main(server: Server) -> None:
        load = Load(server.port, "wk-web", connections=4, pause_s=0.005)
        load.start()
        await load.until_acked(50)
        pids = deliveries(server)
        changes = [
            settings("one", "two", "three", "four", processes=3),
            settings("four", "one", "three", processes=3, one="rotate_bytes = 100000"),
            settings("one", "three", "five", processes=3),
            settings("one", processes=3),
            settings("one", "two", processes=3),
        ]
        places = [
            {"one": "", "two": "-1", "three": "-2", "four": ""},
            {"one": "", "three": "-2", "four": ""},
            {"one": "", "three": "-2", "five": "-1"},
            {"one": ""},
            {"one": "", "two": "-1"},
        ]
        for text, place in zip(changes, places, strict=True):
            await asyncio.to_thread(reload, server, text)
            await load.until_acked(50)
            expected = {name: f"delivery{each}" for name, each in place.items()}
            assert expected == await asyncio.to_thread(spread, server)
            await asyncio.to_thread(wait_for_processes, server, set(expected.values()))
            assert pids["delivery"] == deliveries(server)["delivery"]
        await load.stop()
        assert ({}, 0) == (load.rejected, load.broken)
        for name in ("one", "two"):
            await asyncio.to_thread(
                wait_until,
                lambda name=name: len(server.events(name)) >= len(load.acked),
                f"the events of {name}",
            )
            assert sorted(load.acked) == sorted(each["event"] for each in server.events(name))

    with serving(tmp_path / "data", settings=settings("one", "two", processes=3)) as server:
        wait_until(lambda: len(deliveries(server)) == 2, "two processes")
        asyncio.run(main(server))
        server.check_sums()
        starts = server.metrics_of("pixelfast_process_starts_total", process="delivery-1")
        assert 3 == starts, "it continued to count"


def test_the_number_of_processes_changes_with_an_upgrade(tmp_path: Path) -> None:
    names = ("one", "two", "three")

    async def main(server: Server) -> None:
        load = Load(server.port, "wk-web", connections=4, pause_s=0.005)
        load.start()
        attempts = 0.0
        for processes, expected in ((3, 3), (1, 1), (2, 2)):
            await load.until_acked(50)
            text = settings(*names, processes=processes)
            outcome = await asyncio.to_thread(reload, server, text)
            assert "deliver.processes is still" in outcome.lines[0]
            before = deliveries(server)
            data = DataDir.find(server.data_dir)
            outcome = await asyncio.to_thread(ask, data, signal.SIGUSR2, UPGRADE_OUTCOME, 120.0)
            assert outcome.is_successful, server.log
            assert expected == len(deliveries(server))
            assert not set(before.values()) & set(deliveries(server).values())
            # The totals of processes that have ended are kept.
            counted = await asyncio.to_thread(attempts_of, server, "three")
            assert counted >= attempts
            await asyncio.to_thread(
                wait_until,
                lambda least=counted + 4: attempts_of(server, "three") >= least,
                "more attempts",
            )
            attempts = counted + 4
        await load.until_acked(50)
        await load.stop()
        assert ({}, 0) == (load.rejected, load.broken)
        for name in names:
            await asyncio.to_thread(
                wait_until,
                lambda name=name: len(server.events(name)) >= len(load.acked),
                f"the events of {name}",
            )
            assert sorted(load.acked) == sorted(each["event"] for each in server.events(name))

    with serving(tmp_path / "data", settings=settings(*names)) as server:
        asyncio.run(main(server))
        server.check_sums()
        assert 0 == server.stop()


def test_the_destinations_of_a_process_that_does_not_run_are_unknown(tmp_path: Path) -> None:
    with serving(tmp_path / "data", settings=settings("one", "two")) as server:
        wait_until(lambda: len(deliveries(server)) == 2, "two processes")

        def state(name: str) -> str:
            found = json.loads(server.admin("/health/ready"))["destinations"][name]["state"]
            assert isinstance(found, str)
            return found

        wait_until(lambda: state("two") == "healthy", "delivery")
        pid = deliveries(server)["delivery-1"]
        os.kill(pid, signal.SIGSTOP)
        try:
            wait_until(lambda: state("two") == "unknown", "its silence", 30)
            assert "healthy" == state("one")
        finally:
            os.kill(pid, signal.SIGCONT)
        wait_until(lambda: state("two") == "healthy", "its report")
