"""A server under load whose Kafka broker and delivery process are killed."""

from __future__ import annotations

import os
import signal
from collections import Counter
from typing import NamedTuple

from tests.deliver.products.real.kafka_broker import KafkaBroker
from tests.deliver.products.topics import Topics
from tests.deliver.running import run
from tests.load import Load
from tests.servers import Server
from tests.waiting import until, wait_until

__all__ = ["SETTINGS", "Outage", "survive_outage"]

SETTINGS = """
[server]
workers = 1
[[sources]]
name = "web"
write_keys = ["wk-web"]
[[destinations]]
name = "stream"
type = "kafka"
brokers = ["{address}"]
topic = "{topic}"
"""
_DELIVERED_S = 60.0


class Outage(NamedTuple):
    """The events of an outage, by their names.

    Attributes:
        acked: those with a 200.
        sent: all that were sent.
        stored: how often each is in the topic.
    """

    acked: set[str]
    sent: set[str]
    stored: Counter[str]

    @property
    def lost(self) -> set[str]:
        return self.acked - self.stored.keys()


def survive_outage(broker: KafkaBroker, topic: str, server: Server) -> Outage:
    """Kill the broker with SIGKILL under load, then delivery, and start the broker again."""
    load = Load(server.port, "wk-web", connections=4, pause_s=0.002)

    async def main() -> None:
        load.start()
        await load.until_acked(300)
        broker.kill()
        await load.until_acked(500)
        os.kill(server.children()["pf-delivery"], signal.SIGKILL)
        await load.until_acked(300)
        broker.launch()
        await until(broker.responds)
        await load.until_acked(200)
        await load.stop()

    run(main())

    def is_delivered() -> bool:
        return server.metrics().get("pixelfast_delivered_events_total", 0) >= len(load.acked)

    wait_until(is_delivered, "all events delivered", _DELIVERED_S)
    topics = Topics(broker.address)
    stored = topics.counts(topic, "event")
    topics.close()
    return Outage(set(load.acked), load.sent, stored)
