"""Servers on Unix sockets."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["create_unix_server"]

# From Python 3.13 on, closing a server removes its path by default. The next program uses it: an
# upgrade passes the socket on, and a process manager keeps it.
_KEEP_PATH: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}


async def create_unix_server(
    connect: Callable[[], asyncio.BaseProtocol], **where: Any
) -> asyncio.Server:
    """Create a server on the running loop; closing it keeps its path.

    `where` are other arguments of `loop.create_unix_server`, such as `path` or `sock`.
    """
    return await asyncio.get_running_loop().create_unix_server(connect, **where, **_KEEP_PATH)
