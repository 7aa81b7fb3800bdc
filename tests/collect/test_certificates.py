"""Loading the certificate of TLS addresses, and the errors of unusable files."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from pixelfast.collect.certificates import load_certificate, warnings_about
from pixelfast.config import ServerTls
from pixelfast.errors import ConfigError
from tests.tls import TlsFiles, issue

DAY_S = 86400.0


def settings(cert: Path | str, key: Path | str = "") -> ServerTls:
    return ServerTls(listen=("127.0.0.1:0",), cert=str(cert), key=str(key))


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    return issue(tmp_path)


def mistake(tls: ServerTls) -> str:
    with pytest.raises(ConfigError) as caught:
        load_certificate(tls)
    return str(caught.value)


@pytest.mark.parametrize(
    "until", [datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC), datetime(2050, 1, 1, tzinfo=UTC)]
)
@pytest.mark.parametrize("kind", ["rsa", "ec"])
def test_the_validity_is_that_of_the_certificate(
    tmp_path: Path, until: datetime, kind: str
) -> None:
    """RFC 5280 uses another format for years from 2050 on."""
    key = (
        ec.generate_private_key(ec.SECP256R1())
        if kind == "ec"
        else rsa.generate_private_key(65537, 2048)
    )
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x" * 60)])
    begin = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(until)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "both.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    loaded = load_certificate(settings(path))  # key and certificate are in one file
    assert (begin.timestamp(), until.timestamp()) == (loaded.valid_from_s, loaded.expires_s)


def test_unusable_files_are_named(tmp_path: Path, files: TlsFiles) -> None:
    other = issue(_folder(tmp_path / "other"))
    no_pem = tmp_path / "no.pem"
    no_pem.write_bytes(b"nothing of the kind")
    locked = tmp_path / "locked.pem"
    locked.write_bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    absent = tmp_path / "absent.pem"
    unreadable = "cannot read the file: No such file or directory"
    assert [
        f'server.tls.cert = "{absent}": {unreadable}',
        f'server.tls.key = "{absent}": {unreadable}',
        f'server.tls.cert = "{no_pem}": expected a PEM file with a certificate'
        " followed by its chain",
        f'server.tls.key = "{no_pem}": expected a PEM file with a private key',
        f'server.tls.cert = "{files.cert}": expected a PEM file with a private key',
        f'server.tls.key = "{locked}": expected a private key without a passphrase',
        f'server.tls.key = "{other.key}": expected the private key of the certificate in'
        " server.tls.cert",
        f'server.tls.cert = "{tmp_path}": cannot read the file: Is a directory',
    ] == [
        mistake(settings(absent, files.key)),
        mistake(settings(files.cert, absent)),
        mistake(settings(no_pem, files.key)),
        mistake(settings(files.cert, no_pem)),
        mistake(settings(files.cert)),
        mistake(settings(files.cert, locked)),
        mistake(settings(files.cert, other.key)),
        mistake(settings(tmp_path, files.key)),
    ]


def test_damaged_certificates_raise_configerror(files: TlsFiles) -> None:
    whole = files.cert.read_bytes()
    rng = random.Random(12)
    for _ in range(200):
        damaged = bytearray(whole)
        for _ in range(rng.randrange(1, 6)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        files.cert.write_bytes(damaged)
        try:
            load_certificate(settings(files.cert, files.key))
        except ConfigError as error:
            assert str(error).startswith("server.tls.")  # noqa: PT017 - not each damage matters


def test_a_certificate_that_expires_within_14_days_causes_a_warning(tmp_path: Path) -> None:
    files = issue(tmp_path, not_after=datetime(2027, 3, 31, 12, 0, tzinfo=UTC))
    tls = settings(files.cert, files.key)
    loaded = load_certificate(tls)
    subject = f'server.tls.cert: the certificate in "{files.cert}"'
    assert [
        [],
        [f"{subject} expires at 2027-03-31 12:00:00 UTC, in 14 days"],
        [f"{subject} expires at 2027-03-31 12:00:00 UTC, in 1 day"],
        [f"{subject} expired at 2027-03-31 12:00:00 UTC"],
    ] == [
        warnings_about(tls, loaded, loaded.expires_s - left_s)
        for left_s in (14 * DAY_S, 14 * DAY_S - 1, DAY_S, 0.0)
    ]
    begin = datetime.fromtimestamp(loaded.valid_from_s, UTC) - timedelta(seconds=1)
    assert "is not valid before" in warnings_about(tls, loaded, begin.timestamp())[0]


@pytest.mark.parametrize(("mode", "is_open"), [(0o600, False), (0o640, False), (0o644, True)])
def test_a_key_that_every_user_can_read_causes_a_warning(
    files: TlsFiles, mode: int, is_open: bool
) -> None:
    files.key.chmod(mode)
    tls = settings(files.cert, files.key)
    loaded = load_certificate(tls)
    warnings = warnings_about(tls, loaded, loaded.valid_from_s)
    expected = (
        f'server.tls.key: every user of this machine can read the private key in "{files.key}"'
        " (mode 0644); expected 0600 or 0640"
    )
    assert ([expected] if is_open else []) == warnings


def _folder(path: Path) -> Path:
    path.mkdir()
    return path
