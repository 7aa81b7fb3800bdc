"""kill -9 at random moments under load, many times with the same data directory."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable

from tests.reliability.rig import Rig

__all__ = ["kill_over_and_over"]

CHILDREN = ("collector-0", "delivery", "collector-1", "delivery-1")


def kill_over_and_over(
    rig: Rig,
    lives: int,
    rng: random.Random,
    *,
    kills_a_life: int | None = None,
    on_life: Callable[[Counter[str]], bool] = lambda _: True,
) -> Counter[str]:
    """Kill processes of `lives` consecutive servers; return how often each was killed.

    In each life, the server is started, its children are killed while the load continues, each once
    by default, and then the supervisor or everything is killed. The kills follow each other
    quickly, so that some hit a process during its start. `on_life` receives the counts and returns
    whether to continue.
    """
    killed: Counter[str] = Counter()
    children = CHILDREN[: 2 + rig.deliveries]
    for life in range(lives):
        rig.start()
        rig.oracle.resume()
        for place in range(kills_a_life or len(children)):
            role = children[place % len(children)]
            time.sleep(rng.uniform(0.0, 0.15))  # the moment must be random
            rig.kill(role)
            killed[role.partition("-")[0]] += 1
        rig.oracle.until_acked(30)
        time.sleep(rng.uniform(0.0, 0.2))
        if life % 2:
            rig.kill("supervisor")
        else:
            rig.crash()
            killed.update({"collector": 2, "delivery": rig.deliveries})
        killed["supervisor"] += 1
        rig.oracle.pause()
        if not on_life(killed):
            break
    return killed
