"""The properties that all clients of librdkafka have, from the settings.

Source: librdkafka's CONFIGURATION.md.
"""

from __future__ import annotations

from typing import TypeAlias

from pixelfast.config import Cluster, KafkaDestination
from pixelfast.config.kafka import CONSUMER_PROPERTIES, PRODUCER_PROPERTIES
from pixelfast.tls import Tls, TlsFileError, new_context

__all__ = [
    "STATISTICS_S",
    "Properties",
    "admin_properties",
    "connection_properties",
    "consumer_options",
    "producer_options",
    "tls_problem",
]

Properties: TypeAlias = dict[str, str | int | bool]
STATISTICS_S = 5.0
_MAX_RECONNECT_S = 2.0


def connection_properties(settings: KafkaDestination | Cluster) -> Properties:
    """Return the properties of connections to the brokers, and of statistics about them.

    The check of the settings rejects all of them in `options`, except `client.id` and
    `reconnect.backoff.max.ms`, which may be replaced.
    """
    found: Properties = {
        "client.id": "pixelfast",
        "reconnect.backoff.max.ms": int(_MAX_RECONNECT_S * 1000),
        "bootstrap.servers": ",".join(settings.brokers),
        "security.protocol": settings.security,
        "socket.connection.setup.timeout.ms": int(settings.connect_timeout_s * 1000),
        "statistics.interval.ms": int(STATISTICS_S * 1000),
    }
    if settings.security.startswith("sasl_"):
        found["sasl.mechanism"] = settings.sasl_mechanism
        found["sasl.username"] = settings.username
        found["sasl.password"] = settings.password or ""
    files = {
        "ssl.ca.location": settings.tls_ca,
        "ssl.certificate.location": settings.tls_cert,
        "ssl.key.location": settings.tls_key or settings.tls_cert,
    }
    return found | {name: path for name, path in files.items() if path}


def tls_problem(settings: KafkaDestination | Cluster) -> str:
    """Return why a file for TLS cannot be used, or "". Blocks for the disk.

    It names the setting and the path, unlike the error of librdkafka.
    """
    tls = Tls(settings.tls_ca, settings.tls_cert, settings.tls_key)
    if tls == Tls():
        return ""
    try:
        tls.read_into(new_context())
    except TlsFileError as error:
        return str(error)
    return ""


def consumer_options(settings: Cluster) -> Properties:
    """Return the options of the settings that apply to consumers."""
    return _without(settings, PRODUCER_PROPERTIES)


def producer_options(settings: Cluster) -> Properties:
    """Return the options of the settings that apply to producers."""
    return _without(settings, CONSUMER_PROPERTIES)


def admin_properties(settings: Cluster) -> Properties:
    """Return the properties of a client for requests about topics and consumer groups."""
    options = _without(settings, (*CONSUMER_PROPERTIES, *PRODUCER_PROPERTIES))
    return {**connection_properties(settings), **options, "statistics.interval.ms": 0}


def _without(settings: Cluster, beginnings: tuple[str, ...]) -> Properties:
    options = settings.options.items()
    return {name: value for name, value in options if not name.startswith(beginnings)}
