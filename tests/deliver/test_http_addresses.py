"""Blocked addresses, as host names and in URLs, in all notations."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from pixelfast.config import HttpDestination
from pixelfast.deliver.destinations.http import http_sender
from pixelfast.deliver.http.guard import blocked_reason
from pixelfast.deliver.http.sender import HttpSender, Timeouts
from pixelfast.deliver.outcomes import Accepted, Held, Outcome, Retry
from tests.deliver.running import run
from tests.deliver.senders import LIMITS, send, using
from tests.fake_destination import FakeDestination

METADATA = [
    "169.254.169.254",
    "169.254.0.1",
    "169.254.255.255",
    "fe80::1",
    "fe80::1%lo",
    "febf::1",
    "fd00:ec2::254",
    "::ffff:169.254.169.254",
    "64:ff9b::169.254.169.254",
    "2002:a9fe:a9fe::1",
    # Outside of the link-local ranges.
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "fd00:ec2::23",
    "fd20:ce::254",
    "fd00:c1::a9fe:a9fe",
    "fd00:42::42",
    "fd00:a9fe:a9fe::1",
    "fd00:100::100:200",
    "fd20:ce::254%1",
    # Addresses that embed one.
    "::ffff:100.100.100.200",
    "::ffff:169.254.169.254%lo",
    "::169.254.169.254",
    "::ffff:0:169.254.169.254",
    "64:ff9b::100.100.100.200",
    "64:ff9b:1::169.254.169.254",
    "64:ff9b:1:a9fe:a9:fe00::",
    "64:ff9b:1:12a9:fe:a9fe::",
    "64:ff9b:1:1234:a9:fea9:fe00:0",
    "2002:a83f:8110::",
    "2001:0:a9fe:a9fe::1",  # Teredo: the server's address
    "2001:0:c000:204:0:0:5601:5601",  # and the client's, its bits inverted
    "2001:db8::5efe:169.254.169.254",
    "2001:db8::200:5efe:168.63.129.16",
]
PRIVATE = [
    "127.0.0.1",
    "127.1.2.3",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fc00::1",
    "fd00:ec2::253",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::10.0.0.1",
    "64:ff9b::10.0.0.1",
    "2606:4700::5efe:10.0.0.1",
]
PUBLIC = [
    "93.184.215.14",
    "169.253.1.1",
    "169.255.1.1",
    "168.63.129.17",
    "2606:4700::1",
    "::ffff:93.184.215.14",
    "64:ff9b::93.184.215.14",
    "2606:4700::5efe:93.184.215.14",
]


@pytest.mark.parametrize("address", METADATA)
def test_link_local_and_metadata_addresses_are_always_blocked(address: str) -> None:
    for block_private in (False, True):
        assert "link-local or metadata" in blocked_reason(address, block_private)


@pytest.mark.parametrize("address", PRIVATE)
def test_private_and_reserved_addresses_are_blocked_if_the_setting_says_so(address: str) -> None:
    assert "" == blocked_reason(address, block_private=False)
    assert "block_private" in blocked_reason(address, block_private=True)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address: str) -> None:
    for block_private in (False, True):
        assert "" == blocked_reason(address, block_private)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets a test set the addresses of all names; without any, names do not exist."""

    def resolve_to(*addresses: str) -> None:
        async def resolve(_: object, host: str, port: int, family: object = 0) -> list[Any]:  # noqa: ARG001
            if not addresses:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            kinds = {True: socket.AF_INET6, False: socket.AF_INET}
            return [
                {
                    "hostname": host,
                    "host": each,
                    "port": port,
                    "family": kinds[":" in each],
                    "proto": 0,
                    "flags": socket.AI_NUMERICHOST,
                }
                for each in addresses
            ]

        monkeypatch.setattr(aiohttp.ThreadedResolver, "resolve", resolve)

    return resolve_to


async def sent_to(url: str, block_private: bool = False) -> Outcome:
    timeouts = Timeouts(2.0, 2.0)
    sender = HttpSender(url, "ndjson", LIMITS, timeouts=timeouts, block_private=block_private)
    async with using(sender):
        return await send(sender, 1)


