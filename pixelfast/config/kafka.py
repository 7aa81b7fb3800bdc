"""Conflicts between the settings of connections to Kafka, and their properties of librdkafka.

The `options` of `[cluster]` and of Kafka destinations are passed to librdkafka. A property is
rejected if pixelfast sets it from a setting, or if another value would weaken the guarantee that an
event which the brokers have acknowledged is stored.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping

from pixelfast.config.brokers import DEAD_TOPIC_SUFFIX
from pixelfast.config.cluster import NODES_GROUP
from pixelfast.config.packages import missing_package
from pixelfast.config.tables import Table
from pixelfast.config.words import shown
from pixelfast.errors import ConfigError

__all__ = [
    "CONSUMER_PROPERTIES",
    "PRODUCER_PROPERTIES",
    "cluster_clashes",
    "group_clashes",
    "kafka_clashes",
    "topic_clashes",
]

# Properties of one kind of client, by the beginning of their names; the other kind ignores them.
CONSUMER_PROPERTIES = (
    *("auto.commit.", "auto.offset.", "check.crcs", "consume.callback.", "coordinator.query."),
    *("enable.auto.", "enable.partition.eof", "fetch.", "group.", "heartbeat.", "isolation."),
    *("max.partition.fetch.", "max.poll.", "offset.store.", "partition.assignment.", "queued."),
    "session.",
)
PRODUCER_PROPERTIES = (
    *("acks", "batch.", "compression.", "delivery.", "enable.gapless.", "enable.idempotence"),
    *("linger.", "message.send.", "message.timeout.", "partitioner", "produce.offset."),
    *("queue.buffering.", "queuing.", "request.required.", "request.timeout.", "retries"),
    *("retry.backoff.", "sticky.partitioning.", "transaction.", "transactional."),
)
_SETTINGS = {
    "bootstrap.servers": "brokers",
    "metadata.broker.list": "brokers",
    "security.protocol": "security",
    "sasl.mechanism": "sasl_mechanism",
    "sasl.mechanisms": "sasl_mechanism",
    "sasl.username": "username",
    "sasl.password": "password",
    "ssl.ca.location": "tls_ca",
    "ssl.ca.pem": "tls_ca",
    "ssl.certificate.location": "tls_cert",
    "ssl.certificate.pem": "tls_cert",
    "ssl.key.location": "tls_key",
    "compression.codec": "compression",
    "compression.type": "compression",
    "message.timeout.ms": "timeout_s",
    "delivery.timeout.ms": "timeout_s",
    "socket.connection.setup.timeout.ms": "connect_timeout_s",
}
_UNVERIFIED = (
    "must not be changed: without it, anyone between pixelfast and a broker could read and drop"
    " events; set tls_ca to trust a private authority"
)
_QUEUE = "must not be changed: pixelfast limits the queue by max_bytes, and waits while it is full"
_REPEATED = (
    "must not be changed: librdkafka retries until timeout_s without storing a message twice; with"
    " fewer retries, messages would be stored twice or in another order"
)
_TRANSACTIONS = "cannot be used: pixelfast does not send transactions"
_PRIVATE = (
    "cannot be used: options are not secret. Use a key without a passphrase, and the setting"
    " tls_key"
)
_UNUSED = "has no effect: librdkafka does not use it any more"
_CODE = "cannot be used: it would load code into pixelfast"
_REASONS = {
    "enable.idempotence": "must not be changed: without it, a message is stored twice, or after a"
    " later one, if its response is lost",
    "acks": "must not be changed: with a value other than all, an event could be lost after it was"
    " counted as delivered",
    "max.in.flight": _REPEATED,
    "retries": _REPEATED,
    "enable.gapless.guarantee": "must not be changed: with it, one message that times out would end"
    " the producer",
    "transactional.id": _TRANSACTIONS,
    "transaction.timeout.ms": _TRANSACTIONS,
    "queue.buffering.max.messages": _QUEUE,
    "queue.buffering.max.kbytes": _QUEUE,
    "delivery.report.only.error": "must not be changed: an event counts as delivered only if the"
    " report of its message says so",
    "enable.ssl.certificate.verification": _UNVERIFIED,
    "ssl.endpoint.identification.algorithm": _UNVERIFIED,
    "ssl.key.password": _PRIVATE,
    "ssl.key.pem": _PRIVATE,
    "ssl.keystore.location": _PRIVATE,
    "ssl.keystore.password": _PRIVATE,
    "statistics.interval.ms": "must not be changed: the metrics depend on it",
    "queuing.strategy": "must not be changed: messages would be stored in another order",
    "plugin.library.paths": _CODE,
    "ssl.engine.id": _CODE,
    "ssl.engine.location": _CODE,
    "ssl.providers": _CODE,
    "internal.termination.signal": "cannot be used: librdkafka would handle this signal instead of"
    " pixelfast",
    "topic.blacklist": "cannot be used: librdkafka would ignore topics that exist",
    "produce.offset.report": _UNUSED,
    "reconnect.backoff.jitter.ms": _UNUSED,
    "socket.blocking.max.ms": _UNUSED,
    "topic.metadata.refresh.fast.cnt": _UNUSED,
    "default.topic.config": "cannot be used: set each property of topics in options itself",
}
_ORDER = (
    "must not be changed: pixelfast retries until the brokers respond; with a time limit, an event"
    " could be stored before an earlier one"
)
_COMMITS = "must not be changed: pixelfast commits what is delivered"
_ASSIGNMENT = (
    "must not be changed: pixelfast requires the classic protocol of consumer groups and the"
    " strategy cooperative-sticky"
)
_PARTITION = "has no effect: pixelfast chooses the partition of each message"
# Of `[cluster]`, where these differ from those of a destination.
_CLUSTER_REASONS = {
    "message.timeout.ms": _ORDER,
    "delivery.timeout.ms": _ORDER,
    "max.in.flight": _ORDER,
    "retries": _ORDER,
    "enable.gapless.guarantee": "must not be changed: without it, an event could be stored after a"
    " later one",
    "message.max.bytes": "use the setting max_message_bytes",
    "queue.buffering.max.messages": "must not be changed: pixelfast limits the queue itself",
    "queue.buffering.max.kbytes": "must not be changed: pixelfast limits the queue itself",
    "acks": "must not be changed: with a value other than all, an acknowledged event could be lost",
    "delivery.report.only.error": "must not be changed: an event is acknowledged only if the"
    " report of its message says so",
    "group.id": "must not be changed: it is the name of the destination",
    "group.instance.id": "must not be changed: the settings are the same on all machines, and two"
    " members of a group with the same instance id exclude each other",
    "group.protocol": _ASSIGNMENT,
    "group.protocol.type": _ASSIGNMENT,
    "group.remote.assignor": _ASSIGNMENT,
    "partition.assignment.strategy": _ASSIGNMENT,
    "enable.auto.commit": _COMMITS,
    "enable.auto.offset.store": _COMMITS,
    "auto.commit.enable": _COMMITS,
    "auto.commit.interval.ms": _COMMITS,
    "offset.store.method": _COMMITS,
    "offset.store.path": _COMMITS,
    "offset.store.sync.interval.ms": _COMMITS,
    "consume.callback.max.messages": "has no effect: pixelfast does not use this callback",
    "enable.partition.eof": "must not be changed: pixelfast sets it where it is needed",
    "queued.max.messages.kbytes": "must not be changed: pixelfast limits the memory for fetched"
    " messages itself",
    "partitioner": _PARTITION,
    "sticky.partitioning.linger.ms": _PARTITION,
    "auto.offset.reset": "must not be changed: events would be skipped",
    "isolation.level": "must not be changed: pixelfast does not use transactions",
}
_ALIASES = {
    "request.required.acks": "acks",
    "max.in.flight.requests.per.connection": "max.in.flight",
    "message.send.max.retries": "retries",
}
_TYPES = ("page", "track")  # of events
# Properties for programs, by their beginning or end.
_CALLBACKS = ("_cb", "on_delivery", "opaque", "logger", "enabled_events", "log.queue")


def cluster_clashes(table: Table) -> Iterator[ConfigError]:
    """Yield the conflicts within `[cluster]`."""
    if missing := missing_package("kafka", "confluent_kafka"):
        yield ConfigError(table.path, None, missing)
    yield from _security(table)
    yield from _options(table, _CLUSTER_REASONS)


def kafka_clashes(table: Table) -> Iterator[ConfigError]:
    """Yield the conflicts within a table with `type = "kafka"`."""
    if missing := missing_package("kafka", "confluent_kafka"):
        yield ConfigError(f"{table.path}.type", shown("kafka"), missing)
    yield from _security(table)
    if table.get("message") == "batch":
        yield from _batched(table)
    yield from _options(table, {}, CONSUMER_PROPERTIES)


def topic_clashes(
    cluster: Table, sources: Iterable[str], destinations: Iterable[Table]
) -> Iterator[ConfigError]:
    """Yield a conflict for each Kafka destination that writes to a topic of `[cluster]`.

    One address in common is enough: other addresses can belong to the same brokers.
    """
    name = cluster.get("topic")
    if name is None:
        return
    reserved = {name: "events", name + DEAD_TOPIC_SUFFIX: "dead letters"}
    for table in destinations:
        template = table.get("topic") or ""
        topics = {
            template.replace("{source}", source).replace("{type}", type_)
            for source, type_ in itertools.product(sources, _TYPES)
        }
        found = sorted(topics & reserved.keys())
        if found and _addresses(table) & _addresses(cluster):
            what = (
                f"must not be a topic of [cluster]: {found[0]} contains its {reserved[found[0]]},"
                " and other messages in it are invalid"
            )
            yield ConfigError(f"{table.path}.topic", shown(template), what)


def group_clashes(destinations: Iterable[Table]) -> Iterator[ConfigError]:
    """Yield a conflict for a destination whose consumer group would be that of the machines."""
    for table in destinations:
        name = table.get("name") or ""
        if f"pixelfast.{name}" == NODES_GROUP:
            what = f"cannot be used with [cluster]: {NODES_GROUP} is the group of the machines"
            yield ConfigError(f"{table.path}.name", shown(name), what)


def _addresses(table: Table) -> set[str]:
    return {each.lower() for each in table.get("brokers") or ()}


def _security(table: Table) -> Iterator[ConfigError]:
    security = table.get("security")
    if security is None:
        return
    if security.startswith("sasl_"):
        for name in ("username", "password"):
            if name not in table.values or table.values[name] == "":
                what = f"required with security = {shown(security)}"
                yield ConfigError(f"{table.path}.{name}", None, what)
    else:
        for name in ("username", "password", "sasl_mechanism"):
            if table.gives(name):
                what = 'requires security = "sasl_ssl" or "sasl_plaintext"'
                yield ConfigError(f"{table.path}.{name}", None, what)
    if security not in ("ssl", "sasl_ssl"):
        for name in ("tls_ca", "tls_cert"):
            if table.get(name):
                what = 'requires security = "ssl" or "sasl_ssl"'
                yield ConfigError(f"{table.path}.{name}", None, what)


def _batched(table: Table) -> Iterator[ConfigError]:
    """Check the settings that a message with several events cannot have."""
    if table.get("key") == "user":
        what = 'requires message = "event", because a batch has events of several users'
        yield ConfigError(f"{table.path}.key", '"user"', what)
    if "{type}" in (table.get("topic") or ""):
        what = '{type} requires message = "event", because a batch has events of several types'
        yield ConfigError(f"{table.path}.topic", shown(table.get("topic")), what)


def _options(
    table: Table, own_reasons: Mapping[str, str], ignored: tuple[str, ...] = ()
) -> Iterator[ConfigError]:
    for name, value in (table.get("options") or {}).items():
        if reason := own_reasons.get(_ALIASES.get(name, name)) or _rejection(name):
            yield ConfigError(f"{table.path}.options.{name}", None, reason)
        elif ignored and name.startswith(ignored):
            what = "has no effect: it is a property of consumers"
            yield ConfigError(f"{table.path}.options.{name}", None, what)
        elif "\0" in name + value:
            yield ConfigError(f"{table.path}.options.{name}", None, "must not contain U+0000")


def _rejection(name: str) -> str:
    """Return why a property is rejected, or "" if it may be set."""
    if name in _SETTINGS:
        return f"use the setting {_SETTINGS[name]}"
    if name.startswith("test."):
        return "cannot be used: it replaces the brokers with a simulation, which loses all events"
    if name.startswith(
        ("sasl.oauthbearer.", "sasl.kerberos.", "https.ca.", "enable.sasl.oauthbearer.")
    ):
        return "cannot be used: this mechanism is not supported"
    if name.endswith(_CALLBACKS):
        return "cannot be used: only a program can set it"
    return _REASONS.get(_ALIASES.get(name, name), "")
