"""TLS of HTTP destinations: authorities, client certificates, and outcomes of failures."""

from __future__ import annotations

import socket
import ssl
import warnings
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp.client_proto import ResponseHandler

from pixelfast.config import HttpDestination
from pixelfast.deliver.destinations.http import http_sender
from pixelfast.deliver.http.sender import HttpSender
from pixelfast.deliver.outcomes import Accepted, Held, Outcome, Retry
from pixelfast.tls import new_context
from tests.deliver.certificates import Certificates, TlsServer, tls_server
from tests.deliver.running import run
from tests.deliver.senders import send, using


@pytest.fixture
def files(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


def sender_to(port: int, host: str = "127.0.0.1", **settings: Any) -> HttpSender:
    url = f"https://{host}:{port}/hook?token=s3cret"
    return http_sender(HttpDestination(name="hook", url=url, **settings))


def outcome_with(files: Certificates, *, host: str = "127.0.0.1", **more: Any) -> Outcome:
    """Return the outcome of a request to a server with a certificate of the test's authority."""
    shown = more.pop("shown", None) or files.server()
    server_options = {
        name: more.pop(name) for name in ("clients_of", "max_version") if name in more
    }

    async def main(port: int) -> Outcome:
        async with using(sender_to(port, host, **more)) as sender:
            return await send(sender, 1)

    with tls_server(shown, **server_options) as server:
        outcome = run(main(server.port))
        assert (1 if outcome == Accepted() else 0) == server.requests
    return outcome


def test_a_configured_private_authority_is_trusted(files: Certificates) -> None:
    assert Accepted() == outcome_with(files, tls_ca=files.ca)


def assert_held(outcome: Outcome, *words: str) -> None:
    assert isinstance(outcome, Held), outcome
    for word in words:
        assert word in outcome.reason
    assert "s3cret" not in outcome.reason
    assert not outcome.is_final


def test_an_unknown_authority_holds_the_destination(files: Certificates) -> None:
    assert_held(outcome_with(files), "127.0.0.1", "unable to get local issuer certificate")


def test_a_configured_authority_replaces_all_others(files: Certificates, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    assert_held(outcome_with(files, tls_ca=str(other)), "certificate is not accepted")


def test_an_expired_certificate_holds_the_destination(files: Certificates) -> None:
    expired = files.server(is_expired=True)
    outcome = outcome_with(files, shown=expired, tls_ca=files.ca)
    assert_held(outcome, "certificate has expired", "127.0.0.1")


def test_a_certificate_of_another_host_holds_the_destination(files: Certificates) -> None:
    outcome = outcome_with(files, shown=files.server("example.com"), tls_ca=files.ca)
    assert_held(outcome, "mismatch")


def test_a_renewed_certificate_is_used_without_a_restart(files: Certificates) -> None:
    async def main(server: TlsServer) -> None:
        async with using(sender_to(server.port, tls_ca=files.ca)) as sender:
            assert_held(await send(sender, 1), "expired")
            files.server().configure_cert(server.context)
            assert Accepted() == await send(sender, 1)

    with tls_server(files.server(is_expired=True)) as server:
        run(main(server))


@pytest.mark.parametrize("max_version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_server_that_requests_a_client_certificate_gets_it(
    files: Certificates, max_version: ssl.TLSVersion
) -> None:
    options: dict[str, Any]
    options = {"clients_of": files.authority, "max_version": max_version, "tls_ca": files.ca}
    assert Accepted() == outcome_with(files, **options, **files.client_files())


@pytest.mark.parametrize("max_version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("is_shown", [False, True])
def test_a_server_that_rejects_the_client_certificate_holds_the_destination(
    files: Certificates, max_version: ssl.TLSVersion, is_shown: bool
) -> None:
    """Without a client certificate, and with one of an unknown authority.

    With TLS 1.3, the alert arrives after the handshake. Over loopback, that may be before the
    request is written. Then the connection breaks off, and only the next attempt gets the alert.
    """
    shown = files.client_files(trustme.CA()) if is_shown else {}

    async def main(port: int) -> None:
        async with using(sender_to(port, tls_ca=files.ca, **shown)) as sender:
            outcome = await send(sender, 1)
            for _ in range(100):
                if isinstance(outcome, Held):
                    break
                assert isinstance(outcome, Retry)
                assert "s3cret" not in outcome.reason
                outcome = await send(sender, 1)
            assert_held(outcome, "TLS: ")

    with tls_server(files.server(), clients_of=files.authority, max_version=max_version) as server:
        run(main(server.port))
        assert 0 == server.requests


def test_certificate_and_key_may_be_in_one_file(files: Certificates) -> None:
    paths = files.client_files()
    both = Path(paths["tls_cert"])
    both.write_bytes(both.read_bytes() + Path(paths["tls_key"]).read_bytes())
    options: dict[str, Any]
    options = {"clients_of": files.authority, "tls_ca": files.ca, "tls_cert": str(both)}
    assert Accepted() == outcome_with(files, **options)


@pytest.mark.parametrize("setting", ["tls_ca", "tls_cert"])
@pytest.mark.parametrize("content", [None, b"", b"plain text"])
def test_a_missing_or_invalid_file_is_named(
    files: Certificates, setting: str, content: bytes | None
) -> None:
    path = files.folder / "wrong.pem"
    if content is not None:
        path.write_bytes(content)
    settings = {"tls_ca": files.ca, setting: str(path)}
    assert_held(outcome_with(files, **settings), f"{setting} {path}")


def test_an_encrypted_key_is_an_error_and_not_a_prompt(files: Certificates) -> None:
    """OpenSSL would ask for the passphrase on a terminal, and wait."""
    from cryptography.hazmat.primitives import serialization as pem

    paths = files.client_files()
    key = pem.load_pem_private_key(Path(paths["tls_key"]).read_bytes(), None)
    Path(paths["tls_key"]).write_bytes(
        key.private_bytes(
            pem.Encoding.PEM,
            pem.PrivateFormat.TraditionalOpenSSL,
            pem.BestAvailableEncryption(b"passphrase"),
        )
    )
    assert_held(outcome_with(files, tls_ca=files.ca, **paths), "tls_key")


def test_a_file_that_is_created_later_is_used_without_a_restart(files: Certificates) -> None:
    late = files.folder / "late.pem"

    async def main(port: int) -> None:
        async with using(sender_to(port, tls_ca=str(late))) as sender:
            assert_held(await send(sender, 1), "tls_ca", "No such file")
            files.authority.cert_pem.write_to_path(str(late))
            assert Accepted() == await send(sender, 1)

    with tls_server(files.server()) as server:
        run(main(server.port))


def test_a_replaced_authority_is_used_without_a_restart(files: Certificates) -> None:
    replaced = files.folder / "replaced.pem"
    trustme.CA().cert_pem.write_to_path(str(replaced))

    async def main(port: int) -> None:
        async with using(sender_to(port, tls_ca=str(replaced))) as sender:
            assert_held(await send(sender, 1), "certificate is not accepted")
            files.authority.cert_pem.write_to_path(str(replaced))
            assert Accepted() == await send(sender, 1)

    with tls_server(files.server()) as server:
        run(main(server.port))


def test_tls_before_1_2_is_not_used(files: Certificates) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        outcome = outcome_with(files, max_version=ssl.TLSVersion.TLSv1_1, tls_ca=files.ca)
    assert isinstance(outcome, Retry | Held)
    assert "127.0.0.1" in outcome.reason


def send_bytes(connection: ssl.SSLSocket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.send(b"x")  # a separate record


def send_nothing_more(connection: ssl.SSLSocket) -> None:
    while connection.recv(4096):
        pass


def test_records_of_one_byte_end_a_response_whose_status_is_known(files: Certificates) -> None:
    """They cost 20 times their content, which is all that the limit of a response counts."""
    read: list[int] = []
    receive = ResponseHandler.data_received

    def counted(handler: ResponseHandler, data: bytes) -> None:
        read.append(len(data))
        receive(handler, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ResponseHandler, "data_received", counted)
        shown = files.server()
        with tls_server(shown, flood=send_bytes) as server:
            assert Accepted() == run(outcome_at(server.port, files))
    assert sum(read) < 20_000


def test_endless_session_tickets_are_not_a_response(files: Certificates) -> None:
    """They are not passed to the protocol, so only the socket knows their size."""
    with tls_server(files.server(), flood=send_nothing_more, tickets=3000) as server:
        outcome = run(outcome_at(server.port, files))
    assert Retry("too many TLS records without content") == outcome


def test_a_handshake_that_hangs_ends_with_the_timeout_of_a_connection(files: Certificates) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as deaf:
        outcome = run(outcome_at(deaf.getsockname()[1], files, connect_timeout_s=0.3))
    assert Retry("no connection within 0.3 s") == outcome


def test_renegotiation_is_not_offered() -> None:
    assert new_context().options & ssl.OP_NO_RENEGOTIATION


async def outcome_at(port: int, files: Certificates, **settings: Any) -> Outcome:
    async with using(sender_to(port, tls_ca=files.ca, **settings)) as sender:
        return await send(sender, 1)
