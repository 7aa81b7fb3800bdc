"""Checks the properties of clients of Kafka as librdkafka does, without connecting."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, TypeAlias

from pixelfast.cluster.nodes import Node, member_properties
from pixelfast.cluster.producer import producer_properties
from pixelfast.config import Cluster, Destination, KafkaDestination
from pixelfast.deliver.cluster.properties import (
    dead_consumer_properties,
    dead_producer_properties,
    fetcher_properties,
    group_properties,
)
from pixelfast.deliver.kafka.properties import properties, set_bytes
from pixelfast.errors import ConfigError
from pixelfast.kafka.connection import Properties, admin_properties, tls_problem
from pixelfast.kafka.logger import SilentLogger

__all__ = ["check_properties"]

_GROUP = "pixelfast.check"  # is not joined
_Kind: TypeAlias = Literal["producer", "consumer"]


def check_properties(
    destinations: Iterable[Destination],
    cluster: Cluster | None = None,
    *,
    without_security: bool = False,
) -> Iterator[ConfigError]:
    """Yield why clients with the properties of Kafka destinations and of `[cluster]` cannot start.

    `without_security` leaves out passwords and the files for TLS, which this machine may lack. Only
    `pixelfast check` calls this function, because librdkafka needs memory and threads. A
    destination with such an error is held.
    """
    tables: list[tuple[str, KafkaDestination | Cluster]] = [
        (f"destinations[{each.name}]", each)
        for each in destinations
        if isinstance(each, KafkaDestination)
    ]
    if cluster is not None:
        tables.append(("cluster", cluster))
    for path, settings in tables:
        if not without_security and (problem := tls_problem(settings)):
            yield ConfigError(path, None, problem)
            continue
        for kind, chosen in _clients_of(settings):
            if without_security:
                _drop_security(chosen, settings)
            if reason := _rejection(kind, chosen):
                yield ConfigError(path + (".options" if settings.options else ""), None, reason)
                break


def _clients_of(settings: KafkaDestination | Cluster) -> list[tuple[_Kind, Properties]]:
    """Return the kind and the properties of each client that runs with the settings."""
    if isinstance(settings, KafkaDestination):
        return [("producer", properties(settings, set_bytes(settings)))]
    return [
        ("producer", producer_properties(settings, settings.max_message_bytes)),
        ("producer", dead_producer_properties(settings)),
        ("producer", admin_properties(settings)),  # an AdminClient is a producer for librdkafka
        ("consumer", group_properties(settings, _GROUP)),
        ("consumer", fetcher_properties(settings, _GROUP)),
        ("consumer", dead_consumer_properties(settings)),
        ("consumer", member_properties(settings, Node(settings.topic, settings.node_name, "0"))),
    ]


def _drop_security(chosen: Properties, settings: KafkaDestination | Cluster) -> None:
    for name in chosen.keys() - settings.options.keys():
        if name.startswith(("security.", "sasl.", "ssl.")):
            del chosen[name]


def _rejection(kind: _Kind, chosen: Properties) -> str:
    from confluent_kafka import Consumer, KafkaException, Producer

    # Without brokers, it connects to none.
    without_brokers = {name: each for name, each in chosen.items() if name != "bootstrap.servers"}
    try:
        if kind == "producer":
            Producer({**without_brokers, "logger": SilentLogger()})
        else:
            Consumer({**without_brokers, "logger": SilentLogger()}).close()
    except KafkaException as error:
        message: str = error.args[0].str()
        return message.strip().removeprefix(f"Failed to create {kind}: ")
    except (AttributeError, TypeError, ValueError) as error:  # of properties for programs
        return str(error)
    return ""
