"""Modes of existing files are corrected, but never through a link."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from pixelfast.errors import SpoolLocked
from pixelfast.spool import DataDir
from pixelfast.spool.datadir import lock_file
from pixelfast.spool.modes import correct_modes
from tests.modes import mode, umask


def every(_name: str) -> bool:
    return True


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    folder.chmod(0o755)
    return folder


def test_folders_and_files_are_corrected_and_counted(folder: Path) -> None:
    inner = folder / "shards" / "0"
    inner.mkdir(parents=True)
    for path, before in ((inner, 0o2777), (inner.parent, 0o000), (folder, 0o777)):
        (path / "file").touch() if path == inner else None
        path.chmod(before)
    (folder / "META").touch(0o666)
    with capture_logs() as logs:
        correct_modes(folder, every)
    assert ["0700", "0700", "2700"] == [mode(each) for each in (folder, inner.parent, inner)]
    assert ["0600", "0600"] == [mode(folder / "META"), mode(inner / "file")]
    assert [("modes_corrected", 2, 3)] == [
        (each["event"], each["files"], each["folders"]) for each in logs
    ]
    with capture_logs() as logs:
        correct_modes(folder, every)
    assert [] == logs


def test_foreign_files_keep_their_modes(folder: Path) -> None:
    (folder / "pixelfast.toml").touch()
    (folder / "pixelfast.toml").chmod(0o644)
    correct_modes(folder, lambda name: name == "META")
    assert ("0700", "0644") == (mode(folder), mode(folder / "pixelfast.toml"))


@pytest.mark.parametrize("is_folder", [True, False])
def test_no_mode_is_changed_through_a_symbolic_link(
    tmp_path: Path, folder: Path, is_folder: bool
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    for path, before in ((outside, 0o755), (outside / "file", 0o644)):
        path.chmod(before)
    (folder / "META").symlink_to(outside if is_folder else outside / "file")
    correct_modes(folder, every)
    assert ("0755", "0644") == (mode(outside), mode(outside / "file"))


def test_no_mode_is_changed_through_a_hard_link(tmp_path: Path, folder: Path) -> None:
    outside = tmp_path / "passwd"
    outside.touch()
    outside.chmod(0o644)
    (folder / "META").hardlink_to(outside)
    with capture_logs() as logs:
        correct_modes(folder, every)
    assert "0644" == mode(outside)
    assert [("modes_not_corrected", 1, str(folder / "META"))] == [
        (each["event"], each["count"], each["path"]) for each in logs if "count" in each
    ]


def test_a_folder_shared_by_all_users_is_not_changed(folder: Path) -> None:
    folder.chmod(0o1777)
    with capture_logs() as logs:
        correct_modes(folder, every)
    assert "1777" == mode(folder)
    assert ["modes_not_corrected"] == [each["event"] for each in logs]


def test_a_mode_that_cannot_be_corrected_is_logged_without_an_error(tmp_path: Path) -> None:
    with capture_logs() as logs:
        correct_modes(tmp_path / "file" / "folder", every)  # missing: nothing to correct
        (tmp_path / "file").touch()
        correct_modes(tmp_path / "file", every)
    assert [("modes_not_corrected", "Not a directory")] == [
        (each["event"], each["error"]) for each in logs
    ]


def test_a_link_to_the_data_directory_is_followed(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    correct_modes(tmp_path / "link", every)
    assert "0700" == mode(folder)


def test_a_data_directory_is_private_from_its_beginning(tmp_path: Path) -> None:
    with umask(0):
        DataDir.open(tmp_path / "data")
    assert "0700" == mode(tmp_path / "data")


def test_a_data_directory_corrects_its_own_files(tmp_path: Path) -> None:
    data = DataDir.open(tmp_path / "data")
    strange = data.path / "notes.txt"
    for path in (data.path / "META", data.path / "META.0123", strange):
        path.touch()
        path.chmod(0o644)
    for path in (data.path, data.quarantine_dir):
        path.chmod(0o755)
    data.make_private()
    assert ["0700", "0700", "0600", "0600", "0644"] == [
        mode(each)
        for each in (
            data.path,
            data.quarantine_dir,
            data.path / "META",
            data.path / "META.0123",
            strange,
        )
    ]


def test_a_lock_file_is_private_and_not_a_link(tmp_path: Path) -> None:
    with umask(0):
        os.close(lock_file(tmp_path / "lock"))
    assert "0600" == mode(tmp_path / "lock")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        lock_file(tmp_path / "link")
    assert not (tmp_path / "elsewhere").exists()


def test_the_holder_of_a_lock_is_named(tmp_path: Path) -> None:
    fd = lock_file(tmp_path / "lock")
    try:
        with pytest.raises(SpoolLocked, match=rf"lock is held by process {os.getpid()} \(.+\) of"):
            lock_file(tmp_path / "lock")
    finally:
        os.close(fd)


def test_a_link_that_replaces_a_file_meanwhile_is_not_followed(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = tmp_path / "outside"
    outside.touch()
    outside.chmod(0o644)
    (folder / "META").touch(0o644)
    real = os.open

    def swapping(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if path == "META":
            (folder / "META").unlink()
            (folder / "META").symlink_to(outside)
        return real(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", swapping)
    correct_modes(folder, every)
    monkeypatch.undo()
    assert (True, "0644") == ((folder / "META").is_symlink(), mode(outside))
