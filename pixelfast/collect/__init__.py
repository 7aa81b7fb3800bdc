"""Collect pixels: read requests from connections, store their events in the spool, and respond.

`worker`        one collector process
`connection`    HTTP on one connection: states, responses in order, memory limits
`flow_control`  whether a connection may read and write
`tls`           TLS between a socket and a connection
`certificates`  the certificate of the TLS addresses
`reader`        requests parsed from bytes, however TCP splits them
`scan`          a fast path for plain GET requests, ahead of the parser
`chunks`        the end of a chunked body
`headers`       the headers that the collector uses, and how each is handled
`host`          the valid values of a Host header
`limits`        the limits of a request and of a connection
`collector`     routes and sources: from a request to its response and its event
`response`      a response as a value, and the queue of responses that a connection owes
`responses`     the bytes of every response
`rejections`    log lines about rejected pixels
`sources`       write keys and their sources
`budgets`       rate limits, in memory that all collectors share
`proxies`       the client's address behind trusted proxies
`unix_server`   servers on Unix sockets
`open_files`    the number of connections that the limit of open files allows
`clock`         wall time for events, monotonic time for limits and durations
"""

from __future__ import annotations

from pixelfast.errors import missing_module

try:
    from pixelfast.collect.collector import Collector
    from pixelfast.collect.connection import Connection, Connections
except ModuleNotFoundError as error:
    raise missing_module(error) from error
from pixelfast.collect.open_files import connections_within, files_of_connections
from pixelfast.collect.unix_server import create_unix_server
from pixelfast.collect.worker import Worker

__all__ = [
    "Collector",
    "Connection",
    "Connections",
    "Worker",
    "connections_within",
    "create_unix_server",
    "files_of_connections",
]
