"""A server on a disk whose power is cut under load."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from tests.reliability.power import LoopDisk
from tests.reliability.rig import Rig
from tests.waiting import wait_until

__all__ = ["cut_over_and_over"]


def cut_over_and_over(
    rig: Rig,
    disk: LoopDisk,
    cuts: int,
    rng: random.Random,
    *,
    events: int = 150,
    is_due: Callable[[], bool] = lambda: True,
    on_cut: Callable[[int], bool] = lambda _: True,
) -> int:
    """Cut the power of `cuts` servers, one after the other, all on the same disk.

    Each cut waits until the server has acknowledged `events` and `is_due` returns true.
    The receiver is outside, so it keeps what it received. Some cuts happen during a start.
    """
    for cut in range(1, cuts + 1):
        rig.start()
        rig.oracle.resume()
        rig.oracle.until_acked(1 if cut % 4 == 0 else events)
        wait_until(is_due, "the next cut is due")
        time.sleep(rng.uniform(0.0, 0.4))
        with rig.oracle.deaf():
            # An fdatasync in progress may return 0 even if the file system is shut down meanwhile
            # (ext4 does not report extents that it could not convert). Such a result is ignored.
            disk.cut_power()
            rig.crash()
            rig.oracle.pause()
        disk.remount()
        if not on_cut(cut):
            return cut
    return cuts
