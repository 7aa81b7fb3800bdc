"""TLS of HTTP destinations: a private CA, mutual TLS, and what went wrong with certificates."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

__all__ = ["Tls", "TlsFileError", "describe_tls", "is_about_certificates", "new_context"]

# Alerts (RFC 8446 section 6.2) by which the other side rejects our certificate, or wants one.
_ALERTS = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED", "HANDSHAKE_FAILURE")


class TlsFileError(Exception):
    """A file of certificates that can't be used."""


@dataclass(frozen=True, slots=True)
class Tls:
    """Paths of PEM files, each "" where there is none.

    `ca` takes the place of the system's authorities. `cert` is what we show, its chain behind it;
    `key` may stand in the same file.
    """

    ca: str = ""
    cert: str = ""
    key: str = ""

    def read_into(self, context: ssl.SSLContext) -> None:
        """Read the files into a context; again, where they may have been renewed. Blocks.

        Raises:
            TlsFileError: naming the setting and the file.
        """
        try:
            if self.ca:
                context.load_verify_locations(self.ca)
            else:
                context.load_default_certs()
        except OSError as error:
            raise TlsFileError(f"tls_ca {self.ca}: {_why(error)}") from None
        if not self.cert:
            return
        try:
            # A key that wants a passphrase is an error, not a question on a terminal.
            context.load_cert_chain(self.cert, self.key or None, password="")
        except OSError as error:
            files = f"tls_cert {self.cert}" + (f", tls_key {self.key}" if self.key else "")
            raise TlsFileError(f"{files}: {_why(error)}") from None


def new_context() -> ssl.SSLContext:
    """A context that verifies certificates and host names; it trusts nobody yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # which the peer could ask for without end
    return context


def is_about_certificates(error: BaseException | None) -> bool:
    """Whether a handshake failed for a certificate, theirs or ours, and not for the network."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return True
    return isinstance(error, ssl.SSLError) and any(each in (error.reason or "") for each in _ALERTS)


def describe_tls(error: ssl.SSLError) -> str:
    """What went wrong, in OpenSSL's words: "certificate has expired"."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    return f"TLS: {(error.reason or 'handshake failed').lower().replace('_', ' ')}"


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "no PEM file").lower().replace("_", " ")
    return error.strerror or str(error)
