"""Machines of a cluster: a collector or a delivery process, each with its own data directory."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
from collections import Counter
from pathlib import Path
from urllib.request import urlopen

from pixelfast.cluster.cursor import read_cursor
from pixelfast.spool import DataDir, Position
from pixelfast.spool.end import newest_frame
from tests.logs import check_log
from tests.program import PIXELFAST

__all__ = ["Collector", "Machine"]

_START_S = 120.0
_SLOT = 0
_SAMPLE = re.compile(
    r'pixelfast_(\w+?)(?:_total)?\{destination="([^"]+)"(?:,partition="\d+")?\} (\S+)'
)


class Machine:
    """One process, which survives by its data directory, and ends with this process.

    Attributes:
        folder: its folder.
        data_dir: its data directory.
    """

    command = "deliver"

    def __init__(
        self,
        folder: Path,
        settings: str,
        root: Path | None = None,
        data_dir: Path | None = None,
    ) -> None:
        """Prepare a machine in a new folder; `root` is that of another build of pixelfast.

        Its data are below the folder, unless they have a disk of their own.
        """
        self.folder = folder
        self.folder.mkdir(parents=True)
        self.data_dir = data_dir or self.folder / "data"
        self._log_path = self.folder / "log"
        self._settings = self.folder / "pixelfast.toml"
        self._settings.write_text(f'data_dir = "{self.data_dir}"\n{settings}')
        self._root = root
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """Everything that it has logged since the first start."""
        return self._log_path.read_text()

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, *arguments: str) -> str:
        """Start the process; return the first line that it prints."""
        command = [*PIXELFAST, self.command, "-c", str(self._settings), *arguments]
        command += ["--admin", "127.0.0.1:0"]
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command],
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=self._root,
            )
        assert self._process.stdout is not None
        assert select.select([self._process.stdout], [], [], _START_S)[0], self.log
        line = self._process.stdout.readline().decode()
        assert line, self.log[-4000:]
        return line

    def figures(self) -> dict[str, Counter[str]]:
        """Return the figures of each destination, summed over partitions, by metric."""
        port = re.findall(r'"admin_started".*?127\.0\.0\.1:(\d+)', self.log)[-1]
        found: dict[str, Counter[str]] = {}
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=_START_S) as response:
            metrics = response.read().decode()
        for name, destination, value in _SAMPLE.findall(metrics):
            found.setdefault(destination, Counter())[name] += round(float(value))
        return found

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Stop it as an operator does, and check that it ends well and logs no secret."""
        assert 0 == self._end(signal.SIGTERM), self.log[-4000:]
        assert "Traceback" not in self.log, self.log
        check_log(self.log, self._settings.read_text())

    def freeze(self) -> None:
        """Stop it with SIGSTOP, so that its connections stay open."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue a frozen process."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def _end(self, number: signal.Signals) -> int:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        if self.is_running:
            self._signal(number)
        with process.stdout:
            return process.wait(_START_S)


class Collector(Machine):
    """A machine that receives pixels.

    Attributes:
        port: the port of the running process.
    """

    command = "collect"
    port = 0

    def start(self, *arguments: str) -> str:
        line = super().start("--listen", "127.0.0.1:0", *arguments)
        match = re.search(r"127\.0\.0\.1:(\d+)", line)
        assert match is not None, self.log
        self.port = int(match[1])
        return line

    def lose(self) -> None:
        """Kill it with SIGKILL, and delete its data directory."""
        self.kill()
        shutil.rmtree(self.data_dir)

    def end(self) -> Position:
        """Return the end of its log."""
        newest = newest_frame(self._data(), _SLOT)
        return newest.end if newest is not None else Position()

    def replicated(self) -> Position:
        """Return where its log is replicated up to, as recorded about once a second."""
        return read_cursor(self._data(), _SLOT).position

    def _data(self) -> DataDir:
        return DataDir.open(self.data_dir)
