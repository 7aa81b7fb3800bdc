"""The metadata of committed offsets."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pixelfast.cluster.message import WHOLE
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
    st.builds(LastFrame, NUMBERS, NUMBERS, st.integers(0, 1000) | st.just(WHOLE), NUMBERS, NUMBERS),
    max_size=12,
)
AMOUNTS = st.integers(-(2**62), 2**62).filter(bool)
TOTAL = st.dictionaries(st.sampled_from(TOTALS), AMOUNTS)
LARGE = [0, 1, 2**7, 2**14, 2**31 - 1]


@st.composite
def checkpoints(draw: st.DrawFn) -> Checkpoint:
    """Draw a checkpoint; batches are in order, and some do not start where the last one stops."""
    places = sorted(draw(st.lists(st.builds(Place, st.integers(0, 2**34), SKIPS), min_size=1)))
    batches = [
        PlannedBatch(start, stop, draw(CHECKSUMS), draw(st.booleans()))
        for start, stop in pairwise(places)
        if draw(st.integers(0, 4))
    ]
    mark = draw(st.integers(0, 2**32 - 1))
    return Checkpoint(places[0], batches[:40], draw(TOTAL), draw(SLOTS), mark)


def apart(count: int, offset: int = 0, step: int = 2**34) -> list[PlannedBatch]:
    """Return batches, none of which starts where the last one stops."""
    skip = 2**20
    places = [Place(offset + n * step, skip + n) for n in range(2 * count + 1)]
    return [
        PlannedBatch(places[2 * n + 1], places[2 * n + 2], 2**32 - 1, n % 2 == 0)
        for n in range(count)
    ]


def slots(count: int) -> dict[SlotKey, LastFrame]:
    return {
        SlotKey(n.to_bytes(16), n): LastFrame(2**40, 2**26, 3, 2**40, 2**41)
        for n in range(1, count + 1)
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


@st.composite
def commits(draw: st.DrawFn) -> list[Checkpoint]:
    """Draw the checkpoints of successive commits, each with all the batches that had room."""
    slots = draw(SLOTS)
    checkpoint = Checkpoint(Place(draw(NUMBERS), draw(st.sampled_from(LARGE))), slots=slots)
    found = [checkpoint]
    step = draw(st.sampled_from([1, 2**10, 2**40, 2**54]))
    for _ in range(draw(st.integers(1, 4))):
        batches = checkpoint.batches[draw(st.integers(0, len(checkpoint.batches))) :]
        place = batches[0].start if batches else checkpoint.place
        last = batches[-1].stop if batches else place
        gap, skips = step * draw(st.integers(0, 1)), draw(st.tuples(*[st.sampled_from(LARGE)] * 2))
        for n in range(draw(st.sampled_from([room_for(checkpoint), room_for(checkpoint) // 2]))):
            start = Place(last.offset + gap, skips[0]) if gap else last
            last = Place(start.offset + step, skips[1])
            batches.append(PlannedBatch(start, last, 2**32 - 1, n % 2 == 0))
        more = {name: total + draw(st.integers(0, 2**31)) for name, total in draw(TOTAL).items()}
        slots = slots | draw(SLOTS)
        checkpoint = Checkpoint(place, batches, checkpoint.totals | more, slots)
        found.append(checkpoint)
    return found


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(commits())
def test_every_batch_that_had_room_can_be_stored(found: list[Checkpoint]) -> None:
    for checkpoint in found:
        metadata = encode(checkpoint)
        assert len(metadata) <= MAX_METADATA_BYTES
        decoded = decode(metadata, checkpoint.place.offset)
        assert checkpoint.batches == decoded.batches
        totals = {name: total for name, total in checkpoint.totals.items() if total}
        assert totals == decoded.totals


def test_there_is_room_for_the_batches_of_many_requests_beside_many_slots() -> None:
    checkpoint = Checkpoint(Place(0), totals=dict.fromkeys(TOTALS, 2**40), slots=slots(300))
    assert room_for(checkpoint) >= 30
    while room := room_for(checkpoint):
        places = [Place(10**6 * n) for n in range(len(checkpoint.batches), 400)]
        pairs = list(pairwise(places))[:room]
        checkpoint.batches += [PlannedBatch(*each, 2**32 - 1, is_settled=False) for each in pairs]
    assert len(checkpoint.batches) >= 64
    assert len(decode(encode(checkpoint), 0).slots) >= 20


def test_a_whole_frame_is_stored_in_fewer_bytes_than_a_part() -> None:
    whole, part = (
        Checkpoint(Place(0), slots={SlotKey(bytes(16), 0): LastFrame(1, 64, part, 5)})
        for part in (WHOLE, 200)
    )
    assert len(encode(whole)) < len(encode(part))


def test_the_slots_that_were_read_last_are_kept_if_not_all_fit() -> None:
    checkpoint = Checkpoint(Place(9), apart(20, 9), slots=slots(300))
    kept = list(decode(encode(checkpoint), 9).slots)
    assert 20 < len(kept) < 200
    assert list(checkpoint.slots)[-len(kept) :] == kept


def test_more_batches_than_fit_are_an_error() -> None:
    with pytest.raises(CheckpointError, match="planned batches do not fit"):
        encode(Checkpoint(Place(0), apart(400)))


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
