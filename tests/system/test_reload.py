"""Reload the settings of a real server under load; no request fails, and no event is lost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import urllib.error
from pathlib import Path

from pixelfast.commands.running import ask
from pixelfast.operate.reload import RELOAD_OUTCOME
from pixelfast.spool import DataDir
from tests.load import Load
from tests.program import run_pixelfast
from tests.servers import Server, serving
from tests.waiting import wait_until

SOURCE = """
[[sources]]
name = "{name}"
write_keys = ["{key}"]
{more}
"""
FILE = """
[[destinations]]
name = "{name}"
type = "file"
"""


def source(name: str, key: str, more: str = "") -> str:
    return SOURCE.format(name=name, key=key, more=more)


WEB = source("web", "wk-web")
ARCHIVE = FILE.format(name="archive")
SERVER = "[server]\nworkers = 2\n"
PLAIN = SERVER + WEB + ARCHIVE


def rewrite(server: Server, settings: str) -> None:
    """Replace the file atomically, because a reload may be reading it."""
    path = server.data_dir.parent / f"{server.data_dir.name}.toml"
    path.with_suffix(".new").write_text(settings)
    path.with_suffix(".new").replace(path)


def reload(server: Server, settings: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    if settings is not None:
        rewrite(server, settings)
    return run_pixelfast("reload", "--data-dir", str(server.data_dir))


def reload_well(server: Server, settings: str | None = None) -> list[str]:
    """Do the same as the command, without the cost of a new interpreter."""
    if settings is not None:
        rewrite(server, settings)
    outcome = ask(DataDir.find(server.data_dir), signal.SIGHUP, RELOAD_OUTCOME, 60.0)
    assert outcome.is_successful, server.log
    return outcome.lines


def track(server: Server, key: str, event: str = "E") -> int:
    return server.get(f"/pixel/v1/track?writeKey={key}&anonymousId=a&event={event}").status


def names_of(server: Server, destination: str) -> list[str]:
    return sorted(each["event"] for each in server.events(destination))


def ready(server: Server) -> dict[str, object]:
    found: dict[str, object] = json.loads(server.admin("/health/ready"))
    return found


def is_ready(server: Server) -> bool:
    try:
        return bool(ready(server)["is_ready"])
    except urllib.error.HTTPError as error:
        error.close()
        return False


def test_reloads_under_load_fail_no_request_and_lose_no_event(tmp_path: Path) -> None:
    """Sources, keys, limits, proxies and destinations change repeatedly."""
    changes = [
        PLAIN + source("app", "wk-app") + FILE.format(name="second"),
        SERVER + "idle_timeout_s = 20.0\nmax_connections = 5000\n" + WEB + ARCHIVE,
        SERVER + 'trusted_proxies = ["192.0.2.0/24"]\n' + source("app", "wk-app") + WEB + ARCHIVE,
        SERVER + source("web", "wk-web", 'placeholders = "keep"\nstrings = ["properties.a"]'),
    ]
    changes[3] += ARCHIVE + "rotate_bytes = 100000\n"

    async def main(server: Server) -> None:
        load = Load(server.port, "wk-web", connections=6, pause_s=0.002, fresh=2)
        load.start()
        for settings in changes * 2:
            await asyncio.to_thread(rewrite, server, settings)
            server.process.send_signal(signal.SIGHUP)
            await load.until_acked(60)
        assert [] == await asyncio.to_thread(reload_well, server)
        await load.stop()
        assert ({}, 0) == (load.rejected, load.broken)
        assert load.sent == set(load.acked)
        found = await asyncio.to_thread(server.wait_for_events, len(load.acked))
        assert sorted(load.acked) == sorted(each["event"] for each in found)

    with serving(tmp_path / "data", settings=PLAIN) as server:
        before = server.children()
        asyncio.run(main(server))
        assert before == server.children(), "a process was restarted"
        server.check_sums()


def test_sources_keys_and_destinations_follow(tmp_path: Path) -> None:
    with serving(tmp_path / "data", settings=PLAIN + source("old", "wk-old")) as server:
        assert [200, 200, 401] == [track(server, f"wk-{each}") for each in ("web", "old", "new")]
        settings = (
            SERVER
            + source("web", "wk-web", "enabled = false")
            + source("new", "wk-new", 'destinations = ["second"]')
            + ARCHIVE
            + FILE.format(name="second")
        )
        assert [] == reload_well(server, settings)
        assert [404, 401, 200] == [
            track(server, f"wk-{each}", "After") for each in ("web", "old", "new")
        ]
        wait_until(lambda: names_of(server, "second") == ["After"], "the new destination's event")
        assert ["E", "E"] == names_of(server, "archive")
        reload_well(server, PLAIN + FILE.format(name="second"))
        assert [200, 401, 401] == [
            track(server, f"wk-{each}", "Back") for each in ("web", "old", "new")
        ]
        wait_until(lambda: names_of(server, "second") == ["After", "Back"], "both events")


def test_many_reloads_at_once_end_with_the_last_file(tmp_path: Path) -> None:
    quiet = PLAIN + '[log]\nlevel = "warning"\n'
    with serving(tmp_path / "data", settings=quiet) as server:
        for n in range(100):
            rewrite(server, quiet + source("new", f"wk-{n}"))
            server.process.send_signal(signal.SIGHUP)
        reload_well(server)
        assert [401, 200] == [track(server, f"wk-{n}") for n in (98, 99)]
        assert {"pixel_rejected"} == set(server.log_events())
        reload_well(server, PLAIN)
        assert {"pixel_rejected", "reload_completed"} == set(server.log_events())
        reload_well(server)
        assert "destinations_reloaded" in server.log_events()


def test_a_file_with_errors_changes_nothing(tmp_path: Path) -> None:
    with serving(tmp_path / "data", settings=PLAIN) as server:
        assert 1.0 == server.metrics()["pixelfast_config_last_reload_successful"]
        done = reload(server, PLAIN.replace("wk-web", "wk-other") + "wrong = 1\nrotate_bytes = 1\n")
        assert (1, "") == (done.returncode, done.stdout)
        assert "destinations[archive].wrong: unknown setting" in done.stderr
        assert "destinations[archive].rotate_bytes = 1: expected" in done.stderr
        assert 2 == server.log_events().count("reload_rejected")
        assert "a reload cannot enable the demo source" in reload(server, "[server]\n").stderr
        reload(server, PLAIN + "wrong = 1\nother = 1\n")
        assert 200 == track(server, "wk-web")
        state = ready(server)["reload"]
        assert isinstance(state, dict)
        assert (False, 2) == (state["is_successful"], len(state["problems"]))
        before = server.metrics()
        assert 0.0 == before["pixelfast_config_last_reload_successful"]
        reload_well(server, PLAIN)
        after = server.metrics()
        assert 1.0 == after["pixelfast_config_last_reload_successful"]
        name = "pixelfast_config_last_reload_success_timestamp_seconds"
        assert after[name] > before[name]


def test_settings_that_a_reload_cannot_change_are_reported_and_the_others_applied(
    tmp_path: Path,
) -> None:
    settings = PLAIN.replace("workers = 2", "workers = 1") + source("new", "wk-new")
    with serving(tmp_path / "data", settings=PLAIN) as server:
        done = reload(server, settings + '[spool]\nack = "written"\n')
        assert (0, "") == (done.returncode, done.stderr)
        assert [
            "settings reloaded",
            "server.workers is still 2; 1 requires a restart or `pixelfast upgrade`",
            'spool.ack is still "synced"; "written" requires a restart or `pixelfast upgrade`',
        ] == done.stdout.splitlines()
        assert 200 == track(server, "wk-new")
        assert 2 == server.log_events().count("setting_not_reloaded")


def test_a_process_that_hangs_holds_up_a_reload_until_it_is_replaced(tmp_path: Path) -> None:
    settings = PLAIN.replace(SERVER, SERVER + "hung_after_s = 2.0\n")
    with serving(tmp_path / "data", settings=settings) as server:
        os.kill(server.children()["pf-collector-1"], signal.SIGSTOP)
        assert [] == reload_well(server, settings + source("new", "wk-new"))
        wait_until(lambda: is_ready(server), "ready")
        assert [200] * 8 == [track(server, "wk-new") for _ in range(8)]
        assert "process_hung" in server.log_events()


def test_processes_that_die_in_a_reload_or_later_follow_it(tmp_path: Path) -> None:
    with serving(tmp_path / "data", settings=PLAIN) as server:
        for n, name in enumerate(("pf-delivery", "pf-collector-0")):
            pid = server.children()[name]
            os.kill(pid, signal.SIGSTOP)  # so that it hangs in the middle of the reload
            rewrite(server, PLAIN + source("new", f"wk-{n}") + "[spool]\nmax_wait_s = 1.0\n")
            server.process.send_signal(signal.SIGHUP)
            os.kill(pid, signal.SIGKILL)
            reload_well(server)
        wait_until(lambda: is_ready(server), "ready")
        assert [200] * 8 == [track(server, "wk-1") for _ in range(8)]
        later = server.children()["pf-collector-1"]
        os.kill(later, signal.SIGKILL)
        wait_until(lambda: server.children().get("pf-collector-1", later) != later, "another one")
        wait_until(lambda: is_ready(server), "ready")
        assert [200] * 8 == [track(server, "wk-1") for _ in range(8)]


def test_a_reload_that_is_wanted_after_a_stop_began_is_ignored(tmp_path: Path) -> None:
    settings = PLAIN.replace(SERVER, SERVER + "lame_duck_s = 1.5\n")
    with serving(tmp_path / "data", settings=settings) as server:
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "server_stopping" in server.log_events(), "the stop")
        server.process.send_signal(signal.SIGHUP)
        assert 200 == track(server, "wk-web")
        assert 0 == server.wait()
        assert "reload_ignored" in server.log_events()


def test_a_reload_without_a_settings_file_or_a_server_is_an_error(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        done = reload(server)
        assert 1 == done.returncode
        assert "there is no settings file" in done.stderr
        assert 200 == server.track("After")
    done = reload(server)
    assert 1 == done.returncode
    assert "no server of this user is running" in done.stderr


def test_an_open_connection_follows_the_trusted_proxies(tmp_path: Path) -> None:
    target = "/pixel/v1/track?writeKey=wk-web&anonymousId=a&event=E"
    request = f"GET {target} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n".encode()
    settings = PLAIN.replace(SERVER, SERVER + "trusted_proxies = []\n")
    with (
        serving(tmp_path / "data", settings=PLAIN) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as client,
    ):
        for each in (settings, PLAIN, settings):
            client.sendall(request)
            assert client.recv(65536).startswith(b"HTTP/1.1 200")
            reload_well(server, each)
        client.sendall(request)
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
        found = [each["request_ip"] for each in server.wait_for_events(4)]
        assert ["192.0.2.7", "127.0.0.1", "192.0.2.7", "127.0.0.1"] == found


def test_systemd_is_notified_of_a_reload(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        with serving(tmp_path / "data", settings=PLAIN, environment=environment) as server:
            manager.recv(4096)
            reload_well(server)
            assert manager.recv(4096).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert manager.recv(4096).startswith(b"READY=1\n")
