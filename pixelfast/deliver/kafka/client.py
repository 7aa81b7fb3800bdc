"""A producer of librdkafka on the event loop, and the reports about its messages.

librdkafka sends messages in its own threads. Reports, errors, log lines and statistics wait in its
queue until `poll` is called. A Python thread that waits for them would have to acquire the GIL for
each of them, which takes 10 ms if the event loop is busy. Therefore the event loop polls: every
millisecond while messages are under way, and less often if no reports arrive.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from pixelfast.deliver.kafka.messages import Message
from pixelfast.deliver.outcomes import Held, Retry
from pixelfast.kafka.errors import ALL_BROKERS_DOWN, error_message, is_denial
from pixelfast.kafka.logger import KafkaLogger

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Producer

__all__ = ["Failed", "KafkaClient", "Reports"]

_MIN_POLL_PAUSE_S = 0.001
_MAX_POLL_PAUSE_S = 0.02
_POLL_SHARE = 0.05  # the pause is at most this share of the time since the last report
_IDLE_POLL_S = 0.25  # for errors, log lines and statistics
_TURN_S = 0.002  # of the event loop, before other tasks run
_CHECKED_MESSAGES = 32  # between two looks at the clock
_CLOSE_S = 2.0


class Failed(NamedTuple):
    """Why the `events` events of a message are not stored; `error` is None without a report."""

    events: int
    error: KafkaError | None
    topic: str


class Reports:
    """Collect the reports about the messages of one attempt.

    Attributes:
        failed: why messages were not stored, by the position of their first event.
    """

    def __init__(self) -> None:
        self.failed: dict[int, Failed] = {}
        self._missing: dict[int, tuple[int, str]] = {}  # events and topic, by the first event
        self._is_complete = False
        self._all: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def expect(self, message: Message) -> Callable[[KafkaError | None, object], None]:
        """Return the function that librdkafka calls with the report of a message."""
        self._missing[message.first] = (message.events, message.topic)
        return partial(self._report, message.first)

    def _report(self, first: int, error: KafkaError | None, _message: object) -> None:
        events, topic = self._missing.pop(first)
        if error is not None:
            self.failed[first] = Failed(events, error, topic)
        if self._is_complete and not self._missing and not self._all.done():
            self._all.set_result(None)

    def fail(self, first: int, error: KafkaError) -> None:
        """Note that a message was not accepted for sending."""
        self._report(first, error, None)

    def withdraw(self, first: int) -> None:
        """Expect no report, because the message was not queued."""
        del self._missing[first]

    async def wait(self, timeout_s: float, failed: asyncio.Future[Any]) -> None:
        """Wait for the reports of all messages; those that have none then have failed.

        Ends early if `failed` is done.
        """
        self._is_complete = True
        if self._missing:
            await asyncio.wait(
                {self._all, failed}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
        for first, (events, topic) in self._missing.items():
            self.failed[first] = Failed(events, None, topic)


class KafkaClient:
    """One producer.

    Attributes:
        unusable: done with the reason if it cannot send any more, and must be replaced.
        last_error: the last error of a connection; "" if there was none, or if it was forgotten.
        denied: the last error of a connection that one side rejected.
    """

    def __init__(
        self,
        properties: dict[str, str | int | bool],
        log: structlog.typing.FilteringBoundLogger,
        on_statistics: Callable[[str], None] | None = None,
    ) -> None:
        """Create the producer. Must be called on the event loop.

        Raises:
            KafkaException: librdkafka does not accept a property.
        """
        from confluent_kafka import Producer

        self.unusable: asyncio.Future[Held | Retry] = asyncio.get_running_loop().create_future()
        self.last_error = self.denied = ""
        self._log = log
        callbacks: dict[str, Any] = {
            "error_cb": self._on_error,
            "logger": KafkaLogger(log, self._on_lost_connection),
        }
        if on_statistics is not None:
            callbacks["stats_cb"] = on_statistics
        self._producer: Producer | None = Producer({**properties, **callbacks})
        self._wake = asyncio.Event()
        self._serving = asyncio.create_task(self._serve())
        self._serving.add_done_callback(self._on_served)

    async def produce(self, messages: Iterable[Message], reports: Reports) -> None:
        """Queue messages for sending; wait while the queue is full.

        Stops early if the producer has become unusable.
        """
        until_s = time.monotonic() + _TURN_S
        for number, message in enumerate(messages):
            while not self._put(message, reports):
                self._wake.set()
                await asyncio.sleep(_MIN_POLL_PAUSE_S)
                until_s = time.monotonic() + _TURN_S
            if not number % _CHECKED_MESSAGES:
                self._wake.set()
                if time.monotonic() >= until_s:
                    await asyncio.sleep(0)
                    until_s = time.monotonic() + _TURN_S

    def _put(self, message: Message, reports: Reports) -> bool:
        """Queue a message; return False if the queue is full."""
        from confluent_kafka import KafkaException

        on_delivery = reports.expect(message)
        if self._producer is None or self.unusable.done():
            return True  # no report follows
        try:
            self._producer.produce(
                message.topic,
                message.value,
                message.key,
                on_delivery=on_delivery,
                timestamp=message.timestamp_ms,
                headers=message.headers,
            )
        except BufferError:
            reports.withdraw(message.first)
            return False
        except KafkaException as error:
            reports.fail(message.first, error.args[0])
        return True

    async def close(self) -> None:
        """Stop sending. Messages without a report may have been stored.

        Ending the producer waits for its threads, which may be connecting. If that takes more than
        2 s, they are abandoned.
        """
        self._serving.cancel()
        await asyncio.wait({self._serving})
        self._fail(Retry("the producer was replaced"))
        producer, self._producer = self._producer, None
        if producer is None:
            return
        producer.purge(blocking=False)
        producer.poll(0)  # calls the callbacks of the purged messages
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        ending = threading.Thread(target=_end, args=([producer], loop, ended), daemon=True)
        ending.start()
        del producer
        await asyncio.wait({ended}, timeout=_CLOSE_S)
        if ended.done():
            ending.join()  # it returns at once

    def forget_errors(self) -> None:
        """Forget the errors of connections, because all messages of a batch are stored."""
        self.last_error = self.denied = ""

    # --- what librdkafka reports -------------------------------------------------------------

    async def _serve(self) -> None:
        # A local variable for the producer would live as long as the exception that ends this task.
        # A garbage collection would then end the producer, and block the event loop meanwhile.
        served_s = time.monotonic()
        while self._producer is not None:
            if self._producer.poll(0):
                served_s = time.monotonic()
            if len(self._producer):
                pause_s = _POLL_SHARE * (time.monotonic() - served_s)
                await asyncio.sleep(min(_MAX_POLL_PAUSE_S, max(_MIN_POLL_PAUSE_S, pause_s)))
                continue
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_IDLE_POLL_S):
                    await self._wake.wait()
            served_s = time.monotonic()

    def _on_served(self, serving: asyncio.Task[None]) -> None:
        """Replace the producer after a fatal error or a bug in a callback, which `poll` raises."""
        from confluent_kafka import KafkaException

        error = None if serving.cancelled() else serving.exception()
        if isinstance(error, KafkaException):  # confluent-kafka does not call `error_cb` for it
            self._fail(Held(error_message(error.args[0])))
        elif error is not None:
            self._log.error("kafka_client_failed", exc_info=error)
            self._fail(Retry("the producer failed because of an unexpected error"))

    def _on_error(self, error: KafkaError) -> None:
        if error.name() == ALL_BROKERS_DOWN:
            if self.denied:
                self._fail(Held(self.denied))
            return
        self.last_error = error_message(error)
        if is_denial(error):
            self.denied = self.last_error

    def _on_lost_connection(self, words: str) -> None:
        self.last_error = words

    def _fail(self, outcome: Held | Retry) -> None:
        if not self.unusable.done():
            self.unusable.set_result(outcome)


def _end(
    producers: list[Producer], loop: asyncio.AbstractEventLoop, ended: asyncio.Future[None]
) -> None:
    """Drop the last reference to a producer, which ends it; does not hold the GIL meanwhile."""
    producers.clear()
    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(_note, ended)


def _note(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)
