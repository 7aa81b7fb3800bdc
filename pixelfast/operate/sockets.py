"""Listening sockets. The supervisor opens them, so that a wrong address is reported before anything
starts, and pending connections survive a collector restart."""

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
    """Listen at every address, for every worker.

    A TCP address gets one socket a worker (SO_REUSEPORT: the kernel spreads connections over them);
    a Unix socket is shared, with the permissions `unix_mode`. Returns the sockets of each worker,
    and the addresses as they are: port 0 has become a real one. `setting` is where the addresses
    come from.

    Raises:
        ConfigError: an address can't be listened at.
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
            what = f'cannot listen at "{text}": {describe_failure(address, error)}'
            raise ConfigError(setting, None, what) from None
    return by_worker, names


def describe_failure(address: Address, error: OSError) -> str:
    """Return why an address cannot be listened at, in words that lead to the remedy."""
    size = len(os.fsencode(address.path))
    if size > _MAX_UNIX_PATH_BYTES:
        return f"its path has {size} bytes, limit {_MAX_UNIX_PATH_BYTES}"
    if error.errno == errno.EADDRINUSE:
        return "address already in use"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine does not have the address"
    if error.errno == errno.EACCES and address.path:
        return f"this user may not create files in {Path(address.path).parent}"
    if error.errno == errno.EACCES:
        return (
            f"ports below {_least_free_port():,} require the capability CAP_NET_BIND_SERVICE"
            " (AmbientCapabilities= in the systemd unit)"
        )
    if error.errno == errno.ENOENT and address.path:
        return f"the directory {Path(address.path).parent} does not exist"
    return error.strerror or str(error)


def _least_free_port() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    except (OSError, ValueError):
        return 1024


def share_handed(handed: list[socket.socket], workers: int) -> list[list[socket.socket]]:
    """Give the sockets of one address, opened for other workers, to these workers.

    None is closed: that would reset the connections that wait in it. If there are more sockets
    than workers, all workers share the others. If there are fewer of a TCP address that has one
    for each worker, the missing ones are opened. Those do not listen: the kernel would send them
    connections that nobody accepts yet. Their workers listen when they accept.

    Raises:
        OSError: one can't be opened.
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
    """Give sockets that the service manager opened to the workers; returns as `listen` does.

    As many sockets of one address as there are workers (`ReusePort=yes`): each worker gets its own,
    and the kernel spreads connections over them. Otherwise all workers share each socket.
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
        # SO_REUSEPORT lets a second server of the same user in without a word: it would take half
        # of the pixels. A socket without it finds out.
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
        Path(path).chmod(mode)  # nobody can connect before `listen`
        listening.listen(_BACKLOG)
    except BaseException:
        listening.close()
        raise
    return listening


def _remove_stale(path: str) -> None:
    """Remove the socket of a server that is gone; one that answers stays."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(Path(path).lstat().st_mode):
            raise OSError(errno.EADDRINUSE, "the file there is no socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                Path(path).unlink()
