"""The metadata of a committed offset: what the next owner of a partition needs to know.

The committed offset is that of the first frame with an unsettled event. Its metadata is a string of
at most 3,500 bytes: the version `1`, followed by these values in Base85, all numbers as LEB128::

    topic         4 bytes, little-endian: CRC-32 of the id of the topic
    skip          settled events of the frame at the committed offset
    batches       number, then each in the order of the log:
        flags       bit 0: settled; bit 1: it does not start where the previous batch stops
        start       only with bit 1: offset minus that of the previous stop, `skip`
        stop        offset minus that of the start, `skip`
        checksum    4 bytes, little-endian
    totals        number, then the totals in the order of `TOTALS`, each in the zigzag encoding:
                  2n for n >= 0, otherwise -2n - 1
    nodes         number, then 16 bytes each
    slots         number, then each, the least recently read one first:
        node        index of its node
        slot, segment, offset
        part        0 for a whole frame, otherwise 1 more than the part
        next number, received_ms

Brokers limit the metadata to 4,096 bytes by default. Planned batches and totals are always
stored, so no more batches may be planned than `room_for` returns. The slots that were not read for
the longest time are omitted if not all of them fit; copies of their old frames are then delivered
again.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from zlib import crc32

from pixelfast.cluster.message import WHOLE, FramePlace
from pixelfast.errors import PixelfastError

__all__ = [
    "MAX_METADATA_BYTES",
    "TOTALS",
    "Checkpoint",
    "CheckpointError",
    "LastFrame",
    "Place",
    "PlannedBatch",
    "SlotKey",
    "decode",
    "encode",
    "restarted",
    "room_for",
    "topic_mark",
]

MAX_METADATA_BYTES = 3500
TOTALS = (  # new names are appended; their order is part of the format
    "stored",
    "delivered",
    "dead",
    "filtered",
    "expired",
    "batches",
    "failures",
    "missing",
    "repeated",
    "duplicate_frames",
    "invalid_messages",
)
_SETTLED = ("delivered", "dead", "filtered", "expired", "missing")
_VERSION = "1"
_NODE_BYTES = 16
_TOPIC_BYTES = 4
_CHECKSUM_BYTES = 4
_MAX_BYTES = (MAX_METADATA_BYTES - len(_VERSION)) // 5 * 4
_MAX_OFFSET_BYTES, _MAX_EVENTS_BYTES = 9, 5  # offsets have 63 bits, events of a frame 32 bits
_MAX_BATCH_BYTES = 1 + 2 * (_MAX_OFFSET_BYTES + _MAX_EVENTS_BYTES) + _CHECKSUM_BYTES
_GROWTH_BYTES = 5  # by which each total and each number before the batches may grow until a commit
_SLOTS_SHARE = 0.5  # of the metadata, which planned batches leave to the slots


class CheckpointError(PixelfastError):
    """The metadata of a committed offset cannot be read."""


class Place(NamedTuple):
    """A place in a partition: before event `skip` of the frame at `offset`."""

    offset: int
    skip: int = 0


class PlannedBatch(NamedTuple):
    """A batch that was planned: its bounds, and the CRC-32 of its events as NDJSON."""

    start: Place
    stop: Place
    checksum: int
    is_settled: bool


class SlotKey(NamedTuple):
    """The slot of a collector."""

    node: bytes
    slot: int


class LastFrame(NamedTuple):
    """The position of a frame in its slot, and the number of the event after it.

    Attributes:
        received_ms: the latest time at which a frame of the slot up to this one was received.
    """

    segment: int
    offset: int
    part: int = WHOLE
    next_number: int = 0
    received_ms: int = 0

    def is_beyond(self, place: FramePlace) -> bool:
        """Return whether this frame is at a place in the same slot, or after it.

        >>> LastFrame(1, 400).is_beyond(FramePlace(bytes(16), 0, 1, 64))
        True
        """
        return place[2:] <= self[:3]


@dataclass(slots=True)
class Checkpoint:
    """The state of a partition as of its committed place.

    Attributes:
        place: the first unsettled event.
        batches: the batches that are planned from there on, in their order.
        totals: the totals of the partition, by the names in `TOTALS`.
        slots: the last frame of each slot before `place.offset`, the least recently read slot
            first.
        topic: the mark of the topic.
    """

    place: Place
    batches: list[PlannedBatch] = field(default_factory=list)
    totals: dict[str, int] = field(default_factory=dict)
    slots: dict[SlotKey, LastFrame] = field(default_factory=dict)
    topic: int = 0

    @property
    def after(self) -> Place:
        """The place after the last planned batch."""
        return self.batches[-1].stop if self.batches else self.place

    @property
    def pending(self) -> int:
        """The number of events that count as stored, and that have no outcome yet."""
        settled = sum(self.totals.get(name, 0) for name in _SETTLED)
        return self.totals.get("stored", 0) + self.totals.get("repeated", 0) - settled


def topic_mark(topic_id: str) -> int:
    """Return the mark that distinguishes a topic from earlier ones of the same name."""
    return crc32(topic_id.encode())


def restarted(checkpoint: Checkpoint, offset: int, topic: int) -> Checkpoint:
    """Return the checkpoint to continue with if the messages up to a checkpoint are gone.

    Its unsettled events count as expired. `offset` is that of the first message that exists. If the
    topic is another one, the slots are forgotten, because it may contain earlier frames.

    >>> checkpoint = Checkpoint(Place(9), totals={"stored": 50, "delivered": 40})
    >>> restarted(checkpoint, 2, 0).totals
    {'stored': 50, 'delivered': 40, 'expired': 10}
    """
    totals = dict(checkpoint.totals)
    if checkpoint.pending:
        totals["expired"] = totals.get("expired", 0) + checkpoint.pending
    slots = checkpoint.slots if checkpoint.topic == topic else {}
    return Checkpoint(Place(offset), totals=totals, slots=slots, topic=topic)


def room_for(checkpoint: Checkpoint) -> int:
    """Return how many more batches may be planned, so that their checkpoint can be stored."""
    slots_bytes = min(len(_packed_slots(checkpoint.slots)), int(_MAX_BYTES * _SLOTS_SHARE))
    fixed_bytes = len(_packed_batches(checkpoint)) + (3 + len(TOTALS)) * _GROWTH_BYTES
    return max(0, _MAX_BYTES - fixed_bytes - slots_bytes) // _MAX_BATCH_BYTES


def encode(checkpoint: Checkpoint) -> str:
    """Return the metadata of a checkpoint.

    Raises:
        CheckpointError: more batches are planned than fit.

    >>> metadata = encode(Checkpoint(Place(7, 2), totals={"delivered": 300}))
    >>> decode(metadata, 7).totals["delivered"]
    300
    """
    packed = _packed_batches(checkpoint)
    left_bytes = _MAX_BYTES - len(packed)
    slots = dict(checkpoint.slots)
    while len(packed_slots := _packed_slots(slots)) > left_bytes:
        if not slots:
            raise CheckpointError(f"{len(checkpoint.batches)} planned batches do not fit")
        for key in list(slots)[: max(1, len(slots) // 16)]:
            del slots[key]
    return _VERSION + base64.b85encode(packed + packed_slots).decode()


def decode(metadata: str, offset: int) -> Checkpoint:
    """Return the checkpoint of a committed offset from its metadata.

    Raises:
        CheckpointError: the metadata was not written by `encode`, or by a newer version.
    """
    if metadata[:1] != _VERSION:
        raise CheckpointError(f"unknown version {metadata[:1]!r}; expected {_VERSION!r}")
    try:
        return _unpacked(_Unpacker(base64.b85decode(metadata[1:])), offset)
    except (ValueError, IndexError) as error:
        raise CheckpointError(f"damaged: {error}") from error


def _unpacked(values: _Unpacker, offset: int) -> Checkpoint:
    topic = int.from_bytes(values.take(_TOPIC_BYTES), "little")
    before = place = Place(offset, values.number())
    batches: list[PlannedBatch] = []
    for _ in range(values.number()):
        flags, start = values.number(), before
        if flags & 2:
            start = Place(before.offset + values.number(), values.number())
        before = Place(start.offset + values.number(), values.number())
        checksum = int.from_bytes(values.take(_CHECKSUM_BYTES), "little")
        batches.append(PlannedBatch(start, before, checksum, bool(flags & 1)))
    found = [values.number() for _ in range(values.number())]
    totals = {
        name: total // 2 if total % 2 == 0 else -(total + 1) // 2
        for name, total in zip(TOTALS, found, strict=False)
        if total
    }
    nodes = [values.take(_NODE_BYTES) for _ in range(values.number())]
    slots: dict[SlotKey, LastFrame] = {}
    for _ in range(values.number()):
        key = SlotKey(nodes[values.number()], values.number())
        segment, at, part, number, received_ms = (values.number() for _ in LastFrame._fields)
        slots[key] = LastFrame(segment, at, part - 1 if part else WHOLE, number, received_ms)
    if not values.is_at_end:
        raise ValueError("data after the last slot")
    return Checkpoint(place, batches, totals, slots, topic)


def _packed_batches(checkpoint: Checkpoint) -> bytearray:
    """Pack all of a checkpoint except the slots."""
    packed = bytearray(checkpoint.topic.to_bytes(_TOPIC_BYTES, "little"))
    packed += _number(checkpoint.place.skip)
    packed += _number(len(checkpoint.batches))
    before = checkpoint.place
    for each in checkpoint.batches:
        packed += _packed_batch(each, before)
        before = each.stop
    packed += _number(len(TOTALS))
    for name in TOTALS:
        total = checkpoint.totals.get(name, 0)
        packed += _number(2 * total if total >= 0 else -2 * total - 1)
    return packed


def _packed_batch(batch: PlannedBatch, before: Place) -> bytes:
    """Pack a batch; `before` is the stop of the batch before it."""
    start, stop = batch.start, batch.stop
    packed = bytearray(_number(batch.is_settled | (start != before) << 1))
    if start != before:
        packed += _number(start.offset - before.offset) + _number(start.skip)
    packed += _number(stop.offset - start.offset) + _number(stop.skip)
    return bytes(packed) + batch.checksum.to_bytes(_CHECKSUM_BYTES, "little")


def _packed_slots(slots: Mapping[SlotKey, LastFrame]) -> bytes:
    nodes = list(dict.fromkeys(key.node for key in slots))
    places = {node: _number(place) for place, node in enumerate(nodes)}
    packed = bytearray(_number(len(nodes)) + b"".join(nodes) + _number(len(slots)))
    for key, last in slots.items():
        packed += places[key.node] + _number(key.slot)
        for value in last._replace(part=0 if last.part == WHOLE else last.part + 1):
            packed += _number(value)
    return bytes(packed)


def _number(value: int) -> bytes:
    """Pack a number as LEB128.

    >>> _number(300).hex()
    'ac02'
    """
    if value < 0:
        raise CheckpointError(f"{value} is negative")
    return bytes(_septets(value))


def _septets(value: int) -> Iterator[int]:
    while value >= 0x80:
        yield value & 0x7F | 0x80
        value >>= 7
    yield value


class _Unpacker:
    """Read packed values one after the other."""

    def __init__(self, packed: bytes) -> None:
        self._packed = packed
        self._at = 0

    @property
    def is_at_end(self) -> bool:
        return self._at == len(self._packed)

    def take(self, size: int) -> bytes:
        taken = self._packed[self._at : self._at + size]
        if len(taken) < size:
            raise ValueError("it ends early")
        self._at += size
        return taken

    def number(self) -> int:
        value = shift = 0
        while True:
            septet = self._packed[self._at]
            self._at += 1
            value |= (septet & 0x7F) << shift
            shift += 7
            if septet < 0x80:
                return value
