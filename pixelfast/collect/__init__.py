"""Collecting: from the bytes of a connection to an event in the spool, and the GIF back.

`protocol`  HTTP on one connection: parse, bound, answer in order
`answers`   the bytes of every answer
`sources`   write keys, sources, rate limits
`proxies`   whose request it is behind trusted proxies
`clock`     the time, which tests hold and move
`worker`    one collector process
"""

from __future__ import annotations

from pixelfast.errors import NOT_COMPILED

try:
    from pixelfast.collect.protocol import Collector, Connection
except ModuleNotFoundError as error:
    raise ImportError(NOT_COMPILED.format(error.name)) from error
from pixelfast.collect.worker import Worker

__all__ = ["Collector", "Connection", "Worker"]
