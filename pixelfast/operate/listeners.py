"""The listening sockets of a server: passed by systemd, handed over by an upgrade, or new."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import NamedTuple

from pixelfast.config import Config
from pixelfast.errors import ConfigError
from pixelfast.operate.handover import SocketGroup
from pixelfast.operate.sockets import listen, share_handed, share_out

__all__ = ["Listening", "open_listening"]


class Listening(NamedTuple):
    """The listening sockets, by worker and by address.

    Attributes:
        by_worker: the sockets of each worker.
        groups: the same sockets, by address.
        addresses: the addresses, in which port 0 is replaced by the real port.
        tls_addresses: the same for TLS.
        abandoned: sockets that were handed over, but whose addresses are no longer in the settings.
    """

    by_worker: list[list[socket.socket]]
    groups: list[SocketGroup]
    addresses: list[str]
    tls_addresses: list[str]
    abandoned: list[socket.socket]


def open_listening(
    config: Config,
    workers: int,
    passed: tuple[list[socket.socket], list[socket.socket]],
    handed: Sequence[tuple[SocketGroup, list[socket.socket]]] = (),
) -> Listening:
    """Use the sockets that exist already, and open the others.

    Args:
        passed: sockets that systemd passed, plain and TLS.
        handed: sockets that the replaced program handed over.

    Raises:
        ConfigError: an address cannot be opened. Existing sockets stay open.
    """
    tls = config.server.tls
    if tls is None and passed[1]:
        what = 'required, because systemd passed sockets with the name "tls"'
        raise ConfigError("server.tls", None, what)
    by_worker: list[list[socket.socket]] = [[] for _ in range(workers)]
    groups: list[SocketGroup] = []
    names: tuple[list[str], list[str]] = ([], [])
    kinds = [("server.listen", config.server.listen, False)]
    kinds += [("server.tls.listen", tls.listen, True)] if tls else []
    unix_mode = int(config.server.unix_mode, 8)
    for setting, addresses, is_tls in kinds:
        known = {group.address: sockets for group, sockets in handed if group.is_tls == is_tls}
        from_systemd = passed[is_tls] or known.get("", [])
        for address in [""] if from_systemd else addresses:
            if from_systemd:
                own, found = share_out(from_systemd, workers)
            elif address in known:
                own, found = _go_on(setting, address, known[address], workers)
            else:
                own, found = listen((address,), workers, unix_mode, setting=setting)
            for mine, more in zip(by_worker, own, strict=True):
                mine += more
            distinct = {each.fileno(): None for sockets in own for each in sockets}
            groups.append(SocketGroup(address, is_tls, list(distinct)))
            names[is_tls].extend(found)
    used = {fd for group in groups for fd in group.fds}
    abandoned = [each for _, own in handed for each in own if each.fileno() not in used]
    return Listening(by_worker, groups, *names, abandoned)


def _go_on(
    setting: str, address: str, handed: list[socket.socket], workers: int
) -> tuple[list[list[socket.socket]], list[str]]:
    try:
        own = share_handed(handed, workers)
    except OSError as error:
        why = error.strerror or str(error)
        raise ConfigError(setting, None, f'cannot listen on "{address}": {why}') from None
    return own, share_out(handed[:1], 1)[1]
