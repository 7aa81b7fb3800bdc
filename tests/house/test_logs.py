"""The check of the logs of all tests finds leaks, and accepts everything else."""

from __future__ import annotations

import http.client
from pathlib import Path

import pytest

from tests.logs import check_log
from tests.servers import Server

FULL = '[log]\naddresses = "full"\n'
REJECTED = '{"event": "pixel_rejected", "address": '


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('{"event": "x", "error": "wk_live_abc"}', "a write key"),
        ("warning x key=wk-demo", "a write key"),
        ("error of secret-key-1", "a write key"),
        ("GET /pixel/v1/page?a=1", "a query"),
        ("target=/x?userId=7", "a query"),
        ('"referrer": "https://shop.example/?a=1&event=b"', "a query"),
        ("writekey=", "a query"),
        ('{"event": "x", "peer": "203.0.113.7"}', "the address of a client"),
        ('{"event": "x", "peer": "2001:db8::7"}', "the address of a client"),
        (REJECTED + '"127.0.0.1"}', "an address that is not masked"),
    ],
)
def test_a_leak_is_found(line: str, what: str) -> None:
    settings = '[[sources]]\nname = "a"\nwrite_keys = [{ key = "secret-key-1" }]\n'
    with pytest.raises(AssertionError, match=what):
        check_log(f"good\n{line}\n", settings)


@pytest.mark.parametrize(
    ("line", "settings"),
    [
        (REJECTED + '"203.0.113.0/24", "key_fingerprint": "2bd806c97f0e"}', ""),
        (REJECTED + '"2001:db8:1::/48"}', ""),
        (REJECTED + '"203.0.113.7"}', FULL),
        ('{"event": "server_started", "listen": ["127.0.0.1:8080"]}', ""),
        ('{"error": "cannot connect to 192.0.2.1"}', 'url = "http://192.0.2.1/"'),
    ],
)
def test_an_allowed_line_is_accepted(line: str, settings: str) -> None:
    check_log(line, settings)


def test_an_address_in_the_log_of_a_server_fails_its_test(tmp_path: Path) -> None:
    """Check the log of a real server against other settings than its own."""
    server = Server(tmp_path / "data", "--workers", "1", settings=SETTINGS + FULL)
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    headers = {"X-Forwarded-For": "203.0.113.7"}
    client.request("GET", "/pixel/v1/page?writeKey=wk-other&userId=1", headers=headers)
    assert 401 == client.getresponse().status
    client.close()
    assert 0 == server.stop()
    with pytest.raises(AssertionError, match="the address of a client"):
        check_log(server.log, SETTINGS)


SETTINGS = '[[sources]]\nname = "a"\nwrite_keys = ["wk-a"]\n'
