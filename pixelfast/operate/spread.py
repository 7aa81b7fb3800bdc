"""How the destinations are spread over the delivery processes."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from pixelfast.config import Config

__all__ = ["max_processes", "spread"]

# For each destination, an event costs delivery about a sixth of what it costs a collector. With two
# destinations, one delivery process therefore keeps up with three collectors.
_CORES_A_PROCESS = 4


def max_processes(config: Config, cores: int) -> int:
    """Return the maximum number of delivery processes: `deliver.processes`, or one per 4 cores.

    >>> max_processes(Config(), 2), max_processes(Config(), 16)
    (1, 4)
    """
    return config.deliver.processes or max(1, cores // _CORES_A_PROCESS)


def spread(
    names: Collection[str], max_count: int, before: Sequence[Collection[str]] = ()
) -> list[list[str]]:
    """Return the destinations of each of `max_count` processes; some may have none.

    A destination stays in the process that has it in `before`. A new one goes to the process that
    has the fewest.

    >>> spread("abcd", 3)
    [['a', 'd'], ['b'], ['c']]
    >>> spread("acde", 3, [["a", "d"], ["b"], ["c"]])
    [['a', 'd'], ['e'], ['c']]
    """
    shares = [[name for name in names if name in own] for own in before[:max_count]]
    shares += [[] for _ in range(max_count - len(shares))]
    placed = {name for own in shares for name in own}
    for name in names:
        if name not in placed:
            min(shares, key=len).append(name)
    return shares
