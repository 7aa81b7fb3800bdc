"""Opens and shares listening sockets.

The supervisor opens them, so that a wrong address is reported before any process starts, and
pending connections survive a collector restart.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path

from pixelfast.config import Address, parse_address
from pixelfast.errors import ConfigError

__all__ = ["describe_failure", "listen", "share_handed", "share_out"]

_BACKLOG = 4096
_MAX_UNIX_PATH_BYTES = 107  # unix(7): 108 with the NUL at its end


def listen(
    addresses: tuple[str, ...],
    workers: int,
    unix_mode: int = 0o666,
    *,
    setting: str = "server.listen",
) -> tuple[list[list[socket.socket]], list[str]]:
    """Listen on every address for every worker.

    A TCP address gets one socket for each worker, over which the kernel distributes connections
    (SO_REUSEPORT). A Unix socket is shared and gets the permissions `unix_mode`. Return the sockets
    of each worker, and the addresses with port 0 replaced by the real port. `setting` is the name
    of the setting for error messages.

    Raises:
        ConfigError: an address cannot be opened.
    """
    by_worker: list[list[socket.socket]] = [[] for _ in range(workers)]
    names: list[str] = []
    for text in addresses:
        address = parse_address(text)
        try:
            if address.path:
                shared = _listen_unix(address.path, unix_mode)
                for sockets in by_worker:
                    sockets.append(shared)
                names.append(str(address))
            else:
                first = _listen_tcp(address)
                by_worker[0].append(first)
                port = first.getsockname()[1]
                for sockets in by_worker[1:]:
                    sockets.append(_bind(Address(address.host, port), first.family))
                names.append(str(Address(address.host, port)))
        except OSError as error:
            what = f'cannot listen on "{text}": {describe_failure(address, error)}'
            raise ConfigError(setting, None, what) from None
    return by_worker, names


def describe_failure(address: Address, error: OSError) -> str:
    """Return why an address cannot be opened, in words that lead to the remedy."""
    size = len(os.fsencode(address.path))
    if size > _MAX_UNIX_PATH_BYTES:
        return f"the path has {size} bytes, limit {_MAX_UNIX_PATH_BYTES}"
    if error.errno == errno.EADDRINUSE:
        return "address already in use"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine does not have the address"
    if error.errno == errno.EACCES and address.path:
        return f"no permission to create files in {Path(address.path).parent}"
    if error.errno == errno.EACCES:
        return (
            f"ports below {_first_unprivileged_port():,} require the capability"
            " CAP_NET_BIND_SERVICE (AmbientCapabilities= in the systemd unit)"
        )
    if error.errno == errno.ENOENT and address.path:
        return f"the directory {Path(address.path).parent} does not exist"
    return error.strerror or str(error)


def _first_unprivileged_port() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    except (OSError, ValueError):
        return 1024


def share_handed(handed: list[socket.socket], workers: int) -> list[list[socket.socket]]:
    """Distribute the sockets of one address, which were opened for other workers.

    No socket is closed, because that would reset its pending connections. If there are more sockets
    than workers, all workers share the remaining ones. If a TCP address has too few sockets, more
    are opened. These do not listen until their workers accept connections, because the kernel would
    already assign connections to them.

    Raises:
        OSError: a socket cannot be opened.
    """
    first = handed[0]
    is_shared = first.family == socket.AF_UNIX or not first.getsockopt(
        socket.SOL_SOCKET, socket.SO_REUSEPORT
    )
    if is_shared:
        return [list(handed) for _ in range(workers)]
    own = handed[:workers]
    host, port = first.getsockname()[:2]
    address = Address(host, port)
    own += [_bind(address, first.family, listens=False) for _ in range(workers - len(own))]
    return [[each, *handed[workers:]] for each in own]


def share_out(
    passed: list[socket.socket], workers: int
) -> tuple[list[list[socket.socket]], list[str]]:
    """Distribute sockets that systemd opened; return the same as `listen`.

    If an address has one socket for each worker (`ReusePort=yes`), each worker gets its own.
    Otherwise all workers share each socket.
    """
    by_address: dict[str, list[socket.socket]] = {}
    for each in passed:
        by_address.setdefault(_name_of(each), []).append(each)
    by_worker: list[list[socket.socket]] = [[] for _ in range(workers)]
    for sockets in by_address.values():
        for worker, own in enumerate(by_worker):
            own += [sockets[worker]] if len(sockets) == workers else sockets
    return by_worker, list(by_address)


def _name_of(listening: socket.socket) -> str:
    name = listening.getsockname()
    if listening.family == socket.AF_UNIX:
        return f"unix:{name}"
    return str(Address(name[0], name[1]))


def _listen_tcp(address: Address) -> socket.socket:
    family, _, _, _, _ = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    if address.port:
        # With SO_REUSEPORT, a second server of the same user could open the same port and would get
        # half of the pixels. Binding a socket without it fails in this case.
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address.host, address.port))
    return _bind(address, family)


def _bind(address: Address, family: int, *, listens: bool = True) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind((address.host, address.port))
        if listens:
            listening.listen(_BACKLOG)
    except BaseException:
        listening.close()
        raise
    return listening


def _listen_unix(path: str, mode: int) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        listening.bind(path)
        Path(path).chmod(mode)  # clients cannot connect before `listen`
        listening.listen(_BACKLOG)
    except BaseException:
        listening.close()
        raise
    return listening


def _remove_stale(path: str) -> None:
    """Remove the socket of a server that has ended, but not of one that accepts connections."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(Path(path).lstat().st_mode):
            raise OSError(errno.EADDRINUSE, "the file exists and is not a socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                Path(path).unlink()
