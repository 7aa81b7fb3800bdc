"""Many byte strings in one buffer."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelfast.deliver.excerpts import Excerpts

PARTS = st.lists(st.binary(max_size=40))
SIMILAR = st.lists(
    st.builds(lambda *parts: b"".join(parts), *[st.sampled_from([b"", b"a", b"field " * 5])] * 4),
    min_size=1,
)


def unfolded(divisions: bytes, own: bytes) -> list[bytes]:
    numbers = struct.unpack(f"<{len(divisions) // 4}I", divisions)
    found: list[bytes] = []
    at = 0
    for before, behind, size in zip(*[iter(numbers)] * 3, strict=True):
        first = found[0] if found else b""
        found.append(first[:before] + own[at : at + size] + first[len(first) - behind :])
        at += size
    return found


@given(PARTS)
def test_excerpts_are_the_parts_they_were_made_of(parts: list[bytes]) -> None:
    found = Excerpts.of(parts)
    assert parts == list(found) == [found[n] for n in range(len(found))]
    assert [len(each) for each in parts] == found.sizes()
    assert found == Excerpts.of(iter(parts))


def test_parts_that_are_the_same_object_are_copied_once() -> None:
    part = b"x" * 1000
    found = Excerpts.of([part] * 1000 + [b"y"] + [part] * 2)
    assert [part] * 1000 + [b"y"] + [part] * 2 == list(found)
    assert len(found.buffer) < 2100


@given(PARTS, st.data())
def test_picked_excerpts_share_the_buffer(parts: list[bytes], data: st.DataObject) -> None:
    whole = Excerpts.of(parts)
    places = [n for n in range(len(parts)) if data.draw(st.booleans())]
    some = whole.picked(places)
    assert [parts[n] for n in places] == list(some)
    assert some.buffer is whole.buffer


@given(PARTS, st.data())
def test_excerpts_are_joined_and_found_again(parts: list[bytes], data: st.DataObject) -> None:
    found = Excerpts.of(parts)
    start = data.draw(st.integers(0, len(parts)))
    stop = data.draw(st.integers(start, len(parts)))
    assert b"--".join(parts[start:stop]) == found.joined(start, stop, b"--")
    assert b"\n".join(parts[start:stop]) == found.span(start, stop) or stop - start > 1
    for n in range(len(parts)):
        assert parts[n] == found.buffer[found.start_of(n) : found.end_of(n)]
        if parts[n]:  # the same object may have been copied once for several
            first = found.index_at(found.start_of(n))
            assert first <= n
            assert found.start_of(n) == found.start_of(first)
            assert first == found.index_at(found.end_of(n) - 1)


@given(PARTS.filter(bool), st.integers(0, 200), st.integers(0, 20))
def test_as_many_excerpts_fit_as_are_allowed(
    parts: list[bytes], max_bytes: int, each_bytes: int
) -> None:
    stop = Excerpts.of(parts).fitting(0, max_bytes, each_bytes)

    def size(count: int) -> int:
        return sum(map(len, parts[:count])) + count * each_bytes

    assert stop == 1 or size(stop) <= max_bytes
    assert stop == len(parts) or size(stop + 1) > max_bytes


@given(SIMILAR, st.integers(0, 500))
def test_folded_excerpts_can_be_unfolded(parts: list[bytes], max_bytes: int) -> None:
    found = Excerpts.of([bytes(bytearray(each)) for each in parts])  # no two are one object
    others = Excerpts.of([b"%d" % n for n in range(len(parts))])
    start = 0
    restored: list[bytes] = []
    while start < len(parts):
        stop, divisions, own = found.folded(start, max_bytes, 17, others)
        size_bytes = len(own) + 17 * (stop - start) + sum(others.sizes()[start:stop])
        assert stop == start + 1 or size_bytes <= max_bytes
        restored += unfolded(divisions, own)
        start = stop
    assert parts == restored


def test_content_that_excerpts_share_is_stored_once() -> None:
    parts = [b'{"reason":"[1:%d] failed to parse","cause":"for input"}' % n for n in range(100)]
    stop, _, own = Excerpts.of(parts).folded(0, 10_000, 0, Excerpts.of([b""] * 100))
    assert 100 == stop
    assert len(own) < len(parts[0]) + 2 * 100


@pytest.mark.parametrize(
    "call",
    [
        lambda excerpts: excerpts[2],
        lambda excerpts: excerpts[-1],
        lambda excerpts: excerpts.start_of(2),
        lambda excerpts: excerpts.end_of(-1),
        lambda excerpts: excerpts.span(1, 3),
        lambda excerpts: excerpts.joined(2, 1),
        lambda excerpts: excerpts.picked([2]),
        lambda excerpts: excerpts.fitting(3, 9, 0),
        lambda excerpts: excerpts.folded(2, 9, 0, excerpts),
        lambda excerpts: excerpts.folded(0, 9, 0, Excerpts.of([b"one"])),
    ],
)
def test_an_index_that_does_not_exist_is_an_error(call: object) -> None:
    with pytest.raises(IndexError, match="excerpts"):
        call(Excerpts.of([b"one", b"two"]))  # type: ignore[operator]
