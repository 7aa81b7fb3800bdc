"""The headers of a message of the cluster's topic, which identify the frame that it holds.

The value of a message is a frame exactly as it is in its segment. The headers contain the position
of the frame, by which a reader recognizes a copy: positions in a slot are never used twice, and the
node id is random and belongs to one data directory. The frames of a slot are produced in order, and
all of their copies to the same partition. Therefore, a reader drops every frame that is not beyond
the last one of its node and slot (`deliver/cluster/history` has an exception for restored data
directories).

A frame that is too large for a message is split at line feeds into parts, which are new frames. All
have the position of the original frame, and are numbered from 0. A whole frame sorts after its
parts. If a limit changes between two attempts, a whole frame after its parts is therefore not
dropped as a copy, but parts after the whole frame are. Parts always have the same boundaries.

    header     value
    node       node id, 16 bytes as in META
    slot       ASCII decimal
    segment    ASCII decimal
    offset     ASCII decimal, in bytes from the beginning of the segment
    part       ASCII decimal; absent if the frame was not split
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

from pixelfast.spool.format import MAX_SLOT

__all__ = ["WHOLE", "FramePlace", "pack_headers", "parse_headers"]

Headers: TypeAlias = list[tuple[str, bytes]]
WHOLE = 2**31 - 1  # the part of a frame that was not split
_NODE_BYTES = 16
_LIMITS = {"slot": MAX_SLOT, "segment": 2**63 - 1, "offset": 2**63 - 1, "part": WHOLE - 1}
_MAX_DIGITS = 19


class FramePlace(NamedTuple):
    """The position of a frame. Places of one node and slot sort in the order of the log.

    >>> node = bytes(16)
    >>> FramePlace(node, 0, 1, 64, 0) < FramePlace(node, 0, 1, 64) < FramePlace(node, 0, 1, 400, 0)
    True
    """

    node: bytes
    slot: int
    segment: int
    offset: int
    part: int = WHOLE


def pack_headers(place: FramePlace) -> Headers:
    """Return the headers of the message with a frame.

    >>> pack_headers(FramePlace(bytes(range(65, 81)), 0, 7, 64))
    [('node', b'ABCDEFGHIJKLMNOP'), ('slot', b'0'), ('segment', b'7'), ('offset', b'64')]
    >>> pack_headers(FramePlace(bytes(16), 0, 7, 64, 2))[-1]
    ('part', b'2')
    """
    headers: Headers = [
        ("node", place.node),
        ("slot", b"%d" % place.slot),
        ("segment", b"%d" % place.segment),
        ("offset", b"%d" % place.offset),
    ]
    if place.part != WHOLE:
        headers.append(("part", b"%d" % place.part))
    return headers


def parse_headers(
    headers: Iterable[tuple[str, str | bytes | None]] | dict[str, str | bytes | None] | None,
) -> FramePlace:
    """Return the position of a message's frame. Headers of other programs are ignored.

    >>> place = FramePlace(bytes(range(16)), 3, 7, 64, 0)
    >>> parse_headers([*pack_headers(place), ("traceparent", b"00")]) == place
    True
    >>> parse_headers([("node", b"short")])
    Traceback (most recent call last):
    ValueError: header node: expected 16 bytes
    >>> parse_headers([("node", bytes(16)), ("slot", b"-1")])
    Traceback (most recent call last):
    ValueError: header slot: expected a decimal number of at most 65535
    >>> parse_headers(None)
    Traceback (most recent call last):
    ValueError: header node: expected 16 bytes

    Raises:
        ValueError: a header is missing or has another form.
    """
    found = dict(headers or ())
    node = found.get("node")
    if not isinstance(node, bytes) or len(node) != _NODE_BYTES:
        raise ValueError(f"header node: expected {_NODE_BYTES} bytes")
    slot, segment, offset = (
        _number(name, found.get(name)) for name in ("slot", "segment", "offset")
    )
    part = _number("part", found["part"]) if "part" in found else WHOLE
    return FramePlace(node, slot, segment, offset, part)


def _number(name: str, value: str | bytes | None) -> int:
    most = _LIMITS[name]
    if isinstance(value, bytes) and value.isdigit() and len(value) <= _MAX_DIGITS:
        number = int(value)
        if number <= most:
            return number
    raise ValueError(f"header {name}: expected a decimal number of at most {most}")
