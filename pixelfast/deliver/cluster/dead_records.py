"""Dead letters as messages of the topic `<topic>-dead`.

The key is the destination, the batch and the position in the batch, so that a dead letter that is
written again replaces itself; the topic is compacted. The value is JSON. A message without a value
drops the dead letter.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from pixelfast.deliver.bundles import DeadLetter

__all__ = ["DeadRecord", "destination_of", "key_of", "message_of", "parse_record"]


class _Value(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The value of a message.

    Attributes:
        id: 1 more than the offset of its first message; 0 in that message.
        replay: whether it is to be replayed.
    """

    id: int = 0
    batch: str
    number: int
    event: msgspec.Raw
    source: str
    status: int
    reason: str
    attempts: int
    died_ms: int
    replay: bool = False
    response: bytes = b""


_DECODER = msgspec.json.Decoder(_Value)


class DeadRecord(NamedTuple):
    """A dead letter, and the offset of its last message."""

    letter: DeadLetter
    destination: str
    offset: int


def key_of(destination: str, batch: str, number: int) -> bytes:
    """Return the key of a dead letter.

    >>> key_of("hook", "1f0c", 7)
    b'hook/1f0c/7'
    """
    return f"{destination}/{batch}/{number}".encode()


def destination_of(key: bytes) -> str:
    """Return the destination of a dead letter; "" if this is not the key of one.

    >>> destination_of(b"hook/1f0c/7"), destination_of(b"hook")
    ('hook', '')
    """
    parts = key.split(b"/")
    return parts[0].decode("ascii", "replace") if len(parts) == 3 else ""


def message_of(destination: str, letter: DeadLetter) -> tuple[bytes, bytes]:
    """Return the key and the value of a dead letter. A new dead letter has the id 0."""
    value = _Value(
        id=letter.id,
        batch=letter.batch,
        number=letter.number,
        event=msgspec.Raw(letter.event),
        source=letter.source,
        status=letter.status,
        reason=letter.reason,
        attempts=letter.attempts,
        died_ms=letter.died_ms,
        replay=letter.replay > 0,
        response=letter.response,
    )
    return key_of(destination, letter.batch, letter.number), msgspec.json.encode(value)


def parse_record(key: bytes, value: bytes, offset: int) -> DeadRecord:
    """Return the dead letter of a message.

    Raises:
        ValueError: the message is not a dead letter.
    """
    destination = destination_of(key)
    try:
        found = _DECODER.decode(value)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from error
    if key != key_of(destination, found.batch, found.number):
        raise ValueError("the key is not that of the value")
    letter = DeadLetter(
        found.id or offset + 1,
        found.batch,
        found.number,
        bytes(found.event),
        found.status,
        found.reason,
        found.response,
        found.attempts,
        found.died_ms,
        int(found.replay),
        found.source,
    )
    return DeadRecord(letter, destination, offset)
