"""Settings: one TOML file becomes one frozen `Config`; without a file the defaults run.

`schema` has a struct for each section and `destinations` one for each kind of destination, with the
unit, default and meaning of every field; `fields` is what both share; `reader` turns a file into a
`Config` or into the list of all its mistakes, `clashes` finds those between settings; `report` says
what holds, with secrets masked, and `redactor` masks them in what comes back; `units`, `texts` and
`words` know sizes and addresses, kinds of text, and how a mistake is said.
"""

from __future__ import annotations

from pixelfast.config.destinations import (
    ClickhouseDestination,
    Destination,
    ElasticsearchDestination,
    FileDestination,
    HttpDestination,
    PosthogDestination,
    RudderstackDestination,
    SegmentDestination,
)
from pixelfast.config.reader import read_config, read_data_dir
from pixelfast.config.redactor import Redactor
from pixelfast.config.report import describe, fingerprint, mask
from pixelfast.config.schema import Config, Deliver, Log, Server, ServerTls, Source, Spool, WriteKey
from pixelfast.config.texts import is_base_url
from pixelfast.config.units import Address, format_bytes, parse_address, parse_bytes
from pixelfast.config.words import without_secrets

__all__ = [
    "Address",
    "ClickhouseDestination",
    "Config",
    "Deliver",
    "Destination",
    "ElasticsearchDestination",
    "FileDestination",
    "HttpDestination",
    "Log",
    "PosthogDestination",
    "Redactor",
    "RudderstackDestination",
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
