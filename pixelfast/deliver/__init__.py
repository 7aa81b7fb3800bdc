"""Delivery: every stored event reaches each destination at least once, at that destination's pace.

`selection`     which events a destination accepts; `selections`: of all, across reloads
`batches`       batches of events, and how to read the same bytes again
`lines`         some events of a batch, without a copy
`excerpts`      many byte strings in one buffer, without an object for each of them
`cutter`        cuts batches from the spool's NDJSON
`intake`        when to read the spool, and when a batch is due
`plans`         the record of a batch on disk, and how to make its exact bytes again
`tasks`         a batch from the moment it is planned until it is settled
`queue`         tasks that wait to be sent, and which one is next
`sender`        the interface of a kind of destination; `destinations` has a module for each kind,
                `http` the client that most of them use, `bodies` events in other formats
`masking`       masks the secrets of the settings in outcomes
`outcomes`      the possible results of sending a batch; failures are grouped by how events failed
`settlement`    decides what follows from an outcome: delivered, retried, divided, or dead letters
`settler`       carries out settlements; `doubts`, `rejections` and `probe` distinguish bad events
                from a destination that rejects everything
`health`        the state of the destination: `breaker`, `concurrency`, `retry`
`outlet`        the sender and the health, which the runners of a cluster's partitions share
`batch_size`    the maximum size of a batch, adapted to the responses
`memory`        how much of a destination's events is kept in memory
`state_writer`  collects changes of a destination's state and writes them in one transaction
`store`         a destination's cursors, plans and totals in SQLite; `database` opens the file
`threads`       a destination's thread for calls that block on its disk
`progress`      a destination's metrics, from its runner or from its state on the disk
`dead`          events that a destination rejected, in `bundles`; `dead_schema` has the tables
`dead_keeper`   enforces the limits of dead letters
`runner`        one destination: cut, plan, send, settle
`reclaimer`     removes segments that have been read, and expires the oldest if space is short
`stored_needs`  what destinations of other processes still need
`engine`        all destinations of a process
`cluster`       delivery from the topic of a cluster instead of the spool
`event_log`     the log that a destination reads; `home`: where its state and dead letters are kept
`timing`        the clock and the intervals of delivery
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from pixelfast.deliver.engine import Engine, register_destinations
from pixelfast.errors import DestinationError

if TYPE_CHECKING:
    from pixelfast.config import Cluster, Config
    from pixelfast.deliver.cluster.dead import DeadLetterTopic
    from pixelfast.spool import DataDir

__all__ = [
    "DeliveryEngine",
    "Engine",
    "dead_letter_topic",
    "make_engine",
    "register_destinations",
]


class DeliveryEngine(Protocol):
    """Delivers to the destinations of a process, from the spool or from the topic of a cluster."""

    @property
    def names(self) -> list[str]:
        """The names of the destinations."""

    async def run(self) -> None:
        """Deliver until `stop`."""

    def stop(self) -> None: ...

    async def reload(self, config: Config, names: Collection[str] | None = None) -> None:
        """Apply new settings, with the destinations `names` or all."""

    def stats(self) -> dict[str, Any]: ...


def make_engine(
    config: Config, data: DataDir, workers: int = 1, names: Collection[str] | None = None
) -> DeliveryEngine:
    """Return the engine that delivers to the destinations `names`, or to all.

    It reads the topic of `[cluster]`, or else the spool, which `workers` collectors share.

    Raises:
        DestinationError: the package confluent-kafka is not installed.
    """
    if config.cluster is None:
        return Engine(config, data, workers, names)
    _require_kafka()
    # Imported here because it requires the extra `pixelfast[kafka]`.
    from pixelfast.deliver.cluster.engine import ClusterEngine

    return ClusterEngine(config, data, names)


def dead_letter_topic(cluster: Cluster) -> DeadLetterTopic:
    """Return the topic where all machines of a cluster keep dead letters.

    Raises:
        DestinationError: the package confluent-kafka is not installed.
    """
    _require_kafka()
    from pixelfast.deliver.cluster.dead import DeadLetterTopic

    return DeadLetterTopic(cluster, structlog.get_logger("deliver"))


def _require_kafka() -> None:
    if importlib.util.find_spec("confluent_kafka") is None:
        raise DestinationError(
            "[cluster] requires the package confluent-kafka: pip install 'pixelfast[kafka]'"
        )
