"""Settings of connections to Kafka, which `[cluster]` and the destinations of a type share."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from pixelfast.config.fields import Secret

__all__ = [
    "DEAD_TOPIC_SUFFIX",
    "BrokerConnectTimeout",
    "BrokerOptions",
    "BrokerUser",
    "Brokers",
    "MessageCompression",
    "SaslMechanism",
    "SaslPassword",
    "Security",
]

DEAD_TOPIC_SUFFIX = "-dead"  # the topic of dead letters has the name of the events' topic with it

Brokers = Annotated[
    tuple[str, ...],
    Meta(
        min_length=1,
        description="addresses of some brokers, from which all others are learned",
        extra={"kind": "broker"},
    ),
]
MessageCompression = Annotated[
    Literal["none", "gzip", "snappy", "lz4", "zstd"],
    Meta(description="compression of messages, which is stored with them"),
]
Security = Annotated[
    Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"],
    Meta(
        description="whether connections use TLS (`ssl`, `sasl_ssl`) and authenticate with a "
        "user name and password (`sasl_plaintext`, `sasl_ssl`)"
    ),
]
SaslMechanism = Annotated[
    Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"],
    Meta(description="how the password is proved; `PLAIN` sends it to the broker"),
]
BrokerUser = Annotated[str, Meta(description="user name for SASL", extra={"kind": "plain"})]
SaslPassword = Annotated[Secret | None, Meta(description="password for `username`")]
BrokerOptions = Annotated[
    dict[str, str],
    Meta(
        description="further properties of librdkafka, by name; they replace pixelfast's own "
        "values, such as that of `linger.ms`. Properties that have a setting of their own or "
        "would weaken a guarantee are rejected"
    ),
]
BrokerConnectTimeout = Annotated[
    float, Meta(ge=1, le=86_400, description="maximum time to connect to a broker")
]
