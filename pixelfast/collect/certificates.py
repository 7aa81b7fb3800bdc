"""Load the certificate of the TLS addresses, and find problems with it."""

from __future__ import annotations

import re
import ssl
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from pixelfast.config import ServerTls
from pixelfast.errors import ConfigError

__all__ = ["Certificate", "load_certificate", "warnings_about"]

_EXPIRES_SOON_S = 14 * 86400.0
_OTHERS_MAY_READ = 0o004
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
# For TLS 1.2: Mozilla's "intermediate" configuration without the ciphers that need DH parameters.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
# DER (ITU-T X.690)
_SEQUENCE, _UTC_TIME, _EXPLICIT_0 = 0x30, 0x17, 0xA0


class Certificate(NamedTuple):
    """Hold the TLS context of new connections, and its validity in seconds since 1970."""

    context: ssl.SSLContext
    valid_from_s: float
    expires_s: float


def load_certificate(tls: ServerTls) -> Certificate:
    """Load the certificate and the private key that the settings name. Blocks on file reads.

    Raises:
        ConfigError: a file cannot be read, is invalid, or the key does not match the certificate.
    """
    pem = _read("server.tls.cert", tls.cert)
    match = _PEM.search(pem)
    if match is None:
        what = "expected a PEM file with a certificate followed by its chain"
        raise ConfigError("server.tls.cert", f'"{tls.cert}"', what)
    key_path = tls.key or tls.cert
    key_name = "server.tls.key" if tls.key else "server.tls.cert"
    key = _read(key_name, key_path)
    if b"ENCRYPTED" in key:
        raise ConfigError(key_name, f'"{key_path}"', "expected a private key without a passphrase")
    if b"PRIVATE KEY-----" not in key:
        raise ConfigError(key_name, f'"{key_path}"', "expected a PEM file with a private key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(tls.cert, key_path, password="")
        valid_from_s, expires_s = _validity(ssl.PEM_cert_to_DER_cert(match[0].decode()))
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            what = "expected the private key of the certificate in server.tls.cert"
            raise ConfigError(key_name, f'"{key_path}"', what) from None
        why = (error.reason or "not a PEM file").lower().replace("_", " ")
        raise ConfigError(
            "server.tls.cert", f'"{tls.cert}"', f"cannot use the certificate: {why}"
        ) from None
    except (ValueError, IndexError):
        what = "expected a valid X.509 certificate (RFC 5280)"
        raise ConfigError("server.tls.cert", f'"{tls.cert}"', what) from None
    return Certificate(context, valid_from_s, expires_s)


def warnings_about(tls: ServerTls, certificate: Certificate, now_s: float) -> list[str]:
    """Return warnings for the operator about a certificate and its files.

    Args:
        tls: the settings that name the files.
        certificate: the loaded certificate.
        now_s: the time in seconds since 1970.

    >>> tls = ServerTls(listen=("0.0.0.0:8443",), cert="/dev/null")
    >>> warnings_about(tls, Certificate(ssl.create_default_context(), 0.0, 86400.0), 0.0)
    ['server.tls.cert: the certificate in "/dev/null" expires at 1970-01-02 00:00:00 UTC, in 1 day']
    """
    found = []
    left_s = certificate.expires_s - now_s
    subject = f'server.tls.cert: the certificate in "{tls.cert}"'
    if left_s <= 0:
        found.append(f"{subject} expired at {_utc(certificate.expires_s)}")
    elif left_s < _EXPIRES_SOON_S:
        days = round(left_s / 86400)
        when = f"{_utc(certificate.expires_s)}, in {days} day{'s' * (days != 1)}"
        found.append(f"{subject} expires at {when}")
    if certificate.valid_from_s > now_s:
        found.append(f"{subject} is not valid before {_utc(certificate.valid_from_s)}")
    name, path = ("server.tls.key", tls.key) if tls.key else ("server.tls.cert", tls.cert)
    mode = Path(path).stat().st_mode
    if mode & _OTHERS_MAY_READ and Path(path).is_file():
        found.append(
            f'{name}: every user of this machine can read the private key in "{path}" (mode'
            f" {mode & 0o7777:04o}); expected 0600 or 0640"
        )
    return found


def _read(name: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: the path contains NUL
        why = getattr(error, "strerror", None) or str(error)
        raise ConfigError(name, f'"{path}"', f"cannot read the file: {why}") from None


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def _validity(der: bytes) -> tuple[float, float]:
    """Return notBefore and notAfter of a certificate (RFC 5280 section 4.1).

    The standard library can only do this for the certificate of a verified peer.
    """
    start, _, _ = _element(der, 0)  # Certificate
    start, _, _ = _element(der, start)  # TBSCertificate
    _, end, tag = _element(der, start)
    if tag == _EXPLICIT_0:  # a version precedes the serial number
        _, end, _ = _element(der, end)
    for _ in ("signature", "issuer"):
        _, end, _ = _element(der, end)
    start, _, tag = _element(der, end)
    if tag != _SEQUENCE:
        raise ValueError("the certificate has no Validity")
    times = []
    for _ in ("notBefore", "notAfter"):
        begin, start, tag = _element(der, start)
        string = der[begin:start].decode("ascii")
        if tag == _UTC_TIME:  # the year has two digits (RFC 5280 section 4.1.2.5.1)
            string = ("19" if int(string[:2]) >= 50 else "20") + string
        times.append(datetime.strptime(string, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp())
    return times[0], times[1]


def _element(der: bytes, start: int) -> tuple[int, int, int]:
    """Return the start and the end of an element's contents, and its tag."""
    tag, size = der[start], der[start + 1]
    start += 2
    if size >= 0x80:
        count = size & 0x7F
        size = int.from_bytes(der[start : start + count])
        start += count
    if start + size > len(der):
        raise ValueError("the certificate is truncated")
    return start, start + size, tag
