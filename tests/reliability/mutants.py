"""Deliberate mistakes, each in its own build, which the harness must detect.

A mutant is the checkout with one string replaced. If the string does not occur exactly once, the
build fails, so that a mutant cannot silently become a build without its mistake. `python -m`
prefers the folder in which it is started, so a server whose `root` is the mutant's folder runs the
mutant.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MUTANTS", "Mutant", "build"]

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Mutant:
    """One mistake: the file, the replaced string and its replacement. `hunts.py` has its hunts."""

    name: str
    path: str
    old: str
    new: str

    @property
    def is_compiled(self) -> bool:
        return self.path.endswith(".pyx")


MUTANTS = {
    mutant.name: mutant
    for mutant in (
        Mutant(
            "ack-before-fdatasync",
            "pixelfast/spool/writer.pyx",
            'SyncSchedule(ack == "synced", loop.time())',
            "SyncSchedule(False, loop.time())",
        ),
        Mutant(
            "unlink-before-the-cursors-commit",
            "pixelfast/deliver/state_writer.py",
            "        for plan in self._pins.values():\n",
            "        for plan in ():\n",
        ),
        Mutant(
            "sync-again-after-an-error",
            "pixelfast/spool/committer.pyx",
            "        while fdatasync(job.fd) < 0:\n            if errno != EINTR:\n",
            "        while fdatasync(job.fd) < 0:\n"
            "            if errno != EINTR and fdatasync(job.fd) < 0:\n",
        ),
        Mutant(
            "segment-numbers-reused",
            "pixelfast/spool/segments.py",
            "self._number = max([record.segment, *segments, *data.spares(slot)])",
            "self._number = max(0, min(segments, default=1) - 2)",
        ),
        Mutant(
            "no-directory-fsync",
            "pixelfast/spool/datadir.py",
            "        os.fsync(fd)\n    finally:\n        os.close(fd)\n\n\ndef make_directory",
            "        pass\n    finally:\n        os.close(fd)\n\n\ndef make_directory",
        ),
        Mutant(
            "spare-renamed-before-its-header-is-written",
            "pixelfast/spool/segments.py",
            "            os.posix_fallocate(fd, 0, self.segment_bytes)\n",
            "            if spare is not None:\n"
            "                os.rename(spare, path)\n"
            "                sync_directory(self._dir)\n"
            "                spare = None\n"
            "            os.posix_fallocate(fd, 0, self.segment_bytes)\n",
        ),
        Mutant(
            "no-zeros-behind-a-commit",
            "pixelfast/spool/batch.pyx",
            "min(END_BYTES, segment_bytes - offset - self.image_bytes)",
            "0",
        ),
        Mutant(
            "failed-segment-recycled",
            "pixelfast/spool/segments.py",
            "            elif not is_nearly_full:\n",
            "            else:\n",
        ),
        Mutant(
            "done-before-the-2xx",
            "pixelfast/deliver/runner.py",
            "        self._memory.sending_bytes += task.plan.size_bytes\n        under_way",
            "        self._memory.sending_bytes += task.plan.size_bytes\n"
            "        self.state._end(task.plan)\n        under_way",
        ),
        Mutant(
            "delivered-before-the-report",
            "pixelfast/deliver/kafka/client.py",
            "        self._is_complete = True\n",
            "        self._missing.clear()\n",
        ),
        Mutant(
            "acknowledged-before-the-brokers-report",
            "pixelfast/cluster/acks.py",
            "        self._replicator.note_commit(segment, offset, image)\n",
            '        while self._waiting:\n            self._acknowledge("replicated")\n'
            "        self._replicator.note_commit(segment, offset, image)\n",
        ),
        Mutant(
            "another-partition-when-produced-again",
            "pixelfast/cluster/cursor.py",
            "        return msgspec.json.decode(path.read_bytes(), type=ReplicationCursor)\n",
            "        found = msgspec.json.decode(path.read_bytes(), type=ReplicationCursor)\n"
            "        return ReplicationCursor(found.position)\n",
        ),
        Mutant(
            "offset-committed-before-delivery",
            "pixelfast/deliver/cluster/store.py",
            "        place = min(unsettled, default=self._after)\n",
            "        place = self._after\n",
        ),
        Mutant(
            "plans-not-in-the-commits-metadata",
            "pixelfast/deliver/cluster/store.py",
            "                planned.append(batch.planned())\n",
            "                pass\n",
        ),
        Mutant(
            "offset-committed-before-its-dead-letters",
            "pixelfast/deliver/state_writer.py",
            "        self.dead.write(bundles, writing.replayed, writing.rejected_again)\n"
            "        parts = [each for task, groups in writing.divided"
            " for each in task.divided(groups)]\n"
            "        writing.changes.planned += [part.plan for part in parts]\n"
            "        self._store.commit(writing.changes)\n",
            "        parts = [each for task, groups in writing.divided"
            " for each in task.divided(groups)]\n"
            "        writing.changes.planned += [part.plan for part in parts]\n"
            "        self._store.commit(writing.changes)\n"
            "        self.dead.write(bundles, writing.replayed, writing.rejected_again)\n",
        ),
    )
}


def _apply(mutant: Mutant, tree: Path) -> None:
    path = tree / mutant.path
    text = path.read_text(encoding="utf-8")
    found = text.count(mutant.old)
    if found != 1:
        raise AssertionError(
            f"mutant {mutant.name} is out of date: its text is {found} times in {mutant.path}"
        )
    path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")


def _fingerprint(mutant: Mutant) -> str:
    digest = hashlib.sha256(repr(mutant).encode())
    for path in sorted((ROOT / "pixelfast").rglob("*")):
        if path.suffix in {".py", ".pyx", ".pxd", ".so"}:
            digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def build(mutant: Mutant) -> Path:
    """Return the folder of a mutant's build, which is made once for a state of the sources.

    Unchanged compiled modules are copied; only the module of the mutant is compiled.
    """
    tree = ROOT / "build" / "mutants" / f"{mutant.name}-{_fingerprint(mutant)}"
    if tree.exists():
        return tree
    for old in tree.parent.glob(f"{mutant.name}-*"):
        shutil.rmtree(old, ignore_errors=True)
    work = tree.parent / f"making-{uuid.uuid4().hex}"
    try:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "pixelfast", work / "pixelfast", ignore=ignored)
        (work / "tests").symlink_to(ROOT / "tests")
        for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
            shutil.copy2(ROOT / name, work / name)
        _apply(mutant, work)
        if mutant.is_compiled:
            _compile(work)
        work.rename(tree)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    _assert_runs_from(tree)
    return tree


def _compile(work: Path) -> None:
    (work / "build").mkdir()
    for made in (ROOT / "build").iterdir():  # results that are up to date by their time stamps
        if made.name == "cython" or made.name.startswith(("lib.", "temp.")):
            shutil.copytree(made, work / "build" / made.name)
    done = subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"],
        cwd=work,
        env={**os.environ, "CFLAGS": "-O0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def _assert_runs_from(tree: Path) -> None:
    program = "import pixelfast.spool.writer as m; print(m.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tree, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(str(tree)), f"{done.stdout} is not the mutant's"
