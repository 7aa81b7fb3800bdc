"""A shell session that runs the console blocks of a page as a reader would type them.

The session has a temporary home folder and, by a network namespace, ports of its own: a page can
use 127.0.0.1:8080 whatever else runs on the machine.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

TIMEOUT_S = 60.0
PATIENCE_S = 30.0  # with output that is not right yet
READ_ONLY = re.compile(
    r"(cat|curl|grep|head|ls|tail|zcat|pixelfast (status|dead (ls|show)|spool (ls|dump)))\b"
)
COLOURS = re.compile("\x1b\\[[0-9;]*m")
END = "\x1e"  # printed after each command, with its exit code

PRELUDE = """
start_server() {  # for setup comments: serve in the background, and wait until it is ready
    setsid pixelfast serve "$@" </dev/null >server.log 2>&1 &
    echo $! >>"$JOBS"
    for _ in $(seq 300); do
        curl --silent --fail --output /dev/null http://127.0.0.1:8081/health/ready && return
        sleep 0.1
    done
    cat server.log
    return 1
}
"""
# The loopback interface of a new network namespace is down.
LOOPBACK_UP = """
import fcntl, os, socket, struct
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as interface:
    fcntl.ioctl(interface, 0x8914, struct.pack("16sH22x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
os.execvp("bash", ["bash", "--norc", "--noprofile"])
"""
# What differs from run to run, without its blanks.
VARYING = [
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",  # messageId
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z",
    r"\d{4}-\d\d-\d\d(?:\d\d:\d\d:\d\d)?",
    r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),\d\d[A-Z][a-z]{2}\d{4}\d\d:\d\d:\d\dGMT",
    r"wk_[a-z]+_\w+",
    r"curl/\d+\.\d+\.\d+",
]
_SPECIAL = re.compile("…|" + "|".join(f"({each})" for each in VARYING))


def is_possible() -> bool:
    """Tell whether this machine lets a test make a network namespace."""
    if shutil.which("unshare") is None or shutil.which("curl") is None:
        return False
    return subprocess.run([*_namespace(), "true"], check=False, capture_output=True).returncode == 0


@dataclass(frozen=True)
class Command:
    """A command of a console block, and the output that the block shows for it."""

    text: str
    expected: str

    def matches(self, output: str) -> bool:
        """Tell whether the output is the one shown, except for blanks, ids, times and `…`."""
        wanted, given = ("".join(each.split()) for each in (self.expected, output))
        pattern, end = "", 0
        for special in _SPECIAL.finditer(wanted):
            pattern += re.escape(wanted[end : special.start()])
            pattern += VARYING[special.lastindex - 1] if special.lastindex else ".*?"
            end = special.end()
        return re.fullmatch(pattern + re.escape(wanted[end:]), given) is not None


def commands(block: str) -> list[Command]:
    """Split a console block at its prompts, `$ ` and, for root, `# `."""
    found: list[Command] = []
    lines = iter(block.splitlines())
    for line in lines:
        if line.startswith(("$ ", "# ")):
            text = line[2:]
            while text.endswith("\\"):
                text += "\n" + next(lines)
            if heredoc := re.search(r"<<-?\s*'?(\w+)'?", text):
                for more in lines:
                    text += "\n" + more
                    if more == heredoc[1]:
                        break
            found.append(Command(text, ""))
        elif found:
            found[-1] = Command(found[-1].text, f"{found[-1].expected}{line}\n")
        else:
            raise ValueError(f"{line!r} comes before the first prompt")
    return found


class Terminal:
    """A pseudo-terminal whose output is read all the time, so that no program waits for us."""

    def __init__(self) -> None:
        ours, self.slave = pty.openpty()
        self.path = os.ttyname(self.slave)
        self._output = b""
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, args=[ours])
        self._reader.start()

    def _read(self, ours: int) -> None:
        with contextlib.suppress(OSError):  # EIO: all programs have closed it
            while chunk := os.read(ours, 65536):
                with self._changed:
                    self._output += chunk
                    self._changed.notify()
        os.close(ours)

    def wait_for(self, is_complete: Callable[[str], bool], timeout_s: float) -> tuple[str, bool]:
        """Wait for output that is complete; return what there is, and whether it is."""
        with self._changed:
            complete = self._changed.wait_for(lambda: is_complete(self._text()), timeout_s)
            text = self._text()
            if complete:
                self._output = b""
            return text, complete

    def close(self) -> None:
        """Close the terminal; no program may have it open any more."""
        os.close(self.slave)
        self._reader.join(TIMEOUT_S)

    def _text(self) -> str:
        text = self._output.decode(errors="replace").replace("\r\n", "\n")
        return COLOURS.sub("", text)


class Session:
    """One shell on a terminal, and the programs that it keeps running."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._jobs = folder / ".jobs"
        self._kept: dict[str, tuple[int, Terminal]] = {}
        self._terminal = Terminal()
        self._patience_s = PATIENCE_S
        tools = Path(sys.executable).parent
        environment = {
            "COLUMNS": "200",
            "HOME": str(folder),
            "JOBS": str(self._jobs),
            "LC_ALL": "C.UTF-8",
            "NO_COLOR": "1",
            "PATH": f"{tools}:{os.environ['PATH']}",
            "TERM": "dumb",
        }
        self._shell = subprocess.Popen(
            [*_namespace(), sys.executable, "-c", LOOPBACK_UP],
            stdin=subprocess.PIPE,
            stdout=self._terminal.slave,
            stderr=self._terminal.slave,
            cwd=folder,
            env={**os.environ, **environment},
            start_new_session=True,
        )
        self.run(PRELUDE)

    def run(self, text: str) -> tuple[str, int]:
        """Run a command; return what it prints and its exit code."""
        assert self._shell.stdin is not None
        self._shell.stdin.write(f"{text}\nprintf '{END}%d{END}' $?\n".encode())
        self._shell.stdin.flush()
        printed, is_complete = self._terminal.wait_for(
            lambda output: output.count(END) >= 2, TIMEOUT_S
        )
        if not is_complete:
            raise TimeoutError(f"{text!r} did not end; so far it printed {printed!r}")
        output, code, _ = printed.split(END)
        return output, int(code)

    def check(self, command: Command) -> str | None:
        """Run a command; return what is wrong with its output, or None.

        A command that only reads is repeated until its output is there: delivery may be under way.
        """
        deadline = time.monotonic() + self._patience_s
        pause_s = 0.2
        while True:
            output, code = self.run(command.text)
            if command.matches(output) if command.expected else code == 0:
                return None
            if not READ_ONLY.match(command.text) or time.monotonic() > deadline:
                return self._wrong(command, f"{output}(exit code {code})")
            time.sleep(pause_s)  # no program announces that delivery is over
            pause_s = min(2 * pause_s, 1.6)  # starting a program again costs more than the wait

    def keep_running(self, command: Command, name: str) -> str | None:
        """Start a command as if in another terminal; return what is wrong with its output, or None.

        It replaces the one that was started with the same name.
        """
        if name in self._kept:
            self._end(name)
        terminal = Terminal()
        script = self._folder / f".{name}.sh"
        script.write_text(f"exec {command.text}\n")
        output, _ = self.run(
            f"setsid bash {script} <{terminal.path} >{terminal.path} 2>&1 & echo $!"
        )
        self._kept[name] = (int(output), terminal)
        printed, is_complete = terminal.wait_for(command.matches, self._patience_s)
        return None if is_complete else self._wrong(command, printed)

    def printed(self, name: str, expected: str) -> str | None:
        """Wait for output of a program that runs; return what is wrong with it, or None."""
        command = Command(f"(what {name} prints)", expected)
        printed, is_complete = self._kept[name][1].wait_for(command.matches, self._patience_s)
        return None if is_complete else self._wrong(command, printed)

    def close(self) -> None:
        """Stop everything that was started."""
        for name in list(self._kept):
            self._end(name)
        for pid in self._jobs.read_text().split() if self._jobs.exists() else []:
            _stop(int(pid))
        self._shell.communicate(timeout=TIMEOUT_S)
        self._terminal.close()

    def _end(self, name: str) -> None:
        pid, terminal = self._kept.pop(name)
        _stop(pid)
        terminal.close()

    def _wrong(self, command: Command, printed: str) -> str:
        self._patience_s = 5.0  # later commands may fail for the same reason
        expected = command.expected or "(exit code 0)"
        return f"$ {command.text}\nexpected:\n{expected}\nprinted:\n{printed}"


@contextlib.contextmanager
def session(folder: Path) -> Iterator[Session]:
    """Open a session in a folder, and stop what it left running."""
    opened = Session(folder)
    try:
        yield opened
    finally:
        opened.close()


def _namespace() -> list[str]:
    mapped = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", *mapped, "--net"]


def _stop(pid: int) -> None:
    """End a process group as a service manager does."""
    for number, patience_s in ((signal.SIGTERM, TIMEOUT_S), (signal.SIGKILL, TIMEOUT_S)):
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            try:
                os.killpg(pid, number if patience_s else 0)
            except ProcessLookupError:
                return
            patience_s = 0
            time.sleep(0.02)
