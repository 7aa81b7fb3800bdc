"""TLS of destinations and brokers: a private CA, mutual TLS, errors about certificates."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

__all__ = ["Tls", "TlsFileError", "describe_tls", "is_about_certificates", "new_context"]

# Alerts (RFC 8446 section 6.2) with which the peer rejects our certificate or requires one.
_ALERTS = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED", "HANDSHAKE_FAILURE")


class TlsFileError(Exception):
    """A certificate file that cannot be used."""


@dataclass(frozen=True, slots=True)
class Tls:
    """Paths of PEM files, each of which may be "".

    `ca` replaces the system's certificate authorities. `cert` is the client certificate, followed
    by its chain; `key` may be in the same file.
    """

    ca: str = ""
    cert: str = ""
    key: str = ""

    def read_into(self, context: ssl.SSLContext) -> None:
        """Read the files into a context, also after they were renewed. Blocks for the disk.

        Raises:
            TlsFileError: the error, with the setting and the file.
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
            # With a password, an encrypted key is an error instead of a prompt on the terminal.
            context.load_cert_chain(self.cert, self.key or None, password="")
        except OSError as error:
            files = f"tls_cert {self.cert}" + (f", tls_key {self.key}" if self.key else "")
            raise TlsFileError(f"{files}: {_why(error)}") from None


def new_context() -> ssl.SSLContext:
    """Return a context that verifies certificates and host names, without authorities yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # the peer could request it endlessly
    return context


def is_about_certificates(error: BaseException | None) -> bool:
    """Whether a handshake failed because of either side's certificate."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return True
    return isinstance(error, ssl.SSLError) and any(each in (error.reason or "") for each in _ALERTS)


def describe_tls(error: ssl.SSLError) -> str:
    """Return what went wrong, in OpenSSL's words, such as "certificate has expired"."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate is not accepted: {error.verify_message}"
    return f"TLS: {(error.reason or 'handshake failed').lower().replace('_', ' ')}"


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason.lower().replace("_", " ") if error.reason else "not a PEM file"
    return error.strerror or str(error)
