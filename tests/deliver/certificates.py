"""Certificates for tests, and TLS servers that use them."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

import trustme

__all__ = ["Certificates", "TlsServer", "tls_server"]

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


class Certificates:
    """A certificate authority, and files with the certificates that it issues."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.folder = folder
        self.ca = str(folder / "ca.pem")
        self.authority.cert_pem.write_to_path(self.ca)

    def server(self, *names: str, is_expired: bool = False) -> trustme.LeafCert:
        until = datetime.now(UTC) - timedelta(days=1) if is_expired else None
        return self.authority.issue_cert(*(names or ("127.0.0.1",)), not_after=until)

    def client_files(self, authority: trustme.CA | None = None) -> dict[str, str]:
        """Return the settings of a client certificate and its key."""
        issued = (authority or self.authority).issue_cert("collector@example.com")
        cert, key = str(self.folder / "client.pem"), str(self.folder / "client.key")
        issued.private_key_pem.write_to_path(key)
        Path(cert).write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
        return {"tls_cert": cert, "tls_key": key}


class TlsServer:
    """A server in a thread, whose OpenSSL handshake sends an alert when it fails.

    Servers of event loops only drop the connection. `flood`, if given, replaces the response and
    runs until the client closes the connection.
    """

    def __init__(
        self, context: ssl.SSLContext, flood: Callable[[ssl.SSLSocket], None] | None = None
    ) -> None:
        self.context = context
        self._flood = flood
        self.requests = 0
        self._place = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._place.getsockname()[1])
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._place.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._place.close()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._place.accept()
            except OSError:
                return
            plain.settimeout(5.0)
            with plain:
                try:
                    self._respond(plain)
                except OSError:
                    with contextlib.suppress(OSError):
                        plain.shutdown(
                            socket.SHUT_WR
                        )  # send the alert before the close, not a reset
                        while plain.recv(4096):
                            pass

    def _respond(self, plain: socket.socket) -> None:
        with self.context.wrap_socket(plain.dup(), server_side=True) as wrapped:
            request = b""
            while b"\r\n\r\n" not in request:
                if not (more := wrapped.recv(65536)):
                    return
                request += more
            self.requests += 1
            if self._flood is not None:
                self._flood(wrapped)
            wrapped.sendall(_ANSWER)


def tls_server(
    shown: trustme.LeafCert,
    *,
    clients_of: trustme.CA | None = None,
    max_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    flood: Callable[[ssl.SSLSocket], None] | None = None,
    tickets: int = 2,
) -> TlsServer:
    """A server with this certificate; `clients_of` is the authority of its clients."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = max_version
    context.num_tickets = tickets
    shown.configure_cert(context)
    if clients_of is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        clients_of.configure_trust(context)
    return TlsServer(context, flood)
