"""Measure the response time at each `spool.ack`, and the time of a start with a full spool."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

from tests.reliability.rig import Rig
from tests.spools import Feed, open_data
from tests.waiting import wait_until

__all__ = ["ack_ms", "recovery"]

_MEASURED_S = 5.0
_EVENTS_PER_FRAME = 1000
_LINE = b'{"type":"track","event":"Recovered","properties":{"text":"%s"}}' % (b"x" * 440)


def ack_ms(folder: Path, level: str) -> tuple[float, float]:
    """Return the median and the 99th percentile of response times on 8 connections, in ms."""
    with Rig(folder, workers=1, ack=level, segment_bytes="64MiB", pause_s=0.005) as rig:
        rig.start()
        rig.oracle.resume()
        rig.oracle.until_acked(200)
        del rig.oracle.pixels.seconds[:]
        time.sleep(_MEASURED_S)
        rig.oracle.pause()
        cut = statistics.quantiles(rig.oracle.pixels.seconds, n=100)
        return round(cut[49] * 1000, 2), round(cut[98] * 1000, 2)


def recovery(folder: Path, size_bytes: int) -> str:
    """Fill a spool, start a server on it, and time the first 200 and the delivery of all events."""
    with Rig(folder, workers=1, segment_bytes="64MiB") as rig:
        _fill(rig.data_dir, size_bytes)
        spooled = sum(path.stat().st_size for path in rig.data_dir.rglob("*.seg"))
        os.sync()
        rig.oracle.mood = "refuses"  # only the files count
        began_s = time.monotonic()
        rig.start()
        rig.oracle.resume()
        rig.oracle.until_acked(1)
        first_s = time.monotonic() - began_s
        rig.oracle.pause()

        def written() -> int:
            return sum(path.stat().st_size for path in rig.archive_dir.glob("*.ndjson"))

        wait_until(lambda: written() >= 0.99 * size_bytes, "all in files", 600)
        all_s = time.monotonic() - began_s
        return (
            f"with {spooled / 2**30:.2f} GiB waiting: first 200 after {first_s:.1f} s, "
            f"all in files after {all_s:.1f} s ({all_s / (spooled / 2**30):.0f} s a GiB)"
        )


def _fill(data_dir: Path, size_bytes: int) -> None:
    """Write events directly into a slot, as a collector does."""
    with Feed(open_data(data_dir), segment_bytes=64 * 2**20) as feed:
        for _ in range(0, size_bytes, _EVENTS_PER_FRAME * (len(_LINE) + 1)):
            feed.write(*[_LINE] * _EVENTS_PER_FRAME)
