"""kill -9 at random moments under load, many times over one data directory."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable

from tests.reliability.rig import Rig

__all__ = ["kill_over_and_over"]

CHILDREN = ("collector-0", "delivery", "collector-1")


def kill_over_and_over(
    rig: Rig,
    lives: int,
    rng: random.Random,
    *,
    kills_a_life: int = 3,
    on_life: Callable[[Counter[str]], bool] = lambda _: True,
) -> Counter[str]:
    """Kill processes of `lives` servers, each after the other; how often each was killed.

    A life: start, kill children while the load continues, then the supervisor, or everything.
    A child's kills come soon after each other, so that some hit it while it starts. `on_life` is
    told the counts and says whether to continue.
    """
    killed: Counter[str] = Counter()
    for life in range(lives):
        rig.start()
        rig.oracle.resume()
        for place in range(kills_a_life):
            role = CHILDREN[place % len(CHILDREN)]
            time.sleep(rng.uniform(0.0, 0.15))  # a moment of chance is the point
            rig.kill(role)
            killed["collector" if role.startswith("collector") else role] += 1
        rig.oracle.until_acked(30)
        time.sleep(rng.uniform(0.0, 0.2))
        if life % 2:
            rig.kill("supervisor")
        else:
            rig.crash()
            killed.update({"collector": 2, "delivery": 1})
        killed["supervisor"] += 1
        rig.oracle.pause()
        if not on_life(killed):
            break
    return killed
