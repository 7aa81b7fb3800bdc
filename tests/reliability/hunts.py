"""Hunts for the deliberate mistakes: each runs one layer of the harness on a build.

A hunt returns what it found, which is nothing for a correct build. This is tested as well, because
a hunt that always finds something proves nothing.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.deliver.products.kafka_outage import SETTINGS, survive_outage
from tests.deliver.products.real.kafka_broker import KafkaBroker, why_no_broker
from tests.deliver.products.topics import Topics
from tests.reliability.cuts import cut_over_and_over
from tests.reliability.power import loop_disk, why_no_loop_disk
from tests.reliability.rig import Rig
from tests.reliability.simulated import FOUND
from tests.reliability.tracing import inject, synced_again, why_no_strace
from tests.servers import serving
from tests.waiting import wait_until

__all__ = ["HUNTS", "Hunt", "why_no_hunt"]

_PATIENCE_S = 5.0


def _losses(rig: Rig) -> str:
    """Return what is missing, changed or invented after a new start."""
    rig.oracle.mood = "takes"
    try:
        rig.take_fresh_events(15)
    except AssertionError as error:
        return f"no fresh event flows: {error}"
    verdict = rig.check(files=False, patience_s=_PATIENCE_S)
    if verdict.is_clean:
        verdict = rig.check(patience_s=_PATIENCE_S)
    return "" if verdict.is_clean else str(verdict)


def cut_power(folder: Path, root: Path) -> str:
    """Power cuts under load."""
    with (
        loop_disk(folder) as disk,
        Rig(folder, data_dir=disk.mount_point / "data", root=root) as rig,
    ):
        cut_over_and_over(rig, disk, 2, random.Random(3))
        rig.start()
        return _losses(rig)


def kill_delivery_while_refused(folder: Path, root: Path) -> str:
    """kill -9 of delivery while the receiver rejects batches and segments fill."""
    with Rig(folder, root=root, workers=1, pause_s=0.0) as rig:
        rig.start()
        rig.oracle.mood = "refuses"
        # Delivery begins with complete segments. Otherwise, the few batches that it plans while the
        # receiver rejects them may be so small that they do not reach the end of the first segment.
        delivery = rig.pid("delivery")
        os.kill(delivery, signal.SIGSTOP)
        rig.oracle.resume()
        rig.oracle.until_acked(2000)
        rig.oracle.pause()
        with contextlib.suppress(ProcessLookupError):  # it was replaced, because it hung
            os.kill(delivery, signal.SIGCONT)
        first = rig.data_dir / "shards" / "0" / f"{1:016x}.seg"
        with contextlib.suppress(AssertionError):  # a correct build never removes it
            wait_until(lambda: not first.exists(), "a planned segment is removed", 6 * _PATIENCE_S)
        rig.kill("delivery")
        rig.oracle.mood = "takes"
        return _losses(rig)


def crash_after_removal(folder: Path, root: Path) -> str:
    """kill -9 of everything once old segments are gone."""
    with Rig(folder, root=root, workers=1, pause_s=0.0) as rig:
        rig.start()
        rig.oracle.resume()
        slot = rig.data_dir / "shards" / "0"
        for number in (1, 3):
            gone = slot / f"{number:016x}.seg"
            rig.oracle.until_acked(10)
            wait_until(lambda gone=gone: not gone.exists(), "segments are removed")
        rig.oracle.pause()
        rig.crash()
        rig.start()
        return _losses(rig)


def watch_system_calls(folder: Path, root: Path) -> str:
    """What is written or synced after fdatasync failed, by the log of system calls."""
    with Rig(folder, root=root, workers=1) as rig:
        rig.start()
        rig.oracle.resume()
        log = folder / "strace.log"
        with inject(rig.pid("collector-0"), log, "fdatasync:error=EIO:when=3+5") as trace:
            trace.until_hit(5)
            rig.oracle.until_acked(20)
        again = synced_again(log.read_text())
        return f"{len(again)} calls on files that had failed, such as {again[0]}" if again else ""


def crash_simulated_disks(_: Path, root: Path) -> str:
    """Crashes of the disk that forgets."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.reliability.simulated"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode in {0, FOUND}, done.stderr
    return done.stdout if done.returncode else ""


