"""Settings: a TOML file becomes a frozen `Config`; without a file, the defaults apply.

`schema`       a struct for each section, with the unit, default and meaning of every field
`delivery`     the settings that all types of destinations share
`destinations` a struct for each type of destination; `s3` and `postgres` have their own modules
`brokers`      the settings of connections to Kafka; `cluster` is the section `[cluster]`
`fields`       types that both share
`reader`       reads a file into a `Config`, or reports all its errors
`clashes`      finds conflicts between settings; `kafka` and `clickhouse` those of a type
`packages`     packages that settings require, and the extras that install them
`tables`       the tables of a file, as far as they could be read
`report`       the effective settings with secrets masked, and the reference of all settings
`redactor`     replaces secrets in data from outside; `prefixes` finds where they may begin
`sizing`       how long the spool lasts, and the warnings of `pixelfast check` about disks
`units`        sizes and addresses
`strings`      kinds of strings
`words`        words for error messages
"""

from __future__ import annotations

from pixelfast.config.cluster import NODES_GROUP, Cluster
from pixelfast.config.destinations import (
    ClickhouseDestination,
    Destination,
    ElasticsearchDestination,
    FileDestination,
    HttpDestination,
    KafkaDestination,
    PostgresDestination,
    PosthogDestination,
    RudderstackDestination,
    S3Destination,
    SegmentDestination,
)
from pixelfast.config.reader import read_config, read_data_dir
from pixelfast.config.redactor import Redactor
from pixelfast.config.report import describe, fingerprint, mask
from pixelfast.config.schema import Config, Deliver, Log, Server, ServerTls, Source, Spool, WriteKey
from pixelfast.config.strings import is_base_url
from pixelfast.config.units import Address, format_bytes, parse_address, parse_bytes
from pixelfast.config.words import without_secrets

__all__ = [
    "NODES_GROUP",
    "Address",
    "ClickhouseDestination",
    "Cluster",
    "Config",
    "Deliver",
    "Destination",
    "ElasticsearchDestination",
    "FileDestination",
    "HttpDestination",
    "KafkaDestination",
    "Log",
    "PostgresDestination",
    "PosthogDestination",
    "Redactor",
    "RudderstackDestination",
    "S3Destination",
    "SegmentDestination",
    "Server",
    "ServerTls",
    "Source",
    "Spool",
    "WriteKey",
    "describe",
    "fingerprint",
    "format_bytes",
    "is_base_url",
    "mask",
    "parse_address",
    "parse_bytes",
    "read_config",
    "read_data_dir",
    "without_secrets",
]
