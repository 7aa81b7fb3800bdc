"""A server on a disk whose power is cut under load."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from tests.reliability.power import LoopDisk
from tests.reliability.rig import Rig
from tests.waiting import wait_until

__all__ = ["cut_over_and_over"]

_EVENTS_BETWEEN = 150


def cut_over_and_over(
    rig: Rig,
    disk: LoopDisk,
    cuts: int,
    rng: random.Random,
    *,
    is_due: Callable[[], bool] = lambda: True,
) -> None:
    """Cut the power of `cuts` servers, one after the other, all on the same disk.

    Each cut waits until `is_due` returns true. The receiver is outside, so it keeps what it
    received. Some cuts happen during a start.
    """
    for cut in range(1, cuts + 1):
        rig.start()
        rig.oracle.resume()
        rig.oracle.until_acked(1 if cut % 4 == 0 else _EVENTS_BETWEEN)
        wait_until(is_due, "the next cut is due")
        time.sleep(rng.uniform(0.0, 0.4))
        with rig.oracle.deaf():
            # An fdatasync in progress may return 0 even if the file system is shut down meanwhile
            # (ext4 does not report extents that it could not convert). Such a result is ignored.
            disk.cut_power()
            rig.crash()
            rig.oracle.pause()
        disk.remount()
