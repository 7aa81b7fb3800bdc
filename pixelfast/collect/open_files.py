"""Relate the number of connections to the limit of open files."""

from __future__ import annotations

from pixelfast.collect.connection import MAX_OVER_LIMIT
from pixelfast.config import Server

__all__ = ["connections_within", "files_of_connections"]

# Segments, pipes and the interpreter's own files, but not connections and listening sockets.
_OWN_FILES = 48


def files_of_connections(server: Server, connections: int) -> int:
    """Return the number of descriptors that a collector needs for a number of connections.

    It includes some for connections beyond the limit, which still get a 503.
    """
    return _OWN_FILES + MAX_OVER_LIMIT + len(server.addresses) + connections


def connections_within(server: Server, open_files: int) -> int:
    """Return how many connections a collector accepts with a limit of open files: at least 1."""
    return max(1, min(server.max_connections, open_files - files_of_connections(server, 0)))
