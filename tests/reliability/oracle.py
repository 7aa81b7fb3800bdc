"""The outside observer: sends numbered pixels, records which were acknowledged with 200, and is the
destination that they must reach.

It knows only the ports of the server, so no mistake of the server can mislead it. The fields of an
event follow from its number, so received events are compared field by field without keeping those
that were sent:

    missing   acknowledged with 200, but not received
    changed   received with other fields than were sent
    invented  received, but never sent
    twice     received again, which is allowed and counted

Sending and receiving happen in a separate thread, while the test continues.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import threading
import time
import uuid
from array import array
from collections import Counter
from collections.abc import Coroutine, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote
from zlib import crc32

from tests.fake_destination import FakeDestination, FakeResponse, Request
from tests.load import Load
from tests.waiting import wait_until

__all__ = ["WRITE_KEY", "Ledger", "Oracle", "Verdict"]

WRITE_KEY = "wk-oracle"
_TEXT = "naïve café ☃ 北京 \"quoted\" \\ back, comma; 100 % <b> 'x' " * 12


def fields_of(number: int) -> dict[str, Any]:
    """Return the fields that the event with this number must have at every destination."""
    mixed = crc32(str(number).encode())
    return {
        "type": "track",
        "event": f"Seen {number % 97}",
        "anonymousId": f"a{mixed:x}",
        "properties": {"number": number, "text": _TEXT[: 10 + mixed % 500].strip()},
    }


@dataclass
class Verdict:
    """The outcome of all events so far, over all destinations."""

    sent: int = 0
    acked: int = 0
    missing: int = 0
    changed: int = 0
    invented: int = 0
    twice: int = 0
    received: int = 0

    def __iadd__(self, other: Verdict) -> Self:
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self

    @property
    def is_clean(self) -> bool:
        return not (self.missing or self.changed or self.invented)


class Ledger:
    """The events that one destination has received, by number."""

    def __init__(self, run: str) -> None:
        self.run = run
        self.counts = bytearray()
        self.taken = 0
        self.twice = 0
        self.changed: list[str] = []
        self.invented: list[str] = []

    def take(self, event: dict[str, Any], sent: int) -> int | None:
        """Record an event; return its number, or None if it was not sent by the oracle."""
        self.taken += 1
        one = str(event.get("messageId"))
        run, _, digits = one.rpartition("-")
        if run != self.run or not digits.isdigit() or int(digits) >= sent:
            self.invented.append(one)
            return None
        number = int(digits)
        expected = fields_of(number)
        if expected != {name: event.get(name) for name in expected}:
            self.changed.append(one)
        if number >= len(self.counts):
            self.counts.extend(bytes(number + 1 - len(self.counts) + 4096))
        self.twice += self.counts[number] > 0
        self.counts[number] = 1
        return number

    def has(self, number: int) -> bool:
        return number < len(self.counts) and self.counts[number] > 0

    def take_files(self, folder: Path, sent: int) -> None:
        """Record the complete lines of the files of a file destination."""
        for path in sorted(folder.glob("*.ndjson")):
            with path.open("rb") as file:
                for line in file:
                    if line.endswith(b"\n"):
                        self.take(json.loads(line), sent)


class Pixels(Load):
    """A load of numbered events."""

    def __init__(self, oracle: Oracle, **options: Any) -> None:
        super().__init__(0, WRITE_KEY, **options)
        self.acks = bytearray()  # a byte per event: whether it was acknowledged with 200
        self.acked_count = 0
        self.seconds = array("d")
        self.failures: Counter[str] = Counter()
        self.is_listening = True
        self._oracle = oracle

    def next_target(self) -> tuple[str, str]:
        number = len(self.acks)
        self.acks.append(0)
        fields = fields_of(number)
        return str(number), (
            f"/pixel/v1/track?writeKey={self.write_key}&messageId={self._oracle.run}-{number}"
            f"&anonymousId={fields['anonymousId']}&event={quote(fields['event'])}"
            f"&properties.number={number}&properties.text={quote(fields['properties']['text'])}"
        )

    def on_response(self, one: str, status: int, seconds: float) -> None:
        if status == 200 and self.is_listening:
            number = int(one)
            self.acks[number] = 1
            self.acked_count += 1
            self.seconds.append(seconds)
            self._oracle.expect(number)
        elif status != 200:
            self.rejected[status] = self.rejected.get(status, 0) + 1

    def on_failure(self, error: Exception, responses: int) -> None:
        if isinstance(error, ConnectionRefusedError):
            kind = "refused"
        elif isinstance(error, ConnectionError):
            kind = "reset"
        elif isinstance(error, asyncio.IncompleteReadError) and responses and not error.partial:
            # Closed between two requests, as a server may at any time (RFC 9112 section 9.5): the
            # client sends the request again, over a new connection.
            kind = "closed between requests"
        else:
            kind = "failed"
        self.failures[kind] += 1


class Oracle:
    """Sender and receiver. `mood` is what the receiver does with a batch:

    "takes" accepts it; "refuses" rejects it with a 503 and does not count it; "cuts" accepts it and
    then closes the connection, so that delivery cannot know; "moody" does any of these.
    """

    def __init__(
        self, *, connections: int = 8, pause_s: float = 0.002, fresh: int = 0, seed: int = 1
    ) -> None:
        self.run = uuid.uuid4().hex[:8]
        self.mood = "takes"
        self.ledger = Ledger(self.run)
        self.pending: set[int] = set()  # acknowledged with 200, not received yet
        self.pixels = Pixels(self, connections=connections, pause_s=pause_s, fresh=fresh)
        self._random = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._destination: FakeDestination
        self._thread = threading.Thread(target=self._loop.run_forever, name="oracle")

    def __enter__(self) -> Self:
        self._thread.start()
        self._destination = self.call(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(TimeoutError):
            self.pause()
        self.call(self._destination.__aexit__())
        self.call(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def call(self, coroutine: Coroutine[Any, Any, Any], timeout_s: float = 60.0) -> Any:
        """Run a coroutine in the oracle's thread and wait for its end."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout_s)

    @property
    def url(self) -> str:
        """The URL of the receiver."""
        return self._destination.url

    @property
    def receiver_port(self) -> int:
        return self._destination.port

    @property
    def sent(self) -> int:
        return len(self.pixels.acks)

    @property
    def acked(self) -> int:
        return self.pixels.acked_count

    @property
    def refused(self) -> int:
        return sum(self.pixels.rejected.values())

    def aim(self, port: int) -> None:
        """Send to this port from the next connection on."""
        self.pixels.port = port

    def resume(self) -> None:
        """Send until `pause`."""
        self.call(self._start())

    def pause(self) -> None:
        """Stop sending; requests in progress are completed first."""
        self.call(self.pixels.stop())

    def until_acked(self, count: int, timeout_s: float = 30.0) -> None:
        """Wait until this many more were acknowledged with 200."""
        wanted = self.acked + count
        wait_until(lambda: self.acked >= wanted, f"{count} more 200 responses", timeout_s)

    def until_refused(self, count: int, timeout_s: float = 30.0) -> None:
        """Wait until this many more pixels were rejected."""
        wanted = self.refused + count
        wait_until(lambda: self.refused >= wanted, f"{count} more rejections", timeout_s)

    @contextlib.contextmanager
    def deaf(self) -> Iterator[None]:
        """Count no response as a 200 meanwhile, because a machine without power sends none."""
        self.call(self._listen(False))
        try:
            yield
        finally:
            self.call(self._listen(True))

    def until_received(self, patience_s: float = 10.0) -> None:
        """Wait until nothing is missing at the receiver, or nothing arrived for `patience_s`."""
        count, latest_s = self.ledger.taken, time.monotonic()
        while self.pending and time.monotonic() - latest_s < patience_s:
            time.sleep(0.01)
            if count != self.ledger.taken:
                count, latest_s = self.ledger.taken, time.monotonic()

    def expect(self, number: int) -> None:
        if not self.ledger.has(number):
            self.pending.add(number)

    def verdict(self) -> Verdict:
        """Return the outcome of the events at the receiver."""
        return self.judge(self.ledger)

    def judge(self, ledger: Ledger, excused: Iterable[str] = ()) -> Verdict:
        """Return the outcome of the events at one destination; it rejected the `excused` ones."""
        allowed = set(excused)
        acks, counts = self.pixels.acks, ledger.counts.ljust(len(self.pixels.acks), b"\0")
        missing = [n for n, is_acked in enumerate(acks) if is_acked and not counts[n]]
        return Verdict(
            sent=len(acks),
            acked=self.acked,
            missing=sum(f"{self.run}-{n}" not in allowed for n in missing),
            changed=len(ledger.changed),
            invented=len(ledger.invented),
            twice=ledger.twice,
            received=sum(ledger.counts),
        )

    async def _start(self) -> None:
        self.pixels.start()

    async def _listen(self, is_listening: bool) -> None:
        self.pixels.is_listening = is_listening

    async def _open(self) -> FakeDestination:
        return await FakeDestination(self._respond).__aenter__()

    def _respond(self, request: Request) -> FakeResponse:
        self._destination.requests.clear()
        mood = self.mood
        if mood == "moody":
            mood = self._random.choice(["takes", "takes", "takes", "refuses", "cuts"])
        if mood == "refuses":
            return FakeResponse(503)
        for event in request.events():
            number = self.ledger.take(event, self.sent)
            if number is not None:
                self.pending.discard(number)
        return FakeResponse(then="reset", raw=b"") if mood == "cuts" else FakeResponse()
