"""`[cluster]`: Kafka as the event log of several machines."""

from __future__ import annotations

import socket
from typing import Annotated, Literal

from msgspec import Meta, Struct

from pixelfast.config.brokers import (
    BrokerConnectTimeout,
    BrokerOptions,
    Brokers,
    BrokerUser,
    MessageCompression,
    SaslMechanism,
    SaslPassword,
    Security,
)
from pixelfast.config.delivery import TlsAuthority, TlsCertificate, TlsKey

__all__ = ["NODES_GROUP", "Cluster"]

NODES_GROUP = "pixelfast.nodes"  # the consumer group of all machines


class Cluster(Struct, frozen=True, kw_only=True):
    """`[cluster]`: the topic of Apache Kafka that is the event log of several machines."""

    brokers: Brokers
    topic: Annotated[
        str,
        Meta(description="topic of all events of all machines", extra={"kind": "cluster topic"}),
    ] = "pixelfast-events"
    node: Annotated[
        str,
        Meta(
            description="human-readable name of this machine, shown in the log and in the members "
            "of the consumer group `pixelfast.nodes`; no other machine may have it. Empty: the "
            "host name, which is not checked when pixelfast starts",
            extra={"kind": "node name?"},
        ),
    ] = ""
    ack: Annotated[
        Literal["replicated"],
        Meta(
            description="guarantee of a 200: the event is on the disk or in the memory of at least "
            "`min_insync` brokers"
        ),
    ] = "replicated"
    when_unavailable: Annotated[
        Literal["spool", "reject"],
        Meta(
            description="after `max_replication_wait_s` without a response of the brokers: respond "
            "with 200 when the event is on the local disk, and forward it later; or respond with "
            "503"
        ),
    ] = "spool"
    max_replication_wait_s: Annotated[
        float,
        Meta(
            gt=0,
            le=60,
            description="maximum time that an event may wait for the brokers before "
            "`when_unavailable` applies",
        ),
    ] = 0.5
    min_insync: Annotated[
        int,
        Meta(
            ge=1,
            le=100,
            description="minimum value of the topic's `min.insync.replicas`, which is checked when "
            "pixelfast connects; 1 only for tests with a single broker",
        ),
    ] = 2
    max_message_bytes: Annotated[
        int,
        Meta(
            ge=2**17,
            le=10**9,
            description="maximum size of a message; at most the topic's `max.message.bytes`. A "
            "larger commit is split",
            extra={"unit": "B"},
        ),
    ] = 1_000_000
    compression: MessageCompression = "lz4"
    security: Security = "plaintext"
    sasl_mechanism: SaslMechanism = "SCRAM-SHA-512"
    username: BrokerUser = ""
    password: SaslPassword = None
    tls_ca: TlsAuthority = ""
    tls_cert: TlsCertificate = ""
    tls_key: TlsKey = ""
    connect_timeout_s: BrokerConnectTimeout = 5.0
    options: BrokerOptions = {}

    @property
    def node_name(self) -> str:
        """The name of this machine: `node`, or the host name.

        >>> Cluster(brokers=("kafka-1:9092",), node="web-1").node_name
        'web-1'
        """
        return self.node or socket.gethostname().replace("/", "-")
