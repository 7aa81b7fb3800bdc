"""The long campaign: every layer, as often as the time allows, and a table of the results.

In 30 minutes, it kills each process at least 200 times and cuts the power at least 50 times. In
less time, it does both proportionally less often; below 10 minutes, it tests only a quarter of the
failing calls and of the steps at which a process is killed. The remaining time is used for kills.
"""

from __future__ import annotations

import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.deliver.products.real.kafka_broker import KafkaCluster, why_no_broker
from tests.reliability import failpoints, figures
from tests.reliability.cluster.drill import Drill, Phase
from tests.reliability.cuts import cut_over_and_over
from tests.reliability.failover import fail_over_and_over, why_no_nginx
from tests.reliability.faults import FAULTS, strike
from tests.reliability.hunts import HUNTS, why_no_hunt
from tests.reliability.kills import kill_over_and_over
from tests.reliability.mutants import MUTANTS, ROOT, build
from tests.reliability.operation import Rounds, drill
from tests.reliability.power import loop_disk, why_no_loop_disk
from tests.reliability.proxy import WEATHERS, FaultProxy
from tests.reliability.rig import Rig
from tests.reliability.tally import Tally, write_cluster, write_operation, write_table
from tests.reliability.tracing import why_no_strace

__all__ = ["main"]

KILLS, CUTS, FULL_MINUTES = 200, 50, 30.0
_LIVES_A_RIG = 20
_CUTS_A_DISK = 10