def assert_held(outcome: Outcome, *words: str) -> None:
    assert isinstance(outcome, Held), outcome
    for word in (*words, "blocked address"):
        assert word in outcome.reason
    assert "s3cret" not in outcome.reason


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "[::ffff:169.254.169.254]",
        "[::ffff:a9fe:a9fe]",
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_address_in_the_url_is_blocked(host: str, scheme: str) -> None:
    outcome = run(sent_to(f"{scheme}://{host}/latest?token=s3cret"))
    assert_held(outcome, "link-local or metadata")


@pytest.mark.parametrize(
    "host",
    [
        "2852039166",
        "0xa9fea9fe",
        "0xA9FEA9FE",
        "169.254.43518",
        "169.16689662",
        "0251.0376.0251.0376",
        "0xa9.0xfe.0xa9.0xfe",
        "169.254.169.254.",
        "1684301000",  # 100.100.100.200
        "100.100.25800",
        "0xa83f8110",  # 168.63.129.16
        "[::a9fe:a9fe]",
        "[64:ff9b::a9fe:a9fe]",
        "[fd20:ce::254]",
    ],
)
def test_other_notations_of_an_address_are_blocked(host: str) -> None:
    outcome = run(sent_to(f"http://{host}/?token=s3cret"))
    assert isinstance(outcome, Held), outcome
    assert "s3cret" not in outcome.reason


def test_a_name_with_a_blocked_address_is_blocked_and_the_reason_has_both(
    names: Callable[..., None],
) -> None:
    names("169.254.169.254")
    outcome = run(sent_to("http://hook.example.com/?token=s3cret"))
    assert_held(outcome, "hook.example.com", "169.254.169.254")


def test_addresses_of_a_name_that_are_not_blocked_are_used(names: Callable[..., None]) -> None:
    async def main() -> None:
        async with FakeDestination() as destination:
            url = f"http://hook.example.com:{destination.port}/"
            assert Accepted() == await sent_to(url)

    names("169.254.169.254", "fe80::1", "127.0.0.1")
    run(main())


@pytest.mark.parametrize("host", ["127.0.0.1", "hook.example.com"])
def test_a_blocked_private_address_is_never_connected_to(
    host: str, names: Callable[..., None]
) -> None:
    async def main() -> None:
        async with FakeDestination() as destination:
            url = f"http://{host}:{destination.port}/"
            assert_held(await sent_to(url, block_private=True), host, "127.0.0.1", "block_private")
            assert 0 == destination.connections
            assert Accepted() == await sent_to(url)

    names("127.0.0.1")
    run(main())


def test_a_name_that_does_not_resolve_is_retried(names: Callable[..., None]) -> None:
    names()
    outcome = run(sent_to("http://hook.example.com/?token=s3cret"))
    assert isinstance(outcome, Retry)
    assert "hook.example.com:80: Name or service not known" == outcome.reason


def test_a_name_is_resolved_again_for_a_retry(names: Callable[..., None]) -> None:
    """A name that was blocked or did not exist is resolved again."""

    async def main() -> None:
        async with FakeDestination() as destination:
            url = f"http://hook.example.com:{destination.port}/"
            async with using(HttpSender(url, "ndjson", LIMITS)) as sender:
                names("169.254.169.254")
                assert isinstance(await send(sender, 1), Held)
                names()
                assert isinstance(await send(sender, 1), Retry)
                names("127.0.0.1")
                assert Accepted() == await send(sender, 1)

    run(main())


def test_the_setting_block_private_is_applied() -> None:
    async def main() -> None:
        async with FakeDestination() as destination:
            settings = HttpDestination(name="hook", url=destination.url, block_private=True)
            async with using(http_sender(settings)) as sender:
                assert_held(await send(sender, 1), "block_private")

    run(main())


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with FakeDestination() as proxy, FakeDestination() as destination:
            for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
                monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
            assert Accepted() == await sent_to(destination.url)
            assert (0, 1) == (proxy.connections, destination.connections)

    run(main())
