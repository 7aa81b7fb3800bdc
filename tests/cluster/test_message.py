"""The headers of a message from the topic."""

from __future__ import annotations

from typing import Any

import pytest

from pixelfast.cluster.message import WHOLE, FramePlace, pack_headers, parse_headers

PLACE = FramePlace(bytes(range(16)), 3, 7, 64, 2)


def with_header(name: str, value: bytes) -> list[tuple[str, bytes]]:
    return [*((own, old) for own, old in pack_headers(PLACE) if own != name), (name, value)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("node", bytes(15)),
        ("slot", b"65536"),
        ("slot", b""),
        ("segment", b"%d" % 2**63),
        ("offset", b"9" * 30),
        ("offset", b"6.4"),
        ("part", b"%d" % WHOLE),
        ("part", b"-1"),
    ],
)
def test_a_header_beyond_its_limit_is_an_error(name: str, value: bytes) -> None:
    with pytest.raises(ValueError, match=f"header {name}: expected "):
        parse_headers(with_header(name, value))


@pytest.mark.parametrize(
    ("name", "value"),
    [("slot", 65535), ("segment", 2**63 - 1), ("offset", 2**63 - 1), ("part", WHOLE - 1)],
)
def test_a_header_at_its_limit_is_accepted(name: str, value: int) -> None:
    values: dict[str, Any] = {name: value}
    assert PLACE._replace(**values) == parse_headers(with_header(name, b"%d" % value))