class Campaign:
    def __init__(self, folder: Path, minutes: float) -> None:
        self.folder = folder
        self.tally = Tally()
        self.share = min(1.0, minutes / FULL_MINUTES)
        self.stride = 1 if minutes >= 10 else 4
        self.end_s = time.monotonic() + minutes * 60
        self.rng = random.Random()
        self._rigs = 0

    def fresh_folder(self) -> Path:
        self._rigs += 1
        folder = self.folder / str(self._rigs)
        folder.mkdir()
        return folder

    def run(self, name: str, phase: Callable[[], None], why_not: str = "") -> None:
        """Run one phase; an error in it ends neither the campaign nor its table."""
        if why_not:
            self.tally.say(f"{name}: skipped, {why_not}")
            return
        self.tally.say(name)
        try:
            phase()
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            traceback.print_exc()
            self.tally.failures.append(f"{name}: {type(error).__name__}: {error}")

    def judge(self, phase: str, rig: Rig) -> None:
        """Check that a new server delivers a new event and that nothing is missing."""
        rig.oracle.mood = "takes"
        rig.oracle.pause()
        rig.take_fresh_events()
        verdict = rig.check()
        self.tally.note(phase, verdict)
        self.tally.say(f"{phase}: {verdict}")

    # --- phases ------------------------------------------------------------------------------

    def kills(self, goal: int) -> None:
        """Kill processes until each was killed `goal` times."""
        while min(self.tally.killed[r] for r in ("collector", "delivery", "supervisor")) < goal:
            self.kill_some(_LIVES_A_RIG)

    def kill_some(self, lives: int) -> None:
        folder = self.fresh_folder()
        deliveries = 1 + self._rigs % 2
        with Rig(folder, deliveries=deliveries, seed=self.rng.randrange(2**20)) as rig:
            rig.oracle.mood = "moody"
            killed: Counter[str] = kill_over_and_over(rig, lives, self.rng)
            self.tally.killed.update(killed)
            rig.start()
            self.judge(f"kills {dict(self.tally.killed)}", rig)

    def cuts(self, goal: int) -> None:
        while self.tally.cuts < goal:
            folder = self.fresh_folder()
            with (
                loop_disk(folder) as disk,
                Rig(folder, data_dir=disk.mount_point / "data") as rig,
            ):
                rig.oracle.mood = "moody"
                cuts = min(_CUTS_A_DISK, goal - self.tally.cuts)
                cut_over_and_over(rig, disk, cuts, self.rng)
                self.tally.cuts += cuts
                rig.start()
                self.judge(f"power cuts {self.tally.cuts}", rig)

    def faults(self) -> None:
        for role, recycles in (("collector-0", True), ("delivery", True), ("delivery", False)):
            spool = "" if recycles else "recycle = false"
            with Rig(self.fresh_folder(), workers=1, spool=spool) as rig:
                rig.start()
                rig.oracle.resume()
                rig.oracle.until_acked(20)
                # Segments are removed only if they are not recycled.
                own = [each for each in FAULTS if each.role == role]
                chosen = [each for each in own if (each.call != "unlink") is recycles]
                for fault in chosen[:: self.stride]:
                    self.tally.say(f"{fault.role}: {fault.call} fails with {fault.error}")
                    strike(rig, fault)
                    key = f"{fault.call}` of the `{role.partition('-')[0]}"
                    self.tally.faults.setdefault(key, []).append(fault.error)
                self.judge(f"failing calls of {role}", rig)

    def failpoints(self) -> None:
        with Rig(self.fresh_folder(), workers=1) as rig:
            for place, step in enumerate(failpoints.steps(failpoints.STARTING)):
                if place % self.stride:
                    continue
                if step[0] == "collect" and place % 8 < 4:  # otherwise on the data of the last run
                    shutil.rmtree(rig.data_dir, ignore_errors=True)
                self.tally.deaths += failpoints.die_starting(rig, *step)
            self.tally.say(f"killed while starting: {self.tally.deaths}")
            for place, step in enumerate(list(failpoints.steps(failpoints.LIVE))[:: self.stride]):
                if place % 6 == 0:  # a new supervisor, which restarts processes without delay
                    if place:
                        rig.crash()
                    rig.start()
                    rig.oracle.resume()
                failpoints.die_at(rig, *step)
                self.tally.deaths += 1
            self.judge(f"killed between steps {self.tally.deaths}", rig)

    def network(self, seconds: float) -> None:
        with Rig(self.fresh_folder(), workers=1) as rig, FaultProxy(rig.oracle) as proxy:
            rig.url = proxy.url
            rig.start()
            rig.oracle.mood = "moody"
            rig.oracle.resume()
            end_s = time.monotonic() + seconds
            while time.monotonic() < end_s:
                proxy.change_and_wait(*WEATHERS)
                rig.oracle.until_acked(100)
            proxy.change("fair")
            self.tally.weathers.update(proxy.seen)
            self.judge("network", rig)

    def nginx(self, seconds: float) -> None:
        outcome = fail_over_and_over(self.fresh_folder(), seconds, self.rng)
        self.tally.behind_nginx = outcome
        self.tally.say(f"behind nginx: {outcome}")
        if not outcome.is_clean:
            self.tally.failures.append(f"behind nginx: {outcome}")

    def simulated(self, examples: int) -> None:
        seed = self.rng.randrange(2**20)
        done = subprocess.run(
            [sys.executable, "-m", "tests.reliability.simulated", str(examples), str(seed)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        self.tally.images += examples
        if done.returncode:
            self.tally.failures.append(f"simulated disk, seed {seed}: {done.stdout}{done.stderr}")

    def mutants(self) -> None:
        self.tally.mutants = len(MUTANTS)
        for name, hunts in HUNTS.items():
            for hunt in hunts:
                if why_not := why_no_hunt(hunt):
                    self.tally.say(f"{name}: {why_not}")
                    continue
                found = hunt(self.fresh_folder(), build(MUTANTS[name]))
                how = (hunt.__doc__ or "").rstrip(".").replace("\n", " ")
                self.tally.say(f"{name}: {'caught by' if found else 'LIVES through'}: {how}")
                if found:
                    how = how[0].lower() + how[1:]
                    before = self.tally.caught.get(name)
                    self.tally.caught[name] = f"{before}, {how}" if before else how
        if len(self.tally.caught) < len(MUTANTS):
            self.tally.failures.append(f"mutants live: {MUTANTS.keys() - self.tally.caught.keys()}")

    def figures(self) -> None:
        for level in ("synced", "written", "received"):
            self.tally.acks_ms[level] = figures.ack_ms(self.fresh_folder(), level)
            self.tally.say(f"ack = {level}: p50 and p99 {self.tally.acks_ms[level]} ms")
        size_bytes = 2**30 if self.stride == 1 else 2**28
        self.tally.recovery = figures.recovery(self.fresh_folder(), size_bytes)
        self.tally.say(f"recovery: {self.tally.recovery}")

    def operation(self) -> None:
        """Restart, reload and upgrade a server under load, and make its processes hang."""
        full = Rounds()
        share = {name: math.ceil(self.share * getattr(full, name)) for name in full.__annotations__}
        for phase in drill(self.fresh_folder(), Rounds(**share)):
            self.tally.say(" | ".join(phase.cells()))
            self.tally.operation.append(phase)
            # Clients of a process that hangs must wait, and finally lose their connections.
            if phase.lost or not (phase.is_clean or "SIGSTOP" in phase.name):
                self.tally.failures.append(f"operation, {phase.name}: {phase}")

    def cluster(self) -> None:
        """Kill, freeze and restart brokers, collectors and delivery processes of a cluster."""
        folder = self.fresh_folder()
        place = folder / "brokers"
        place.mkdir()
        with KafkaCluster(place) as brokers:
            drill = Drill(folder, brokers, self.share)
            for part in (drill.spooling, drill.leading, drill.rejecting, drill.recreating):
                self.run(f"cluster, {part.__name__}", partial(self._note_phases, part))

    def _note_phases(self, part: Callable[[], Iterator[Phase]]) -> None:
        for phase in part():
            self.tally.say(" | ".join(phase.cells()))
            self.tally.cluster.append(phase)
            self.tally.failures += [f"cluster, {phase.name}: {each}" for each in phase.problems()]


def main() -> int:
    """Run the campaign, or only a part of it with the argument `operation` or `cluster`."""
    minutes = float(os.environ.get("MINUTES") or FULL_MINUTES)
    if sys.argv[1:]:
        return _run_part(sys.argv[1], minutes)
    with tempfile.TemporaryDirectory(prefix="pixelfast-torture-") as folder:
        campaign = Campaign(Path(folder), minutes)
        share, tally = campaign.share, campaign.tally
        no_disk, no_strace, no_nginx = why_no_loop_disk(), why_no_strace(), why_no_nginx()
        campaign.run("mutants", campaign.mutants)
        campaign.run("failing system calls", campaign.faults, no_strace)
        campaign.run("death between durable steps", campaign.failpoints, no_strace)
        campaign.run("power cuts", lambda: campaign.cuts(math.ceil(CUTS * share)), no_disk)
        campaign.run("network", lambda: campaign.network(max(10.0, 120 * share)))
        campaign.run("behind nginx", lambda: campaign.nginx(max(25.0, 300 * share)), no_nginx)
        campaign.run("simulated disk", lambda: campaign.simulated(math.ceil(2000 * share)))
        campaign.run("operation", campaign.operation)
        campaign.run("cluster", campaign.cluster, why_no_broker())
        campaign.run("figures", campaign.figures)
        campaign.run("kill -9", lambda: campaign.kills(math.ceil(KILLS * share)))
        while time.monotonic() < campaign.end_s and not tally.failures:
            campaign.run("kill -9, more", lambda: campaign.kill_some(_LIVES_A_RIG // 2))
    write_table(tally, minutes)
    write_operation(tally, minutes)
    write_cluster(tally, minutes)
    return _end(tally)


def _run_part(name: str, minutes: float) -> int:
    """Run one part, and write its table."""
    with tempfile.TemporaryDirectory(prefix="pixelfast-torture-") as folder:
        campaign = Campaign(Path(folder), minutes)
        if name == "operation":
            campaign.run(name, campaign.operation)
            write_operation(campaign.tally, minutes)
        elif name == "cluster":
            campaign.run(name, campaign.cluster, why_no_broker())
            write_cluster(campaign.tally, minutes)
        else:
            raise SystemExit(f"unknown part {name}; expected operation or cluster")
    return _end(campaign.tally)


def _end(tally: Tally) -> int:
    for failure in tally.failures:
        print(f"FAILED  {failure}", file=sys.stderr)
    tally.say("written: docs/reliability.md")
    return 1 if tally.failures else 0
