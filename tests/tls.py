"""Certificates, and TLS clients in memory or on a blocking socket."""

from __future__ import annotations

import contextlib
import functools
import socket
import ssl
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Self

import trustme

__all__ = ["SocketPeer", "TlsFiles", "TlsPeer", "client_context", "issue", "server_context"]

_authority = functools.cache(trustme.CA)


class TlsFiles:
    """PEM files of a certificate and its key, for `[server.tls]`."""

    def __init__(self, folder: Path, issued: trustme.LeafCert) -> None:
        self.cert, self.key = folder / "cert.pem", folder / "key.pem"
        self.cert.write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
        self.key.write_bytes(issued.private_key_pem.bytes())
        self.key.chmod(0o600)


def issue(folder: Path, *, not_after: datetime | None = None) -> TlsFiles:
    """Issue a certificate for the loopback; `client_context` trusts its authority."""
    return TlsFiles(folder, _authority().issue_cert("127.0.0.1", "localhost", not_after=not_after))


def client_context(**versions: ssl.TLSVersion) -> ssl.SSLContext:
    """Return the context of a client that verifies the server; set attributes such as
    `minimum_version` from `versions`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _authority().configure_trust(context)
    for name, version in versions.items():
        setattr(context, name, version)
    return context


@functools.cache
def server_context() -> ssl.SSLContext:
    """Return the context that pixelfast creates from certificate files."""
    from pixelfast.collect.certificates import load_certificate
    from pixelfast.config import ServerTls

    with tempfile.TemporaryDirectory() as folder:
        files = issue(Path(folder))
        settings = ServerTls(listen=("127.0.0.1:0",), cert=str(files.cert), key=str(files.key))
        return load_certificate(settings).context


@functools.cache
def _context() -> ssl.SSLContext:
    return client_context()


class TlsPeer:
    """A client in memory that sends and receives TLS records as bytes."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = (context or _context()).wrap_bio(
            self._incoming, self._outgoing, server_hostname="127.0.0.1"
        )
        self.has_peer_ended = False  # by close_notify

    def shake_hands(self, received: bytes = b"") -> bytes:
        """Process a part of the handshake and return the next part."""
        self._incoming.write(received)
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self._outgoing.read()

    def seal(self, data: bytes) -> bytes:
        if data:
            self.tls.write(data)
        return self._outgoing.read()

    def open(self, records: bytes) -> bytes:
        """Decrypt all complete records."""
        self._incoming.write(records)
        opened = b""
        try:
            while part := self.tls.read(2**14):
                opened += part
            self.has_peer_ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:  # both sides have ended
            self.has_peer_ended = True
        return opened

    def end(self) -> bytes:
        """Send close_notify; data from the other side can still be read."""
        with contextlib.suppress(ssl.SSLError):
            self.tls.unwrap()
        return self._outgoing.read()


class SocketPeer:
    """A client on a blocking socket, controlled record by record."""

    def __init__(self, port: int, context: ssl.SSLContext | None = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.peer = TlsPeer(context)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def shake_hands(self) -> None:
        data = self.peer.shake_hands()
        while True:
            if data:
                self.socket.sendall(data)
            if self.peer.tls.version() and self.peer.tls.cipher() and self._is_done():
                return
            received = self.socket.recv(65536)
            if not received:
                raise ConnectionResetError("closed during the handshake")
            data = self.peer.shake_hands(received)

    def _is_done(self) -> bool:
        try:
            self.peer.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def send(self, data: bytes, *, piece_bytes: int = 2**20) -> None:
        records = self.peer.seal(data)
        for start in range(0, len(records), piece_bytes):
            self.socket.sendall(records[start : start + piece_bytes])

    def read_all(self) -> bytes:
        """Read until the server closes the connection."""
        opened = b""
        while received := self.socket.recv(65536):
            opened += self.peer.open(received)
        return opened
