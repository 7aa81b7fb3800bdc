"""`pixelfast drain` says whether a machine can be removed."""

from __future__ import annotations

import subprocess
from pathlib import Path

from pixelfast.cluster.cursor import ReplicationCursor, write_cursor
from tests.program import run_pixelfast
from tests.servers import serving
from tests.spools import Slot, open_data

SETTINGS = """
[cluster]
brokers = ["{brokers}"]
topic = "events"
min_insync = 1
"""


def drain(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command with the settings file of a folder, if there is one, without a server."""
    path = folder / "pixelfast.toml"
    file = ["-c", str(path)] if path.exists() else []
    return run_pixelfast("drain", *file, "--data-dir", str(folder / "data"), *arguments)


def fill(folder: Path) -> None:
    slot = Slot(open_data(folder / "data"))
    slot.write(b'{"a":1}', b'{"a":2}', received_ms=1000)
    slot.close()


def test_the_reason_is_told_if_the_brokers_do_not_respond(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "pixelfast.toml").write_text(SETTINGS.format(brokers="127.0.0.1:1"))
    done = drain(tmp_path, "--timeout", "0.5")
    assert 1 == done.returncode
    assert "127.0.0.1:1" in done.stderr
    assert "Connection refused" in done.stderr


def test_the_settings_of_a_cluster_cannot_be_forgotten(tmp_path: Path) -> None:
    fill(tmp_path)
    write_cursor(open_data(tmp_path / "data"), 0, ReplicationCursor())
    done = drain(tmp_path)
    assert 1 == done.returncode
    assert "are replicated to a cluster; specify its settings file with --config" in done.stderr


def test_without_a_cluster_all_destinations_must_have_their_events(tmp_path: Path) -> None:
    with serving(tmp_path / "data", "--workers", "1") as server:
        server.track("a")
        done = drain(tmp_path)
        assert (0, "all events are delivered\n") == (done.returncode, done.stdout)
        assert "a server is running with this data directory" in done.stderr
        assert "the files in" in done.stderr
        assert 1 == len(server.events())
    fill(tmp_path)
    done = drain(tmp_path, "--timeout", "0")
    assert (1, "not all events are delivered:") == (done.returncode, done.stdout.splitlines()[0])
    assert ["archive", "2"] == done.stdout.splitlines()[2].split()[:2]
    assert "no server is running with this data directory; start it\n" == done.stderr
