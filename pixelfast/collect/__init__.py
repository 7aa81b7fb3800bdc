"""Collect: from the bytes of a connection to an event in the spool, and the GIF back.

`connection`    HTTP on one connection: its states, its responses in order, what it may hold
`flow_control`  whether a connection may read and write
`response`      a response as a value, and those that a connection owes
`reader`        from bytes to one request after the other, wherever TCP cuts
`scan`          a scan for what nearly every request is, in front of the parser
`chunks`        the end of a body in chunks
`headers`       the headers that matter, and what becomes of each
`limits`        every limit of a request and of a connection
`clock`         wall time for events, monotonic time for limits and durations
`collector`     from a request to its response: routes, sources, the event into the spool
`sources`       write keys, and the sources that they name
`budgets`       rate limits, in memory that all collectors share
`responses`     the bytes of every response
`rejections`    lines in the log about rejected pixels
`proxies`       the client's address behind trusted proxies
`open_files`    how many connections the limit of open files allows
`worker`        one collector process
"""

from __future__ import annotations

from pixelfast.errors import NOT_COMPILED

try:
    from pixelfast.collect.collector import Collector
    from pixelfast.collect.connection import Connection, Connections
except ModuleNotFoundError as error:
    raise ImportError(NOT_COMPILED.format(error.name)) from error
from pixelfast.collect.open_files import connections_within, files_of_connections
from pixelfast.collect.worker import Worker

__all__ = [
    "Collector",
    "Connection",
    "Connections",
    "Worker",
    "connections_within",
    "files_of_connections",
]
