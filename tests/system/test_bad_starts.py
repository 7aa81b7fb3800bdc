"""A start that fails prints one line with the problem, the value, the limit and the remedy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.program import run_pixelfast
from tests.servers import serving

NEEDS_PRLIMIT = pytest.mark.skipif(
    shutil.which("prlimit") is None, reason="needs prlimit of util-linux"
)
NEEDS_ROOT = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare"
)
LOCAL = ("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--workers", "1")
# All modules of a start are imported before, because another user may be unable to read them.
AS_NOBODY = """
import encodings.idna, os
import pixelfast.cli, pixelfast.commands.serve
os.setgroups([]); os.setgid(65534); os.setuid(65534)
pixelfast.cli.main()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Create a folder that every user can enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o711)
        yield path


def failed_start(*arguments: str, before: tuple[str, ...] = (), code: int = 1) -> str:
    """Return the one line that a failed start prints."""
    result = run_pixelfast("serve", *LOCAL, *arguments, before=before)
    assert (code, "", 1) == (result.returncode, result.stdout, result.stderr.count("\n")), result
    return result.stderr.strip()


@NEEDS_PRLIMIT
@pytest.mark.parametrize(
    ("limit", "message"),
    [
        (
            "--nofile=64",
            "the limit of open files is 64; a collector needs at least 129, and 20,065 for"
            " server.max_connections = 20,000; raise it with LimitNOFILE= in the systemd unit, or"
            " with `ulimit -n`",
        ),
        (
            "--fsize=1000000",
            "the limit of file sizes is 1MB; spool.segment_bytes is 64MiB; raise it with"
            " LimitFSIZE= in the systemd unit, or with `ulimit -f`",
        ),
        (
            f"--as={200 * 2**20}",
            "the limit of address space is 200MiB; a process needs at least 256MiB; raise it with"
            " LimitAS= in the systemd unit, or with `ulimit -v`",
        ),
    ],
)
def test_a_limit_that_is_too_low_is_named(tmp_path: Path, limit: str, message: str) -> None:
    line = failed_start("--data-dir", str(tmp_path / "data"), before=("prlimit", limit))
    assert f"pixelfast: {message}" == line


@NEEDS_PRLIMIT
def test_a_low_limit_that_works_is_one_warning_of_the_supervisor(tmp_path: Path) -> None:
    with serving(tmp_path / "data", "--workers", "2", open_files=500) as server:
        assert 200 == server.track("E")
        lines = [line for line in server.log.splitlines() if "max_connections_lowered" in line]
    assert 1 == len(lines)
    assert '"used": 435' in lines[0]
    assert "LimitNOFILE=" in lines[0]
    assert '"process"' not in lines[0]


@NEEDS_PRLIMIT
def test_the_soft_limit_is_raised_to_the_hard_one_for_all_processes(tmp_path: Path) -> None:
    with serving(tmp_path / "data", "--workers", "1", limit="--nofile=256:4096") as server:
        pids = [server.process.pid, *server.children().values()]
        limits = [
            line.split()[3:5]
            for pid in pids
            for line in Path(f"/proc/{pid}/limits").read_text().splitlines()
            if line.startswith("Max open files")
        ]
        assert [["4096", "4096"]] * 3 == limits
        (started,) = (line for line in server.log.splitlines() if '"server_started"' in line)
        assert '"open_files": 4096' in started


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("file", "{folder}/file is not a directory"),
        ("file/data", "{folder}/file is not a directory"),
        ("x" * 300, "a name has 300 bytes; the limit is 255"),
        ("y/" * 2100, "bytes; the limit is 4,095"),
    ],
)
def test_a_path_that_can_be_no_data_directory_is_named(
    tmp_path: Path, name: str, message: str
) -> None:
    (tmp_path / "file").touch()
    line = failed_start("--data-dir", f"{tmp_path}/{name}")
    assert line.startswith("pixelfast: data directory ")
    assert line.endswith(message.format(folder=tmp_path))


@NEEDS_ROOT
def test_a_data_directory_of_another_user_is_one_line(folder: Path) -> None:
    with serving(folder / "data", "--workers", "1"):
        pass
    for path in (folder / "data", *(folder / "data").rglob("*")):
        os.chown(path, 65534, 65534)
    for part in ("META", "LOCK", "dest"):
        of_root = folder / "data" / part
        os.chown(of_root, 0, 0)
        result = serve_as_nobody("--data-dir", str(folder / "data"))
        os.chown(of_root, 65534, 65534)
        lines = [line for line in result.stderr.splitlines() if "modes_not_corrected" not in line]
        assert (1, 1) == (result.returncode, len(lines)), (part, result)
        assert "permission denied: " in lines[0]
        assert lines[0].endswith("belongs to root, this process runs as nobody")


def serve_as_nobody(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Start a server as another user, which must fail."""
    return subprocess.run(
        [sys.executable, "-c", AS_NOBODY, "serve", *LOCAL, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@NEEDS_ROOT
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("ro", "the file system is read-only"),
        ("nr_inodes=3", "No space left on device; free some space or choose another data_dir"),
        ("size=40k", "SQLite: database or disk is full"),
    ],
)
def test_a_disk_that_cannot_be_written_is_one_line(
    tmp_path: Path, options: str, message: str
) -> None:
    script = f'mount -t tmpfs -o {options} tmpfs {tmp_path} && exec "$@"'
    line = failed_start(
        "--data-dir", f"{tmp_path}/data", before=("unshare", "-m", "sh", "-c", script, "sh")
    )
    assert f"pixelfast: data directory {tmp_path}/data" == line[: len(str(tmp_path)) + 31]
    assert line.endswith(message)


def test_a_socket_path_that_is_too_long_is_named(tmp_path: Path) -> None:
    path = f"{tmp_path}/{'x' * 108}"
    for option in ("--listen", "--admin"):
        line = failed_start("--data-dir", f"{tmp_path}/data", option, f"unix:{path}", code=2)
        assert f"the path has {len(path)} bytes, limit 107" in line


def test_a_socket_in_a_directory_that_is_missing_is_named(tmp_path: Path) -> None:
    for option in ("--listen", "--admin"):
        address = f"unix:{tmp_path}/none/p.sock"
        line = failed_start("--data-dir", f"{tmp_path}/data", option, address, code=2)
        assert f"server.{option[2:]}: cannot listen on " in line
        assert line.endswith(f"the directory {tmp_path}/none does not exist")


@NEEDS_ROOT
def test_a_port_that_needs_a_capability_is_named(folder: Path) -> None:
    (folder / "own").mkdir()
    os.chown(folder / "own", 65534, 65534)
    arguments = ("--data-dir", f"{folder}/own/data", "--listen", "127.0.0.1:7")
    result = serve_as_nobody(*arguments)
    assert 2 == result.returncode
    assert "CAP_NET_BIND_SERVICE" in result.stderr
    assert 1 == result.stderr.count("\n")


def test_more_workers_than_cores_is_one_warning(tmp_path: Path) -> None:
    cores = len(os.sched_getaffinity(0))
    with serving(tmp_path / "data", "--workers", str(cores + 1)) as server:
        assert 1 == server.log_events().count("workers_exceed_cores")


def test_an_unwritable_tmpdir_is_ignored(tmp_path: Path) -> None:
    environment = {"TMPDIR": str(tmp_path / "none"), "SQLITE_TMPDIR": str(tmp_path / "none")}
    with serving(tmp_path / "data", "--workers", "1", environment=environment) as server:
        assert 200 == server.track("E")
        server.wait_for_events(1)
