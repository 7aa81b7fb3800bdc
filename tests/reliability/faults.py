"""System calls that fail in a live process: which call with which error, and the required effect.

While a call of the collector fails, pixels are rejected with 503 or stored elsewhere, and an event
that cannot be stored never gets a 200. Afterwards, the same process accepts events again. Delivery
continues, by itself or after its next start. In the end, nothing is missing.
"""

from __future__ import annotations

import itertools
import time
from typing import NamedTuple

from tests.reliability.rig import Rig
from tests.reliability.tracing import inject, synced_again

__all__ = ["FAULTS", "QUICK_FAULTS", "Fault", "strike"]

_log_numbers = itertools.count()


class Fault(NamedTuple):
    """A call of a process that fails."""

    role: str
    call: str
    error: str

    @property
    def is_storing(self) -> bool:
        """Whether no event can be stored while the call fails."""
        return self.role == "collector-0" and self.call in {"pwrite64", "fdatasync"}

    @property
    def when(self) -> str:
        # EINTR is a request to retry: if every call returned it, that would never end.
        return "2+3" if self.error == "EINTR" else "1+"


def _faults(role: str, table: dict[str, str]) -> list[Fault]:
    return [Fault(role, call, error) for call, errors in table.items() for error in errors.split()]


FAULTS = [
    *_faults(
        "collector-0",
        {
            "pwrite64": "EIO ENOSPC EDQUOT EROFS EFBIG EINTR",
            "fdatasync": "EIO ENOSPC EDQUOT EROFS EINTR",
            "fsync": "EIO ENOSPC EDQUOT EROFS",
            "fallocate": "EIO ENOSPC EDQUOT EROFS EFBIG EOPNOTSUPP",
            "ftruncate": "EIO EROFS",
            "openat": "EIO ENOSPC EDQUOT EROFS EMFILE ENFILE",
            "rename": "EIO ENOSPC EROFS",
        },
    ),
    *_faults(
        "delivery",
        {
            "pwrite64": "EIO ENOSPC EDQUOT EROFS",
            "fdatasync": "EIO ENOSPC EDQUOT",
            "fsync": "EIO",
            "ftruncate": "EIO",
            "openat": "EIO EMFILE",
            "unlink": "EIO EROFS EBUSY",
            "rename": "EIO ENOSPC EROFS",
        },
    ),
]
QUICK_FAULTS = [
    Fault("collector-0", "fdatasync", "EIO"),
    Fault("collector-0", "pwrite64", "ENOSPC"),
    Fault("collector-0", "pwrite64", "EINTR"),
    Fault("collector-0", "fsync", "EIO"),
    Fault("collector-0", "fallocate", "EDQUOT"),
    Fault("delivery", "fdatasync", "EIO"),
    Fault("collector-0", "rename", "EIO"),
    Fault("delivery", "rename", "EROFS"),
]


def strike(rig: Rig, fault: Fault, seconds: float = 0.3) -> None:
    """Make a call fail under load for a while, and check the effect."""
    oracle = rig.oracle
    log = rig.folder / f"strace-{next(_log_numbers)}.log"
    injection = f"{fault.call}:error={fault.error}:when={fault.when}"
    with inject(rig.pid(fault.role), log, injection) as trace:
        trace.until_hit(2 if fault.is_storing else 1)
        if fault.is_storing and fault.error != "EINTR":
            oracle.until_refused(100)  # earlier responses have arrived
            acked = oracle.acked
            oracle.until_refused(100)
            assert acked == oracle.acked, f"200 under {fault}"
        else:
            time.sleep(seconds)  # a fault of some duration; it may have no effect to wait for
    again = synced_again(log.read_text(errors="replace"))
    assert not again, f"{fault}: {again[0]}"
    oracle.until_acked(20, 15)
    if fault.role == "delivery":
        rig.kill("delivery")  # its own delays increase with each failure
