"""Operations on a running server under load: how many requests are affected, and for how long.

Keep-alive and new connections send pixels while the server is restarted (with socket activation),
reloaded and upgraded, and while a process hangs until it is replaced. The counts are those of the
clients; the oracle finds lost events.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.program import run_pixelfast
from tests.reliability.oracle import Verdict
from tests.reliability.rig import Rig, is_gone
from tests.waiting import wait_until

__all__ = ["COLUMNS", "Phase", "Rounds", "drill"]

COLUMNS = (
    *("done under load", "times", "requests", "connections refused", "connections reset"),
    *("failed", "sent again", "lost"),
    *("p50 ms", "p99 ms", "max ms"),
)

_QUIET_S = 3.0
_CONNECTIONS, _FRESH = 8, 3
_EVENTS_BETWEEN = 40  # acknowledged with 200 before the next operation
_MORE_SOURCES = """
[[sources]]
name = "source-{number}"
write_keys = ["wk-source-{number}"]
rate_limit = {number}
"""


@dataclass(frozen=True)
class Rounds:
    """How often each operation is performed."""

    restarts: int = 50
    reloads: int = 100
    upgrades: int = 20
    hangs: int = 3


@dataclass
class Phase:
    """The counts of clients while one operation was performed `rounds` times."""

    name: str
    rounds: int = 0
    requests: int = 0
    refused: int = 0
    reset: int = 0
    failed: int = 0  # no response, an incomplete one, or a status other than 200
    closed: int = 0  # between two requests of a keep-alive connection; sent again
    lost: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether no client was affected."""
        return not (self.refused or self.reset or self.failed or self.lost)

    def cells(self) -> list[str]:
        """Return the cells of its row in the table."""
        name = f"{self.name}, {'; '.join(self.notes)}" if self.notes else self.name
        counts = [self.rounds or "", self.requests, self.refused, self.reset, self.failed]
        counts += [self.closed, self.lost]
        times = [f"{each:.1f}" for each in (self.p50_ms, self.p99_ms, self.max_ms)]
        return [name, *(f"{each:,}" if each != "" else "" for each in counts), *times]


def drill(
    folder: Path,
    rounds: Rounds,
    *,
    hung_after_s: float = 10.0,
    quiet_s: float = _QUIET_S,
) -> Iterator[Phase]:
    """Perform all operations, each so many times; yield the counts of clients."""
    folder.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {
        "server": f"hung_after_s = {hung_after_s}",
        "connections": _CONNECTIONS,
        "fresh": _FRESH,
        "pause_s": 0.004,
    }
    with (
        socket.create_server(("127.0.0.1", 0), backlog=4096) as passed,
        Rig(folder / "passed", passed=passed, **options) as rig,
    ):
        yield from _Drill(rig).restart(rounds.restarts)
    with Rig(folder / "own", deliveries=2, **options) as rig:
        yield from _Drill(rig).run(rounds, quiet_s)


class _Drill:
    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._lost = 0
        self._hung_s: list[float] = []

    def restart(self, rounds: int) -> Iterator[Phase]:
        """Restart a server whose socket seems to be held by systemd."""
        self._rig.start()
        yield from self._phase("restart with socket activation", rounds, self._restart)

    def run(self, rounds: Rounds, quiet_s: float) -> Iterator[Phase]:
        """Perform all other operations on a server with its own sockets."""
        self._rig.start()
        for phase in self._phase("nothing", 1, lambda _: time.sleep(quiet_s)):
            phase.rounds = 0
            yield phase
        yield from self._phase("reload", rounds.reloads, self._reload)
        yield from self._phase("upgrade", rounds.upgrades, self._upgrade)
        for role in ("collector-0", "delivery-1"):
            self._hung_s.clear()
            name = f"SIGSTOP of {role.partition('-')[0]}"
            for phase in self._phase(name, rounds.hangs, partial(self._hang, role)):
                told = f"replaced after {min(self._hung_s):.1f} to {max(self._hung_s):.1f} s"
                phase.notes.append(told)
                yield phase

    def _phase(self, name: str, rounds: int, do: Callable[[int], None]) -> Iterator[Phase]:
        """Perform one operation `rounds` times; yield the counts of clients, or nothing for 0."""
        if not rounds:
            return
        oracle = self._rig.oracle
        pixels = oracle.pixels
        pixels.failures.clear()
        pixels.rejected.clear()
        del pixels.seconds[:]
        oracle.resume()
        for number in range(rounds):
            oracle.until_acked(_EVENTS_BETWEEN)
            do(number)
        oracle.until_acked(_EVENTS_BETWEEN)
        oracle.pause()
        verdict: Verdict = self._rig.check()
        cut = statistics.quantiles(pixels.seconds, n=100)
        lost_before, self._lost = self._lost, verdict.missing
        yield Phase(
            name,
            rounds,
            requests=len(pixels.seconds),
            refused=pixels.failures["refused"],
            reset=pixels.failures["reset"],
            failed=pixels.failures["failed"] + oracle.refused,
            closed=pixels.failures["closed between requests"],
            lost=verdict.missing - lost_before,
            p50_ms=cut[49] * 1000,
            p99_ms=cut[98] * 1000,
            max_ms=max(pixels.seconds) * 1000,
        )

    def _restart(self, _: int) -> None:
        assert self._rig.server.stop() == 0
        self._rig.start()

    def _reload(self, number: int) -> None:
        self._rig.write_settings()
        if number % 2 == 0:
            with self._rig.settings_path.open("a") as file:
                file.write(_MORE_SOURCES.format(number=number + 1))
        self._command("reload")

    def _upgrade(self, _: int) -> None:
        before = set(self._rig.server.children().values())
        self._command("upgrade")
        wait_until(lambda: all(map(is_gone, before)), "the old processes are gone", 60)

    def _command(self, name: str) -> None:
        done = run_pixelfast(name, "--data-dir", str(self._rig.data_dir))
        assert done.returncode == 0, f"{done.stdout}{done.stderr}\n{self._rig.server.log[-4000:]}"

    def _hang(self, role: str, _: int) -> None:
        """Stop a process, and record the time until its replacement is ready."""
        pid = self._rig.pid(role)
        began_s = time.monotonic()
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: is_gone(pid), f"{role} is killed", 60)
        new = self._rig.pid(role)
        assert new != pid
        wait_until(lambda: self._is_ready(role), f"{role} is ready again", 60)
        self._hung_s.append(time.monotonic() - began_s)

    def _is_ready(self, role: str) -> bool:
        try:
            state = json.loads(self._rig.server.admin("/health/ready"))
        except OSError:  # 503: a collector is not ready
            return False
        return bool(state["processes"][role]["is_ready"])
