"""The metadata of committed offsets."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelfast.deliver.cluster.checkpoint import (
    MAX_METADATA_BYTES,
    TOTALS,
    Checkpoint,
    CheckpointError,
    LastFrame,
    Place,
    PlannedBatch,
    SlotKey,
    decode,
    encode,
    room_for,
)

NUMBERS = st.integers(0, 2**63 - 1)
CHECKSUMS = st.integers(0, 2**32 - 1)
SKIPS = st.integers(0, 2**20)
SLOTS = st.dictionaries(
    st.builds(SlotKey, st.binary(min_size=16, max_size=16), st.integers(0, 0xFFFF)),
    st.builds(LastFrame, NUMBERS, NUMBERS, st.integers(-1, 1000), NUMBERS),
    max_size=12,
)
TOTAL = st.dictionaries(st.sampled_from(TOTALS), st.integers(1, 2**60))


@st.composite
def checkpoints(draw: st.DrawFn) -> Checkpoint:
    """Draw a checkpoint; batches are in order, and some do not start where the last one stops."""
    places = sorted(draw(st.lists(st.builds(Place, st.integers(0, 2**34), SKIPS), min_size=1)))
    batches = [
        PlannedBatch(start, stop, draw(CHECKSUMS), draw(st.booleans()))
        for start, stop in pairwise(places)
        if draw(st.integers(0, 4))
    ]
    return Checkpoint(places[0], batches[:40], draw(TOTAL), draw(SLOTS))


def contiguous(count: int, offset: int = 0) -> list[PlannedBatch]:
    """Return batches of the largest numbers that the format expects."""
    step, skip = 2**34, 2**20
    places = [Place(offset + n * step, skip + n) for n in range(2 * count + 1)]
    return [
        PlannedBatch(places[2 * n + 1], places[2 * n + 2], 2**32 - 1, n % 2 == 0)
        for n in range(count)
    ]


def slots(count: int) -> dict[SlotKey, LastFrame]:
    return {
        SlotKey(n.to_bytes(16), n): LastFrame(2**40, 2**26, 3, 2**40) for n in range(1, count + 1)
    }


@given(checkpoints())
def test_a_checkpoint_is_the_same_after_a_round_trip(checkpoint: Checkpoint) -> None:
    metadata = encode(checkpoint)
    assert checkpoint == decode(metadata, checkpoint.place.offset)
    assert list(checkpoint.slots) == list(decode(metadata, checkpoint.place.offset).slots)


@given(checkpoints())
def test_metadata_is_printable_and_within_its_limit(checkpoint: Checkpoint) -> None:
    metadata = encode(checkpoint)
    assert metadata.isascii()
    assert metadata.isprintable()
    assert len(metadata) <= MAX_METADATA_BYTES


@given(st.integers(0, 200), SLOTS)
def test_as_many_batches_as_there_is_room_for_can_be_stored(
    count: int, found: dict[SlotKey, LastFrame]
) -> None:
    totals = dict.fromkeys(TOTALS, 2**60)
    checkpoint = Checkpoint(Place(0), contiguous(0), totals, found | slots(count))
    room = room_for(checkpoint)
    assert room >= 40
    checkpoint.batches = contiguous(room)
    assert 0 == room_for(checkpoint)
    decoded = decode(encode(checkpoint), 0)
    assert (checkpoint.batches, totals) == (decoded.batches, decoded.totals)


def test_the_slots_that_were_read_last_are_kept_if_not_all_fit() -> None:
    checkpoint = Checkpoint(Place(9), contiguous(20, 9), slots=slots(300))
    kept = list(decode(encode(checkpoint), 9).slots)
    assert 20 < len(kept) < 200
    assert list(checkpoint.slots)[-len(kept) :] == kept


def test_more_batches_than_fit_are_an_error() -> None:
    with pytest.raises(CheckpointError, match="planned batches do not fit"):
        encode(Checkpoint(Place(0), contiguous(400)))


@pytest.mark.parametrize("metadata", ["", "2000", "1", "1 ", "1" + encode(Checkpoint(Place(0)))])
def test_metadata_of_others_is_an_error(metadata: str) -> None:
    with pytest.raises(CheckpointError, match=r"unknown version|damaged"):
        decode(metadata, 0)


@given(checkpoints(), st.data())
def test_truncated_metadata_is_an_error(checkpoint: Checkpoint, data: st.DataObject) -> None:
    metadata = encode(checkpoint)
    end = data.draw(st.integers(0, len(metadata) - 1))
    with pytest.raises(CheckpointError):
        decode(metadata[:end], 0)
