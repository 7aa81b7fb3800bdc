"""The address of a client: the peer's, or the one that trusted proxies report."""

from __future__ import annotations

import pytest

from pixelfast.collect.proxies import TrustedProxies
from pixelfast.config import Source, WriteKey
from tests.collect.wire import TO_READER, TRACK, event_of, feed, http
from tests.fakes import FakeCollector

PROXIES = ["10.0.0.0/8", "127.0.0.1/32", "::1/128", "fd00::/8"]
PROXY = ("10.0.0.1", 40000)


@pytest.mark.parametrize(
    ("network", "address", "is_trusted"),
    [
        ("127.0.0.1/32", "127.0.0.1", True),
        ("127.0.0.1/32", "127.0.0.2", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("10.0.0.0/8", "10.255.255.255", True),
        ("10.0.0.0/8", "11.0.0.0", False),
        ("10.1.2.3/8", "10.9.9.9", True),  # bits outside of the mask do not matter
        ("0.0.0.0/0", "203.0.113.9", True),
        ("0.0.0.0/0", "2001:db8::1", False),
        ("::/0", "2001:db8::1", True),
        ("2001:db8::/32", "2001:db8:ffff::1", True),
        ("2001:db8::/32", "2001:db9::1", False),
        ("2001:db8::/127", "2001:db8::1", True),
        ("2001:db8::/127", "2001:db8::2", False),
        ("10.0.0.0/8", "::ffff:10.1.1.1", True),  # an IPv4 peer of a dual-stack socket
        ("::ffff:10.0.0.0/104", "10.1.1.1", True),
        ("10.0.0.0/8", "::10.1.1.1", False),
        ("10.0.0.0/8", "", False),
        ("10.0.0.0/8", "10.0.0", False),
        ("10.0.0.0/8", "10.0.0.1.2", False),
        ("10.0.0.0/8", "proxy", False),
        ("10.0.0.0/8", "1" * 200, False),
        ("10.0.0.0/8", "\u0661\u0660.0.0.1", False),
    ],
)
def test_an_address_within_a_network_is_trusted(
    network: str, address: str, is_trusted: bool
) -> None:
    assert is_trusted == TrustedProxies([network]).trusts(address)


def test_without_networks_nothing_is_trusted() -> None:
    assert not TrustedProxies().trusts("127.0.0.1")


def test_every_network_of_a_long_list_is_trusted() -> None:
    proxies = TrustedProxies([f"192.0.{number}.0/24" for number in range(200)])
    assert all(proxies.trusts(f"192.0.{number}.7") for number in range(200))
    assert not proxies.trusts("192.0.200.7")


FORWARDED = [
    ("203.0.113.7", "203.0.113.7"),
    ("198.51.100.9, 203.0.113.7", "203.0.113.7"),
    ("198.51.100.9,203.0.113.7,10.1.2.3", "203.0.113.7"),
    ("203.0.113.7 , 10.1.2.3\t,  127.0.0.1 ", "203.0.113.7"),
    ("10.1.2.3, 10.1.2.4", "10.1.2.3"),  # all are trusted, so the left-most counts
    ("203.0.113.7:4711", "203.0.113.7"),
    ("2001:db8::7", "2001:db8::7"),
    ("[2001:db8::7]", "2001:db8::7"),
    ("[2001:db8::7]:4711", "2001:db8::7"),
    ("2001:0DB8:0:0::0007", "2001:db8::7"),
    ("::ffff:203.0.113.7", "203.0.113.7"),
    ("203.0.113.7, ::ffff:10.1.2.3", "203.0.113.7"),
    ("203.0.113.7, fd00::5", "203.0.113.7"),
    # Empty elements are skipped (RFC 9110 section 5.6.1.2).
    ("203.0.113.7,,10.1.2.3", "203.0.113.7"),
    ("203.0.113.7,", "203.0.113.7"),
    ("203.0.113.7, \t ,, , ", "203.0.113.7"),
    (" , ,203.0.113.7, ,10.1.2.3,", "203.0.113.7"),
    (",10.1.2.3,, 10.1.2.4 ,", "10.1.2.3"),
    (",unknown,,10.1.2.3", "10.1.2.3"),
    ("," * 30_000 + "203.0.113.7" + " ," * 30_000, "203.0.113.7"),
    # An invalid element ends the search, because a client may have sent everything to its left.
    ("203.0.113.7, unknown", "10.0.0.1"),
    ("203.0.113.7, unknown, 10.1.2.3", "10.1.2.3"),
    ("_hidden", "10.0.0.1"),
    ("", "10.0.0.1"),
    (",", "10.0.0.1"),
    (",203.0.113.7", "203.0.113.7"),
    ("203.0.113.007", "10.0.0.1"),
    ("203.0.113", "10.0.0.1"),
    ("3405803783", "10.0.0.1"),
    ("0x7f.1", "10.0.0.1"),
    ("[2001:db8::7", "10.0.0.1"),
    ("2001:db8:::7", "10.0.0.1"),
    ("fe80::1%eth0", "10.0.0.1"),
    ("1" * 46, "10.0.0.1"),
    ("[" + "1" * 46 + "]", "10.0.0.1"),
    ("1" * 5_000, "10.0.0.1"),
    ("[]", "10.0.0.1"),
    (":", "10.0.0.1"),
    ("0000:0000:0000:0000:0000:ffff:203.000.113.007", "10.0.0.1"),
    ("0000:0000:0000:0000:0000:0000:203.100.113.107", "::203.100.113.107"),
]


@pytest.mark.parametrize(("forwarded", "client"), FORWARDED)
def test_the_rightmost_untrusted_address_is_the_client(forwarded: str, client: str) -> None:
    proxies = TrustedProxies(PROXIES)
    assert client == proxies.client_address("10.0.0.1", forwarded.encode(), None)


def test_x_real_ip_is_used_without_x_forwarded_for() -> None:
    proxies = TrustedProxies(PROXIES)
    assert "203.0.113.7" == proxies.client_address("10.0.0.1", None, b" 203.0.113.7 ")
    assert "198.51.100.9" == proxies.client_address("10.0.0.1", b"198.51.100.9", b"203.0.113.7")
    assert "10.0.0.1" == proxies.client_address("10.0.0.1", None, b"unknown")
    assert "10.0.0.1" == proxies.client_address("10.0.0.1", None, b"")
    assert "10.0.0.1" == proxies.client_address("10.0.0.1", None, None)


@pytest.mark.parametrize("empty", [b"", b" ", b",", b" ,\t,"])
def test_an_empty_header_is_ignored(empty: bytes) -> None:
    proxies = TrustedProxies(PROXIES)
    assert "203.0.113.7" == proxies.client_address("10.0.0.1", empty, b"203.0.113.7")
    assert "203.0.113.7" == proxies.client_address("10.0.0.1", b"203.0.113.7", empty)
    assert "10.0.0.1" == proxies.client_address("10.0.0.1", empty, empty)


def test_empty_elements_of_x_real_ip_are_skipped() -> None:
    proxies = TrustedProxies(PROXIES)
    assert "203.0.113.7" == proxies.client_address("10.0.0.1", None, b" ,203.0.113.7, ")
    assert "10.0.0.1" == proxies.client_address("10.0.0.1", None, b"203.0.113.7,203.0.113.8")


def test_a_thousand_forwarded_addresses_are_walked() -> None:
    proxies = TrustedProxies(PROXIES)
    forwarded = b"203.0.113.7" + b", 10.1.2.3" * 1000
    assert "203.0.113.7" == proxies.client_address("10.0.0.1", forwarded, None)


@pytest.mark.parametrize(
    "headers", [[], [b"X-Forwarded-For: 203.0.113.7", b"X-Real-IP: 203.0.113.8"]]
)
@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
def test_the_headers_of_an_untrusted_peer_are_ignored(headers: list[bytes], address: str) -> None:
    fake = FakeCollector(trusted_proxies=PROXIES)
    event = event_of(fake, http(headers=headers), peer=(address, 40000))
    assert address == event["request_ip"]


@pytest.mark.parametrize(
    ("headers", "client"),
    [
        ([b"X-Forwarded-For: 203.0.113.7"], "203.0.113.7"),
        ([b"x-forwarded-FOR: 198.51.100.9, 203.0.113.7"], "203.0.113.7"),
        ([b"X-Forwarded-For: 198.51.100.9", b"X-Forwarded-For: 203.0.113.7"], "203.0.113.7"),
        ([b"X-Forwarded-For: 203.0.113.7", b"X-Forwarded-For: 10.2.2.2"], "203.0.113.7"),
        ([b"X-Real-IP: 203.0.113.7"], "203.0.113.7"),
        ([b"X-Real-IP: 203.0.113.8", b"X-Forwarded-For: 203.0.113.7"], "203.0.113.7"),
        ([b"X-Forwarded-For: 203.0.113.7", b"X-Real-IP: 203.0.113.8"], "203.0.113.7"),
        ([b"X-Forwarded-For:"], "10.0.0.1"),
        ([b"X-Forwarded-For: 203.0.113.7,"], "203.0.113.7"),
        (
            [b"X-Forwarded-For:", b"X-Forwarded-For: 203.0.113.7", b"X-Forwarded-For:"],
            "203.0.113.7",
        ),
        ([b"X-Forwarded-For:", b"X-Real-IP: 203.0.113.7"], "203.0.113.7"),
        ([b"X-Forwarded-For: ,", b"X-Real-IP: 203.0.113.7"], "203.0.113.7"),
        ([b"X-Real-IP: 203.0.113.7", b"X-Real-IP:"], "203.0.113.7"),
        ([b"X-Real-IP:", b"X-Real-IP: 203.0.113.7", b"X-Real-IP: , "], "203.0.113.7"),
        ([b"X-Forwarded-For: ::ffff:203.0.113.7, ::FFFF:a01:203"], "203.0.113.7"),
        ([b"X-Forwarded-For: [::ffff:203.0.113.7]:443"], "203.0.113.7"),
        ([b"X-Real-IP: ::ffff:cb00:7107"], "203.0.113.7"),
        ([b"X-Forwarded-For: \xff\xfe"], "10.0.0.1"),
        ([b"Forwarded: for=203.0.113.7"], "10.0.0.1"),
        ([b"X-Forwarded-Fox: 203.0.113.7"], "10.0.0.1"),
        ([], "10.0.0.1"),
    ],
)
def test_request_ip_is_the_address_that_a_trusted_peer_reports(
    headers: list[bytes], client: str
) -> None:
    fake = FakeCollector(trusted_proxies=PROXIES)
    assert client == event_of(fake, http(headers=headers), peer=PROXY)["request_ip"]


@pytest.mark.parametrize("more", [[], [TO_READER]], ids=["scan", "reader"])
def test_an_ipv4_peer_of_an_ipv6_socket_is_written_as_ipv4(more: list[bytes]) -> None:
    source = Source(name="demo", write_keys=(WriteKey(key="wk-demo"),), fill=("ip",))
    fake = FakeCollector((source,), trusted_proxies=PROXIES)
    event = event_of(fake, http(headers=more), peer=("::ffff:203.0.113.9", 40000, 0, 0))
    assert ("203.0.113.9", "203.0.113.9") == (event["request_ip"], event["context"]["ip"])
    proxied = [b"X-Forwarded-For: 198.51.100.4", *more]
    event = event_of(fake, http(headers=proxied), peer=("::ffff:10.0.0.1", 40000, 0, 0))
    assert ("198.51.100.4", "198.51.100.4") == (event["request_ip"], event["context"]["ip"])
    event = event_of(fake, http(headers=more), peer=("::ffff:10.0.0.1", 40000, 0, 0))
    assert ("10.0.0.1", "10.0.0.1") == (event["request_ip"], event["context"]["ip"])


@pytest.mark.parametrize("address", ["2001:db8::1", "::203.0.113.9", "fe80::1%eth0"])
def test_another_ipv6_peer_is_unchanged(address: str) -> None:
    event = event_of(FakeCollector(), http(), peer=(address, 40000, 0, 0))
    assert address == event["request_ip"]


def test_an_ipv6_peer_is_trusted_too() -> None:
    fake = FakeCollector(trusted_proxies=PROXIES)
    request = http(headers=[b"X-Forwarded-For: 203.0.113.7"])
    peer = ("::1", 40000, 0, 0)
    assert "203.0.113.7" == event_of(fake, request, peer=peer)["request_ip"]


def test_peers_of_a_unix_socket_are_trusted_only_if_configured() -> None:
    request = http(headers=[b"X-Forwarded-For: 203.0.113.7", b"X-Real-IP: 203.0.113.8"])
    for networks in ((), PROXIES, ["0.0.0.0/0", "::/0"]):
        fake = FakeCollector(trusted_proxies=networks)
        assert "request_ip" not in event_of(fake, request, peer="")
    fake = FakeCollector(trusted_proxies=["unix:"])
    assert "192.0.2.1" == event_of(fake, request)["request_ip"]  # a TCP peer
    request = http(headers=[b"X-Forwarded-For: 203.0.113.7"])
    assert "203.0.113.7" == event_of(fake, request, peer="")["request_ip"]
    assert "request_ip" not in event_of(fake, http(), peer="")  # no address is known


def test_a_peer_without_an_address_is_not_trusted() -> None:
    """A TCP connection that was reset before it was accepted has no peer name, but its bytes are
    still read. Only the peer name of a Unix socket is a string."""
    fake = FakeCollector(trusted_proxies=[*PROXIES, "unix:"])
    request = http(headers=[b"X-Forwarded-For: 6.6.6.6"])
    event = event_of(fake, request, peer=None)
    assert "6.6.6.6" != event.get("request_ip")


def test_the_parameter_request_ip_never_counts() -> None:
    fake = FakeCollector()
    assert "192.0.2.1" == event_of(fake, http(TRACK + b"&request_ip=9.9.9.9"))["request_ip"]


def test_each_request_of_a_connection_has_its_own_client() -> None:
    fake = FakeCollector(trusted_proxies=PROXIES)
    requests = [http(headers=[b"X-Forwarded-For: 203.0.113.%d" % n]) for n in range(5)]
    requests.insert(2, http())
    connection, _ = fake.connect(PROXY)
    feed(connection, b"".join(requests), 7)
    fake.disk.settle()
    found = [event.split(b'"request_ip":"')[1].rstrip(b'"}') for _, event in fake.disk.events()]
    expected = [b"203.0.113.0", b"203.0.113.1", b"10.0.0.1", b"203.0.113.2"]
    assert [*expected, b"203.0.113.3", b"203.0.113.4"] == found


@pytest.mark.parametrize("piece_bytes", [1, 1000])
def test_a_trailer_does_not_set_the_client_address(piece_bytes: int) -> None:
    """Neither of its request nor of the next one, which may belong to another client."""
    fake = FakeCollector(trusted_proxies=PROXIES)
    trailers = b"X-Forwarded-For: 6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nX-Forwarded-For: 6.6.6.7"
    with_trailers = http(
        TRACK,
        b"POST",
        [b"Transfer-Encoding: chunked", b"X-Forwarded-For: 203.0.113.7"],
        b"3\r\nabc\r\n0\r\n" + trailers + b"\r\n\r\n",
    )
    connection, _ = fake.connect(PROXY)
    feed(connection, with_trailers + http(), piece_bytes)
    fake.disk.settle()
    first, second = (event for _, event in fake.disk.events())
    assert b'"request_ip":"203.0.113.7"' in first
    assert b'"request_ip":"10.0.0.1"' in second
    assert b"6.6.6" not in first + second
