"""Replace a real server by the installed version under load, without failures or losses."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pixelfast.commands.running import ask
from pixelfast.operate.reload import RELOAD_OUTCOME, UPGRADE_OUTCOME, Outcome
from pixelfast.spool import DataDir
from tests.load import Load
from tests.program import run_pixelfast
from tests.servers import Server, serving
from tests.waiting import wait_until

SETTINGS = """
[server]
workers = {workers}
drain_timeout_s = 3.0
{server}
[[sources]]
name = "web"
write_keys = ["wk-web"]
[[destinations]]
name = "archive"
type = "file"
"""
TOTALS = (
    "pixelfast_accepted_events_total",
    "pixelfast_stored_events_total",
    "pixelfast_delivered_events_total",
)


def settings(workers: int = 2, server: str = "") -> str:
    return SETTINGS.format(workers=workers, server=server)


def rewrite(server: Server, text: str) -> None:
    path = server.data_dir.parent / f"{server.data_dir.name}.toml"
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").replace(path)


def upgrade(server: Server) -> Outcome:
    return ask(DataDir.find(server.data_dir), signal.SIGUSR2, UPGRADE_OUTCOME, 120.0)


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=20).close()
    except ConnectionRefusedError:
        return True
    return False


def test_upgrades_under_load_fail_no_request_and_lose_no_event(tmp_path: Path) -> None:
    """Upgrades follow each other directly, and the number of collectors changes."""
    seen = dict.fromkeys(TOTALS, 0.0)

    def check_totals(server: Server) -> None:
        sums = server.metrics()
        for name in TOTALS:
            # The figures of destinations are absent until delivery has read them.
            assert sums.get(name, seen[name]) >= seen[name], f"{name} went back"
            seen[name] = sums.get(name, seen[name])

    async def main(server: Server) -> None:
        load = Load(server.port, "wk-web", connections=6, pause_s=0.004, fresh=2)
        load.start()
        for workers in (1, 3):
            await load.until_acked(200)
            await asyncio.to_thread(check_totals, server)
            before = server.children()
            await asyncio.to_thread(rewrite, server, settings(workers))
            outcome = await asyncio.to_thread(upgrade, server)
            assert outcome.is_successful, server.log
            await asyncio.to_thread(check_totals, server)
            assert not set(before.values()) & {server.children()["pf-delivery"]}
        await load.until_acked(100)
        await load.stop()
        assert ({}, 0) == (load.rejected, load.broken)
        assert load.sent == set(load.acked)
        found = await asyncio.to_thread(server.wait_for_events, len(load.acked))
        assert sorted(load.acked) == sorted(each["event"] for each in found)

    with serving(tmp_path / "data", settings=settings()) as server:
        asyncio.run(main(server))
        wait_until(lambda: len(server.children()) == 4, "the old ones are gone")
        check_totals(server)
        server.check_sums()
        assert 0 == server.stop()


def test_a_version_that_cannot_take_over_changes_nothing(tmp_path: Path) -> None:
    with serving(tmp_path / "data", settings=settings()) as server:
        before = server.children()
        rewrite(server, settings() + "wrong = 1\n")
        done = run_pixelfast("upgrade", "--data-dir", str(server.data_dir))
        assert (1, "") == (done.returncode, done.stdout)
        assert "destinations[archive].wrong: unknown setting" in done.stderr
        rewrite(server, settings(3))
        # The slots that the new collectors would take cannot be used.
        for slot in (2, 3, 4):
            (server.data_dir / "shards" / str(slot)).write_text("in the way")
        outcome = upgrade(server)
        assert not outcome.is_successful
        assert "the old collectors continue" in outcome.lines[0]
        after = server.children()
        assert [before[f"pf-collector-{n}"] for n in (0, 1)] == [
            after.get(f"pf-collector-{n}") for n in (0, 1)
        ]
        for slot in (2, 3, 4):  # delivery reads them, too
            (server.data_dir / "shards" / str(slot)).unlink()
        server.write_key = "wk-web"
        # No connection waits at the socket that the third collector was to have.
        assert [200] * 24 == [server.track("After") for _ in range(24)]
        assert ["After"] * 24 == [each["event"] for each in server.wait_for_events(24)]
        rewrite(server, settings())
        assert upgrade(server).is_successful, server.log
        assert [200] * 24 == [server.track("Again") for _ in range(24)]


def test_an_upgrade_opens_new_addresses_and_closes_old_ones(tmp_path: Path) -> None:
    ports = []
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as free:
            ports.append(free.getsockname()[1])
    pixel = tmp_path / "pixel.sock"
    first, second = (f'"127.0.0.1:{port}"' for port in ports)
    listen = f'listen = [{first}, "unix:{pixel}"]'
    with serving(tmp_path / "data", settings=settings(1, listen), has_own_address=True) as server:
        listen = f'listen = ["unix:{pixel}", {second}]'
        rewrite(server, settings(2, listen))
        assert upgrade(server).is_successful, server.log
        wait_until(lambda: is_refused(ports[0]), "the old address is closed")
        server.port, server.write_key = ports[1], "wk-web"
        assert 200 == server.track("Second")
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(str(pixel))
            client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_stop_in_the_middle_of_an_upgrade_leaves_no_processes(
    tmp_path: Path, number: signal.Signals
) -> None:
    with serving(tmp_path / "data", settings=settings()) as server:
        server.write_key = "wk-web"
        assert 200 == server.track("Before")
        server.process.send_signal(signal.SIGUSR2)
        wait_until(lambda: "upgrade_started" in server.log, "the upgrade")
        wait_until(
            lambda: len(server.children()) > 3 or "upgrade_completed" in server.log, "new ones"
        )
        children = server.children()
        os.kill(server.process.pid, number)
        assert (0 if number == signal.SIGTERM else -number) == server.wait()
        wait_until(lambda: all(map(is_gone, children.values())), "all processes are gone")
    with serving(tmp_path / "data", settings=settings()) as server:
        assert ["Before"] == [each["event"] for each in server.wait_for_events(1)]


def test_a_request_before_an_upgrade_is_carried_out_after_it(tmp_path: Path) -> None:
    """The installed version carries out a reload and an upgrade that are waiting."""
    with serving(tmp_path / "data", settings=settings(1)) as server:
        data = DataDir.find(server.data_dir)
        server.process.send_signal(signal.SIGUSR2)
        wait_until(lambda: len(server.children()) > 2, "the installed version checks")
        with ThreadPoolExecutor() as pool:
            asked = [
                pool.submit(ask, data, signal.SIGHUP, RELOAD_OUTCOME, 60.0),
                pool.submit(ask, data, signal.SIGUSR2, UPGRADE_OUTCOME, 60.0),
            ]
            assert [True, True] == [each.result().is_successful for each in asked]
        assert 2 == server.log_events().count("upgrade_completed")


def test_systemd_is_notified_of_an_upgrade(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        with serving(tmp_path / "data", settings=settings(1), environment=environment) as server:
            manager.recv(4096)
            pid = server.process.pid
            assert upgrade(server).is_successful, server.log
            assert manager.recv(4096).startswith(b"RELOADING=1\n")
            assert manager.recv(4096).startswith(b"READY=1\n")
            assert pid == DataDir.find(server.data_dir).owner()
            server.stop()
            assert manager.recv(4096).startswith(b"STOPPING=1\n")
