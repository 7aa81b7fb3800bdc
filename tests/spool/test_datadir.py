"""The data directory: one node id for all processes, its locks, its layout."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from pixelfast.errors import SpoolError, SpoolLocked
from pixelfast.spool import DataDir
from pixelfast.spool.datadir import lock_file, sync_directory
from tests.leaks import open_fds

OPENING = """
import sys
from pixelfast.spool import DataDir
print("ready", flush=True)
sys.stdin.readline()
print(DataDir.open(sys.argv[1]).node.hex())
"""


def test_a_new_directory_has_all_its_parts(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "data"
    data = DataDir.open(root)
    names = {path.name for path in root.iterdir()}
    assert names == {"META", "shards", "dest", "quarantine"}
    meta = msgspec.json.decode((root / "META").read_bytes())
    assert meta == {"format": 2, "node": data.node.hex()}
    assert (16, []) == (len(data.node), data.slots())


def test_each_directory_has_its_own_node(tmp_path: Path) -> None:
    nodes = {DataDir.open(tmp_path / str(number)).node for number in range(10)}
    assert len(nodes) == 10


def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    data = DataDir.open(tmp_path)
    before = (tmp_path / "META").stat()
    for _ in range(3):
        assert data.node == DataDir.open(tmp_path).node
    after = (tmp_path / "META").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_processes_that_start_at_the_same_time_agree_on_the_node(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", OPENING, tmp_path / "data"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        for _ in range(4)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        nodes = {process.communicate(timeout=60)[0].strip() for process in processes}
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert {DataDir.open(tmp_path / "data").node.hex()} == nodes
    names = {path.name for path in (tmp_path / "data").iterdir()}
    assert names == {"META", "shards", "dest", "quarantine"}


@pytest.mark.parametrize("moment", ["fsync", "link"])
def test_processes_with_the_same_id_agree_on_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    # In two containers that share the directory, both may be process 1. The other one runs between
    # two steps of this one.
    others: list[bytes] = []
    real = getattr(os, moment)

    def interrupted(*arguments: object) -> None:
        if not others:
            others.append(b"")
            others[0] = DataDir.open(tmp_path).node
        real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, moment, interrupted)
        node = DataDir.open(tmp_path).node
    assert [node] == others
    assert node == DataDir.open(tmp_path).node


def test_a_new_meta_left_by_a_crash_is_ignored(tmp_path: Path) -> None:
    (tmp_path / f"META.{os.getpid()}").write_bytes(b'{"form')
    data = DataDir.open(tmp_path)
    assert data.node == DataDir.open(tmp_path).node


@pytest.mark.parametrize(
    "meta",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b"null",
        b"{}",
        b'{"format": 1}',
        b'{"format": "1", "node": "00112233445566778899aabbccddeeff"}',
        b'{"format": 1, "node": 5}',
        b'{"format": 1, "node": "no hex"}',
        b'{"format": 1, "node": "\xc3\xa9"}',
        b'{"format": 1, "node": "0011"}',
        b'{"format": 1, "node": ""}',
    ],
)
def test_a_damaged_meta_is_rejected_and_kept(tmp_path: Path, meta: bytes) -> None:
    # A new one would make every existing segment unreadable.
    (tmp_path / "META").write_bytes(meta)
    with pytest.raises(SpoolError, match="META"):
        DataDir.open(tmp_path)
    assert meta == (tmp_path / "META").read_bytes()


@pytest.mark.parametrize("node", ["0011", "00" * 15, "00" * 17])
def test_a_node_of_the_wrong_length_is_reported_as_damage(tmp_path: Path, node: str) -> None:
    (tmp_path / "META").write_text(f'{{"format": 1, "node": "{node}"}}')
    with pytest.raises(SpoolError, match="damaged"):
        DataDir.open(tmp_path)


def test_another_format_version_is_rejected_by_name(tmp_path: Path) -> None:
    (tmp_path / "META").write_text(f'{{"format": 3, "node": "{"00" * 16}"}}')
    with pytest.raises(SpoolError, match="unknown format 3, this program reads 1 to 2; use the"):
        DataDir.open(tmp_path)


@pytest.mark.parametrize("obstacle", ["", "shards", "dest", "quarantine"])
def test_a_file_in_the_place_of_a_directory_is_rejected(tmp_path: Path, obstacle: str) -> None:
    root = tmp_path / "data"
    if obstacle:
        root.mkdir()
    (root / obstacle).write_bytes(b"")
    with pytest.raises(SpoolError, match="data directory"):
        DataDir.open(root)


def test_a_directory_in_the_place_of_meta_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "META").mkdir()
    with pytest.raises(SpoolError, match="data directory"):
        DataDir.open(tmp_path)


def test_the_new_meta_is_synced_and_so_is_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without a sync of its directory, the name of a file was gone after a power failure.
    synced: list[str] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        synced.append("directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    DataDir.open(tmp_path / "data")
    assert "file" in synced
    assert synced[-1] == "directory"


def test_a_directory_has_only_one_owner(data: DataDir) -> None:
    fd = data.lock()
    with pytest.raises(SpoolLocked, match="another pixelfast"):
        data.lock()
    os.close(fd)
    os.close(data.lock())


def test_a_lock_ends_with_its_process(data: DataDir) -> None:
    program = """
import sys
from pixelfast.spool import DataDir
fd = DataDir.open(sys.argv[1]).lock()
print("locked", flush=True)
sys.stdin.read()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program, data.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(SpoolLocked):
            data.lock()
    finally:
        process.kill()
        process.communicate()
    os.close(data.lock())


def test_a_lock_is_not_inherited(tmp_path: Path) -> None:
    fd = lock_file(tmp_path / "lock")
    assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    os.close(fd)


def test_a_shared_lock_excludes_only_the_exclusive_one(tmp_path: Path) -> None:
    first = lock_file(tmp_path / "lock", shared=True)
    second = lock_file(tmp_path / "lock", shared=True)
    with pytest.raises(SpoolLocked):
        lock_file(tmp_path / "lock")
    os.close(first)
    os.close(second)
    os.close(lock_file(tmp_path / "lock"))


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    data = DataDir.open(tmp_path)
    held = data.lock()
    before = open_fds()
    for _ in range(3):
        DataDir.open(tmp_path)
        sync_directory(tmp_path)
        with pytest.raises(SpoolLocked):
            data.lock()
    assert before == open_fds()
    os.close(held)


def test_only_slots_and_segments_are_listed(data: DataDir) -> None:
    for name in ("0", "10", "2", "lost+found", "-1", "1.bak", "\u0663"):
        data.slot_dir(0).with_name(name).mkdir()
    for name in ("00000000000000ff.seg", "0000000000000002.seg", "writer.lock", "spare", "x.seg"):
        (data.slot_dir(2) / name).touch()
    assert [0, 2, 10] == data.slots()
    assert [2, 255] == data.segments(2)
    assert [] == data.segments(0)
    assert [] == data.segments(77)