def kill_broker_and_delivery(folder: Path, root: Path) -> str:
    """kill -9 of a Kafka broker and of delivery under load."""
    place = folder / "broker"
    place.mkdir()
    with KafkaBroker(place) as broker:
        topics = Topics(broker.address)
        topics.create("pixels")
        topics.close()
        settings = SETTINGS.format(address=broker.address, topic="pixels")
        with serving(folder / "data", settings=settings, root=root) as server:
            lost = survive_outage(broker, "pixels", server).lost
    return f"{len(lost)} events are lost" if lost else ""


def _run_test(root: Path, name: str) -> str:
    """Return the last line of pytest if a test fails on a build."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", name],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "HYPOTHESIS_PROFILE": "first-failure"},
    )
    assert done.returncode in {0, 1}, done.stdout + done.stderr  # 1: a test has failed
    return done.stdout.splitlines()[-1] if done.returncode else ""


def run_test_of_acks(_: Path, root: Path) -> str:
    """The test of acknowledgements before and after the brokers' reports."""
    name = "test_an_event_is_acknowledged_when_the_brokers_have_it"
    return _run_test(root, f"tests/cluster/test_acks.py::{name}")


def run_test_of_replicator(_: Path, root: Path) -> str:
    """The test of frames that are produced again after a crash."""
    name = (
        "test_after_a_crash_frames_behind_the_recorded_position"
        "_are_sent_again_to_the_same_partition"
    )
    return _run_test(root, f"tests/cluster/test_replicator.py::{name}")


def run_test_of_owners(_: Path, root: Path) -> str:
    """The test of a partition whose owner changes at any time."""
    name = "test_each_event_is_settled_once_whoever_owns_the_partition"
    return _run_test(root, f"tests/deliver/cluster/test_partition_store.py::{name}")


def run_test_of_durable_steps(_: Path, root: Path) -> str:
    """The test of the order of deliveries, dead letters and commits."""
    name = "test_an_offset_is_committed_after_delivery_and_after_the_dead_letters_before_it"
    return _run_test(root, f"tests/deliver/cluster/test_durable_steps.py::{name}")


Hunt = Callable[[Path, Path], str]

# By mutant; the first is the quickest, and what `make test` runs.
HUNTS: dict[str, tuple[Hunt, ...]] = {
    "ack-before-fdatasync": (crash_simulated_disks, cut_power),
    "unlink-before-the-cursors-commit": (kill_delivery_while_refused,),
    "sync-again-after-an-error": (watch_system_calls,),
    "segment-numbers-reused": (crash_after_removal,),
    "no-directory-fsync": (crash_simulated_disks,),
    "spare-renamed-before-its-header-is-written": (crash_simulated_disks,),
    "no-zeros-behind-a-commit": (crash_simulated_disks,),
    "failed-segment-recycled": (crash_simulated_disks,),
    "done-before-the-2xx": (kill_delivery_while_refused,),
    "delivered-before-the-report": (kill_broker_and_delivery,),
    "acknowledged-before-the-brokers-report": (run_test_of_acks,),
    "another-partition-when-produced-again": (run_test_of_replicator,),
    "offset-committed-before-delivery": (run_test_of_durable_steps,),
    "plans-not-in-the-commits-metadata": (run_test_of_owners,),
    "offset-committed-before-its-dead-letters": (run_test_of_durable_steps,),
}


def why_no_hunt(hunt: Hunt) -> str:
    """Return why a hunt cannot run here, or "" if it can."""
    if hunt is cut_power:
        return why_no_loop_disk()
    if hunt is kill_broker_and_delivery:
        return why_no_broker()
    return why_no_strace() if hunt is watch_system_calls else ""
