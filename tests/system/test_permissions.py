"""Only its own user can open the files of a server, regardless of the umask at its start."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pixelfast.deliver.dead import DeadLetters
from tests.bundles import bundle
from tests.modes import mode, umask
from tests.program import run_pixelfast
from tests.servers import serving

NOBODY = 65534
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

SHARED = """
[[destinations]]
name = "archive"
type = "file"

[[destinations]]
name = "shared"
type = "file"
path = "{path}"
archive_mode = "{mode}"
"""

# As another user, try to open and lock everything, and print the paths for which that worked.
INTRUDER = """
import fcntl, os, sys
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(65534)
for line in sys.stdin:
    path = line.rstrip("\\n")
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDONLY | os.O_DIRECTORY):
        try:
            fd = os.open(path, flags | os.O_NONBLOCK)
        except OSError:
            continue
        print(path)
        break
"""


def tree(root: Path) -> list[Path]:
    return sorted([root, *root.rglob("*")])


def wrong_modes(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): mode(path)
        for path in tree(root)
        if mode(path) != ("0700" if path.is_dir() else "0600")
    }


def opened_by_nobody(paths: list[Path], group: int = NOBODY) -> list[str]:
    """Return which of these another user can open. The parents can be entered, unlike pytest's."""
    result = subprocess.run(
        [sys.executable, "-I", "-c", INTRUDER, "", str(group)],
        input="\n".join(map(str, paths)),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return result.stdout.splitlines()


@pytest.fixture
def folder() -> Iterator[Path]:
    """Create a folder that every user can enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o711)
        yield path


def add_dead_letter(data_dir: Path) -> None:
    dead = DeadLetters(data_dir / "dead" / "archive" / "dead.db")
    dead.add([bundle(0, b'{"type":"track"}')])
    dead.close()


@pytest.mark.parametrize("mask", ["000", "022", "077", "777"])
def test_all_files_of_a_server_are_private_with_any_umask(folder: Path, mask: str) -> None:
    with umask(int(mask, 8)):
        with serving(folder / "data") as server:
            assert 200 == server.track("E")
            server.wait_for_events(1)
            assert {} == wrong_modes(folder / "data")
            names = {path.name for path in tree(folder / "data")}
            assert {"META", "LOCK", "writer.lock", "state.db", "lock", "demo-write-key"} <= names
            assert ".lock" in names
        assert {} == wrong_modes(folder / "data")


@NEEDS_ROOT
def test_another_user_opens_nothing_of_a_running_server(folder: Path) -> None:
    assert [str(folder / "bait")] == opened_by_nobody(
        [_bait(folder)]
    )  # it can open files that it may open
    with umask(0), serving(folder / "data") as server:
        assert 200 == server.track("E")
        server.wait_for_events(1)
        paths = tree(folder / "data")
        assert len(paths) > 15
        assert [] == opened_by_nobody(paths)


@NEEDS_ROOT
def test_not_even_the_files_would_let_another_user_in(folder: Path) -> None:
    """The folder's mode would suffice, but its content may be copied or mounted."""
    with umask(0), serving(folder / "data") as server:
        assert 200 == server.track("E")
        server.wait_for_events(1)
        for path in tree(folder / "data"):
            if path.is_dir():
                path.chmod(0o755)
        files = [path for path in tree(folder / "data") if path.is_file()]
        assert [] == opened_by_nobody(files)


def _bait(folder: Path) -> Path:
    path = folder / "bait"
    path.touch()
    path.chmod(0o644)
    return path


def test_modes_of_an_earlier_version_are_corrected_at_the_start(folder: Path) -> None:
    with serving(folder / "data") as server:
        assert 200 == server.track("E")
        server.wait_for_events(1)
    add_dead_letter(folder / "data")
    (folder / "data" / "quarantine" / "0-1-2.bad").write_bytes(b"x")
    files = folders = 0
    for path in tree(folder / "data"):
        path.chmod(0o755 if path.is_dir() else 0o644)
        folders += path.is_dir()
        files += path.is_file()
    with serving(folder / "data", environment={"COLUMNS": "80"}) as server:
        corrected = [line for line in server.log.splitlines() if "modes_corrected" in line]
        assert 1 == len(corrected)
        assert f'"files": {files}' in corrected[0]
        assert f'"folders": {folders}' in corrected[0]
        assert {} == wrong_modes(folder / "data")


@NEEDS_ROOT
def test_a_group_reads_an_archive_that_is_shared_with_it_and_nothing_else(folder: Path) -> None:
    group = 54321
    shared = folder / "shared"
    settings = SHARED.format(path=shared, mode="0640")
    with umask(0), serving(folder / "data", settings=settings) as server:
        assert 200 == server.track("E")
        server.wait_for_events(1)
        while not list(shared.glob("*.ndjson")):
            server.wait_for_events(1)
        for path in (shared, *shared.iterdir()):
            os.chown(path, -1, group)
        files = sorted(shared.glob("*.ndjson"))
        assert ["0640"] == [mode(path) for path in files]
        assert ("0750", "0600") == (mode(shared), mode(shared / ".lock"))
        paths = [*tree(folder / "data"), *tree(shared)]
        assert [str(shared), *map(str, files)] == opened_by_nobody(paths, group)
        assert [] == opened_by_nobody(paths)


@NEEDS_ROOT
def test_a_stranger_cannot_stop_the_next_start_by_holding_locks(folder: Path) -> None:
    with serving(folder / "data") as server:
        assert 200 == server.track("E")
        server.wait_for_events(1)
    paths = "\n".join(map(str, tree(folder / "data")))
    program = (
        INTRUDER.replace("break", "fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB); break")
        + "\nprint('ready', flush=True); os.read(3, 1)\n"
    )
    ours, theirs = os.pipe()
    intruder = subprocess.Popen(
        [sys.executable, "-I", "-c", f"import os; os.dup2({ours}, 3)\n{program}", "", str(NOBODY)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=(ours,),
    )
    try:
        assert intruder.stdin is not None
        assert intruder.stdout is not None
        intruder.stdin.write(paths)
        intruder.stdin.close()
        assert "ready\n" == intruder.stdout.readline()  # it has no lock
        with serving(folder / "data") as server:
            assert 200 == server.track("E")
            server.wait_for_events(2)
    finally:
        os.close(ours)
        os.close(theirs)
        intruder.wait(30)
        assert intruder.stdout is not None
        intruder.stdout.close()


def test_a_lock_that_was_held_before_its_mode_was_corrected_says_by_whom(folder: Path) -> None:
    data = folder / "data"
    data.mkdir()
    with (data / "LOCK").open("w") as held:
        (data / "LOCK").chmod(0o644)
        fcntl.flock(held, fcntl.LOCK_EX)
        result = run_pixelfast("serve", "--data-dir", str(data))
    assert 1 == result.returncode
    assert f"LOCK is held by process {os.getpid()} (" in result.stderr
    assert "0600" == mode(data / "LOCK")


@pytest.mark.parametrize("wanted", ["", "0600", "0660", "0666"])
def test_unix_sockets_have_the_mode_that_is_set(folder: Path, wanted: str) -> None:
    path = folder / "px.sock"
    settings = f'[server]\nunix_mode = "{wanted}"\n' if wanted else ""
    with umask(0o037), serving(folder / "data", "--listen", f"unix:{path}", settings=settings):
        assert (wanted or "0666") == mode(path)


def test_a_unix_socket_whose_peers_are_not_trusted_is_warned_of(folder: Path) -> None:
    path = folder / "px.sock"
    for trusted in ("", '[server]\ntrusted_proxies = ["unix:"]\n'):
        with serving(folder / "data", "--listen", f"unix:{path}", settings=trusted) as server:
            pass
        assert (not trusted) == ("unix_peers_not_trusted" in server.log_events())
        server.log_path.unlink()


def test_a_socket_that_others_cannot_get_to_is_warned_of(folder: Path) -> None:
    inside, outside = folder / "data" / "px.sock", folder / "px.sock"
    listen = ("--listen", f"unix:{inside}", "--listen", f"unix:{outside}")
    with serving(folder / "data", *listen) as server:
        warned = [line for line in server.log.splitlines() if "socket_in_data_dir" in line]
    assert [True] == [str(inside) in line for line in warned]
