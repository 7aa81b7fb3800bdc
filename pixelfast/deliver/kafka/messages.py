"""The messages of a batch: topic, key, value, headers and timestamp."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias

import msgspec

from pixelfast.config import KafkaDestination
from pixelfast.deliver.batches import Batch, Run

__all__ = ["Message", "Messages"]

# Values are bytes, because confluent-kafka ends a header that is a string at its first U+0000.
Header: TypeAlias = tuple[str, str | bytes | None]
Headers: TypeAlias = list[Header]
_ENVELOPE_BYTES = 1024  # for the key and the headers of an NDJSON message


class Message(NamedTuple):
    """One message.

    Attributes:
        timestamp_ms: since 1970; 0 for the time of sending.
        first: the position of its first event in the batch.
        events: the number of its events.
    """

    topic: str
    value: bytes
    key: str | None
    headers: Headers
    timestamp_ms: int
    first: int
    events: int


class _Event(msgspec.Struct, rename="camel"):
    """The fields of an event that messages need; a client may have sent values of any type."""

    type: Any = None
    message_id: Any = None
    user_id: Any = None
    anonymous_id: Any = None
    received_at: Any = None


class Messages:
    """Make messages as the settings of a destination describe them.

    >>> settings = KafkaDestination(name="k", brokers=("b:9092",), topic="{source}.{type}")
    >>> event = b'{"type":"track","userId":"42","messageId":"m1"}'
    >>> batch = Batch(body=event + b"\\n", events=1, runs=(Run("web", 1),))
    >>> (message,) = Messages(settings).of(batch, 10**6)
    >>> message.topic, message.key, dict(message.headers)["messageId"]
    ('web.track', '42', b'm1')
    """

    def __init__(self, settings: KafkaDestination, wall_s: Callable[[], float] = time.time) -> None:
        """Make messages of a destination; `wall_s` returns the time since 1970."""
        self._wall_s = wall_s
        self._topic = settings.topic
        self._is_batched = settings.message == "batch"
        self._key = settings.key or ("none" if self._is_batched else "user")
        self._decode: Callable[[bytes], _Event] = msgspec.json.Decoder(_Event).decode
        self._received: tuple[str, int] = ("", 0)  # the last time and its timestamp

    def of(self, batch: Batch, max_value_bytes: int) -> Iterator[Message]:
        """Yield the messages of a batch in the order of its events.

        A message with several events has at most `max_value_bytes`, with its headers.
        """
        return self._batched(batch, max_value_bytes) if self._is_batched else self._single(batch)

    def _single(self, batch: Batch) -> Iterator[Message]:
        kind: Header = ("content-type", b"application/json")
        lines = batch.lines()
        place = 0
        for source, events in _runs(batch):
            origin: Headers = [("source", source.encode())] if source else []
            for line in lines[place : place + events]:
                event = self._read(line)
                yield Message(
                    self._topic_of(source, event.type),
                    line,
                    self._key_of(source, event),
                    [
                        ("messageId", _text(event.message_id).encode()),
                        ("type", _text(event.type).encode()),
                        *origin,
                        kind,
                    ],
                    self._timestamp_ms(event.received_at),
                    place,
                    1,
                )
                place += 1

    def _batched(self, batch: Batch, max_value_bytes: int) -> Iterator[Message]:
        lines = batch.lines()
        place = 0
        for source, events in _runs(batch):
            end = place + events
            key = source if self._key == "source" and source else None
            headers: Headers = [("source", source.encode())] if source else []
            headers.append(("content-type", b"application/x-ndjson"))
            while place < end:
                first = place
                left = max_value_bytes - _ENVELOPE_BYTES - len(lines[place]) - 1
                place += 1
                while place < end and left > len(lines[place]):
                    left -= len(lines[place]) + 1
                    place += 1
                yield Message(
                    self._topic_of(source, None),
                    b"\n".join(lines[first:place]) + b"\n",
                    key,
                    [*headers, ("events", b"%d" % (place - first))],
                    self._timestamp_ms(self._read(lines[place - 1]).received_at),
                    first,
                    place - first,
                )

    def _read(self, line: bytes) -> _Event:
        try:
            return self._decode(line)
        except ValueError:  # invalid JSON, which only another program can have written
            return _Event()

    def _topic_of(self, source: str, kind: object) -> str:
        if "{" not in self._topic:
            return self._topic
        return self._topic.replace("{source}", source).replace("{type}", str(kind))

    def _key_of(self, source: str, event: _Event) -> str | None:
        if self._key == "user":
            return _text(event.user_id) or _text(event.anonymous_id) or None
        return source if self._key == "source" and source else None

    def _timestamp_ms(self, received_at: object) -> int:
        # Brokers reject a message from the future (`message.timestamp.after.max.ms`), so an event
        # that was received while the clock was wrong would become a dead letter.
        return min(self._received_ms(received_at), int(self._wall_s() * 1000))

    def _received_ms(self, received_at: object) -> int:
        if received_at == self._received[0]:
            return self._received[1]
        try:
            at_s = datetime.fromisoformat(str(received_at)).timestamp()
        except (ValueError, OverflowError):
            return 0
        self._received = (str(received_at), max(0, round(at_s * 1000)))
        return self._received[1]


def _runs(batch: Batch) -> tuple[Run, ...]:
    return batch.runs or (Run("", batch.events),)


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else msgspec.json.encode(value).decode()
