"""The meaning of librdkafka's and the brokers' errors.

Source: librdkafka's rdkafka.h, and Apache Kafka's `org.apache.kafka.common.protocol.Errors`.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, KafkaException

__all__ = [
    "ALL_BROKERS_DOWN",
    "PARTITION_END",
    "Meaning",
    "error_message",
    "hides_settings",
    "is_denial",
    "line_message",
    "meaning_of",
    "reason_of",
    "timed_out",
]

ALL_BROKERS_DOWN = "_ALL_BROKERS_DOWN"
PARTITION_END = "_PARTITION_EOF"
_TIMED_OUT = -185  # RD_KAFKA_RESP_ERR__TIMED_OUT


class Meaning(Enum):
    """What an error says about the events of a message."""

    RETRY = "retry"  # nothing, so that they are retried
    REJECTED = "rejected"  # they are bad
    TOO_LARGE = "too large"  # they are bad, or their message set is too large
    HELD = "held"  # a setting on one side is wrong


_TOO_LARGE = frozenset({"MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE", "INVALID_MSG_SIZE"})
_REJECTED = frozenset({"INVALID_RECORD", "INVALID_TIMESTAMP"})
_HELD = frozenset(
    {
        "_AUTHENTICATION",
        "_FATAL",
        "_FENCED",
        "_INVALID_ARG",
        "_UNKNOWN_PARTITION",
        "_UNKNOWN_TOPIC",
        "_UNSUPPORTED_FEATURE",
        "CLUSTER_AUTHORIZATION_FAILED",
        "ILLEGAL_SASL_STATE",
        "INVALID_CONFIG",
        "INVALID_REQUIRED_ACKS",
        "POLICY_VIOLATION",
        "SASL_AUTHENTICATION_FAILED",
        "SECURITY_DISABLED",
        "TOPIC_AUTHORIZATION_FAILED",
        "TOPIC_EXCEPTION",
        "TRANSACTIONAL_ID_AUTHORIZATION_FAILED",
        "UNKNOWN_TOPIC_ID",
        "UNKNOWN_TOPIC_OR_PART",
        "UNSUPPORTED_COMPRESSION_TYPE",
        "UNSUPPORTED_FOR_MESSAGE_FORMAT",
        "UNSUPPORTED_SASL_MECHANISM",
        "UNSUPPORTED_VERSION",
    }
)
_SETTINGS_HIDDEN = frozenset(
    {
        "CLUSTER_AUTHORIZATION_FAILED",
        "TOPIC_AUTHORIZATION_FAILED",
        "UNSUPPORTED_VERSION",
        "_UNSUPPORTED_FEATURE",
    }
)
# Times and counts differ each time, and would make the same error look like a new one.
_CHANGING = re.compile(
    r" \(after \d+ms in state \w+(?:, \d+ identical error\(s\) suppressed)?\)"
    r"| \(\d+ identical error\(s\) suppressed\)"
)

_ABOUT_CERTIFICATES = re.compile(r"SSL routines::.*(?:certificate|unknown ca)")
_THREAD = re.compile(r"^\[thrd:[^\]]*\]: ")


def meaning_of(error: KafkaError) -> Meaning:
    """Return what the error of a message means for its events."""
    name = error.name()
    if name in _TOO_LARGE:
        return Meaning.TOO_LARGE
    if name in _REJECTED:
        return Meaning.REJECTED
    return Meaning.HELD if name in _HELD or error.fatal() else Meaning.RETRY


def is_denial(error: KafkaError) -> bool:
    """Whether a connection failed because one side does not accept the other.

    Other errors of TLS may pass, such as a connection that is closed during the handshake. With TLS
    1.3, a broker rejects the certificate of a client after the handshake, which librdkafka does not
    report as an error of TLS.
    """
    if error.name() in ("_AUTHENTICATION", "SASL_AUTHENTICATION_FAILED"):
        return True
    return error.name() in ("_SSL", "_TRANSPORT") and bool(_ABOUT_CERTIFICATES.search(error.str()))


def hides_settings(error: KafkaError) -> bool:
    """Whether the brokers do not return a topic's settings to this user, or do not support that.

    An operator may have reasons not to grant the permission. Other errors pass.
    """
    return error.name() in _SETTINGS_HIDDEN


def timed_out() -> KafkaException:
    """Return the exception for brokers that did not respond in time.

    >>> timed_out().args[0].name()
    '_TIMED_OUT'
    """
    from confluent_kafka import KafkaError, KafkaException

    return KafkaException(KafkaError(_TIMED_OUT))


def error_message(error: KafkaError) -> str:
    """Return the message of an error of a broker or of librdkafka, the same for the same cause."""
    return _CHANGING.sub("", error.str())


def reason_of(error: Exception) -> str:
    """Return the words of an exception, also of one that confluent-kafka has raised."""
    from confluent_kafka import KafkaException

    is_of_kafka = isinstance(error, KafkaException)
    return error_message(error.args[0]) if is_of_kafka else str(error) or type(error).__name__


def line_message(line: str) -> str:
    """Return the message in a log line of librdkafka, without its thread.

    >>> line_message("[thrd:kafka:9092/1]: kafka:9092/1: Disconnected (after 3ms in state UP)")
    'kafka:9092/1: Disconnected'
    """
    return _CHANGING.sub("", _THREAD.sub("", line))
