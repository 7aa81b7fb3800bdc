"""Some lines of NDJSON, without a copy of the others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelfast.deliver.lines import pick_lines


@given(st.data())
def test_picked_lines_are_those_of_a_split(data: st.DataObject) -> None:
    lines = data.draw(st.lists(st.binary().map(lambda each: each.replace(b"\n", b""))))
    places = sorted(data.draw(st.sets(st.sampled_from(range(len(lines) or 1)))) if lines else ())
    body = b"".join(line + b"\n" for line in lines)
    assert [lines[n] for n in places] == list(pick_lines(body, places))


@pytest.mark.parametrize("body", [b"", b"a\nb\n", b"a\nb\nthe end is missing"])
def test_a_line_that_does_not_exist_is_an_error(body: bytes) -> None:
    with pytest.raises(ValueError, match="line 2 does not exist"):
        pick_lines(body, [2])


@pytest.mark.parametrize("places", [[1, 0], [1, 1], [-1]])
def test_positions_that_do_not_ascend_are_an_error(places: list[int]) -> None:
    with pytest.raises(ValueError, match="comes after line"):
        pick_lines(b"a\nb\n", places)
