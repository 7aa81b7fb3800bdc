"""A Kafka topic; a batch is delivered when the brokers have reported that every message is stored.

The producer is idempotent, so a message that librdkafka sends again is stored once. A message that
is produced again, after a timeout or by the next producer, may be stored twice: consumers recognize
these duplicates by `messageId`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import structlog

from pixelfast.config import KafkaDestination
from pixelfast.config.packages import missing_package
from pixelfast.deliver.batches import Batch, BatchLimits, some_events
from pixelfast.deliver.kafka.client import Failed, KafkaClient, Reports
from pixelfast.deliver.kafka.messages import Messages
from pixelfast.deliver.kafka.properties import properties, set_bytes
from pixelfast.deliver.outcomes import Accepted, Held, Outcome, Partial, Rejected, Retry
from pixelfast.deliver.sender import RemoteSender
from pixelfast.errors import DestinationError
from pixelfast.kafka.connection import tls_problem
from pixelfast.kafka.errors import Meaning, error_message, meaning_of
from pixelfast.kafka.statistics import Statistics

__all__ = ["KafkaSender"]

_MIN_SET_BYTES = 2**14
_REPORT_S = 5.0  # librdkafka looks for messages that have timed out once a second
_HELD_BATCHES = 16


class KafkaSender(RemoteSender):
    """Send events to the topics of a Kafka cluster.

    A broker rejects a message set as a whole if it is too large. Its messages are then sent again,
    each in a set of its own, so that only events that are too large themselves are rejected.
    """

    blames_events = False  # brokers name bad events, and fail for other reasons

    def __init__(self, settings: KafkaDestination) -> None:
        """Send as the settings describe.

        Raises:
            DestinationError: the package confluent-kafka is not installed.
        """
        if missing := missing_package("kafka", "confluent_kafka"):
            raise DestinationError(f'type = "kafka" {missing}')
        self.limits = BatchLimits(settings.max_events, settings.max_bytes, settings.max_age_s)
        self.concurrency = settings.concurrency
        self.retry_first_s, self.retry_most_s = settings.retry_first_s, settings.retry_most_s
        self._settings = settings
        self._messages = Messages(settings)
        self._set_bytes = set_bytes(settings)
        self._statistics = Statistics(lambda *retries: self.attempts.count_retries(*retries))
        self._log = structlog.get_logger("deliver").bind(destination=settings.name)
        self._client: KafkaClient | None = None
        self._alone: KafkaClient | None = None  # sends each message in a set of its own
        self._turn = asyncio.Lock()  # batches are produced one after the other, to stay in order
        # The events of held batches that are stored, by batch: they are not sent with each retry.
        self._stored: dict[str, set[int]] = {}

    async def open(self, memory: dict[str, object]) -> None:  # noqa: ARG002 - nothing to remember
        await self.close()
        self._set_bytes = set_bytes(self._settings)
        self._stored.clear()

    async def close(self) -> None:
        await self._replace(self._client)
        alone, self._alone = self._alone, None
        await _close(alone)

    def figures(self) -> dict[str, Any]:
        return self._statistics.figures()

    # --- sending -----------------------------------------------------------------------------

    async def attempt(self, batch: Batch) -> Outcome:
        root = batch.root or batch.id
        numbers = batch.numbers or range(batch.events)
        stored = self._stored.pop(root, set())
        places: Sequence[int] = range(batch.events)
        if stored:
            places = [place for place in places if numbers[place] not in stored]
        try:
            client = await self._usable_client()
            failed = await self._send_events(client, batch, places, self._set_bytes)
            if too_large := _too_large(failed):
                for place in too_large:
                    del failed[place]
                failed |= await self._send_alone(client, batch, too_large)
        except _Unsupported as error:
            return Held(str(error))
        outcome = self._judge(client, batch, failed)
        if isinstance(outcome, Held):
            stored |= {numbers[place] for place in places if place not in failed}
            self._remember(root, stored)
            await self._replace(client)  # the next one looks up the topics again
        elif not failed:
            client.forget_errors()
        return outcome

    async def _usable_client(self) -> KafkaClient:
        if self._client is not None and self._client.unusable.done():
            await self._replace(self._client)
        if self._client is None:
            self._client = self._new_client()
        return self._client

    async def _send_events(
        self, client: KafkaClient, batch: Batch, places: Sequence[int], max_value_bytes: int
    ) -> dict[int, Failed]:
        """Send the events at some positions of a batch; return those that are not stored."""
        if not places:
            return {}
        reports = Reports()
        is_whole = len(places) == batch.events
        part = batch if is_whole else some_events(batch.lines(), batch.sources(), places)
        async with self._turn:
            await client.produce(self._messages.of(part, max_value_bytes), reports)
        await reports.wait(self._settings.timeout_s + _REPORT_S, client.unusable)
        return {
            places[number]: each
            for first, each in reports.failed.items()
            for number in range(first, first + each.events)
        }

    async def _send_alone(
        self, client: KafkaClient, batch: Batch, places: Sequence[int]
    ) -> dict[int, Failed]:
        """Send events whose message sets were too large, each message in a set of its own.

        Messages with several events are divided until only single events are too large. If the
        sets were too large and not the events, later sets are smaller.
        """
        if self._alone is None or self._alone.unusable.done():
            await _close(self._alone)
            self._alone = self._new_client(**{"batch.num.messages": 1})
        failed: dict[int, Failed] = {}
        left, max_value_bytes = places, self._set_bytes
        while left:
            max_value_bytes //= 2
            failed |= await self._send_events(self._alone, batch, left, max_value_bytes)
            left = [place for place in _too_large(failed) if failed[place].events > 1]
            for place in left:
                del failed[place]
        if len(failed) < len(places) and self._set_bytes > _MIN_SET_BYTES:
            self._set_bytes = max(_MIN_SET_BYTES, self._set_bytes // 2)
            self._log.warning("kafka_message_sets_reduced", max_bytes=self._set_bytes)
            await self._replace(client)
        return failed

    def _new_client(self, **more: int) -> KafkaClient:
        """Return a new producer; only the one without further properties has statistics."""
        if problem := tls_problem(self._settings):
            raise _Unsupported(problem)
        options = properties(self._settings, self._set_bytes)
        if more:
            options |= {"statistics.interval.ms": 0, **more}
        try:
            return KafkaClient(options, self._log, None if more else self._statistics.read)
        except Exception as error:  # a KafkaException, which is imported only where it is needed
            raise _Unsupported(_exception_message(error)) from error

    async def _replace(self, client: KafkaClient | None) -> None:
        """Close a producer; the next batch creates another one, unless that was done already."""
        if client is self._client:
            self._client = None
            await _close(client)
            self._statistics.forget()

    def _remember(self, root: str, stored: set[int]) -> None:
        if stored:
            self._stored[root] = stored
        while len(self._stored) > _HELD_BATCHES:
            del self._stored[next(iter(self._stored))]

    # --- the outcome -------------------------------------------------------------------------

    def _judge(self, client: KafkaClient, batch: Batch, failed: dict[int, Failed]) -> Outcome:
        if not failed:
            return Accepted()
        unusable = client.unusable.result() if client.unusable.done() else None
        if isinstance(unusable, Held):
            return unusable
        judged: dict[int, Rejected | Retry] = {}
        for place, each in failed.items():
            outcome = self._outcome_of(client, each)
            if isinstance(outcome, Held):
                return outcome
            judged[place] = unusable if unusable and isinstance(outcome, Retry) else outcome
        first = next(iter(judged.values()))
        is_same = len(judged) == batch.events and all(each == first for each in judged.values())
        return first if is_same and isinstance(first, Retry) else Partial.of(judged)

    def _outcome_of(self, client: KafkaClient, failed: Failed) -> Rejected | Retry | Held:
        error = failed.error
        meaning = Meaning.RETRY if error is None else meaning_of(error)
        if error is None or error.name() == "_MSG_TIMED_OUT":
            if client.denied:
                return Held(client.denied)
            why = f": {client.last_error}" if client.last_error else ""
            return Retry(f"no report within {self._settings.timeout_s:g} s{why}")
        reason = f"topic {failed.topic}: {error_message(error)}"
        if meaning is Meaning.HELD:
            return Held(reason)
        return Retry(reason) if meaning is Meaning.RETRY else Rejected(reason)


class _Unsupported(Exception):
    """librdkafka does not accept a property, or a file for TLS cannot be used."""


def _exception_message(error: Exception) -> str:
    cause = error.args[0] if error.args else ""
    return cause.str() if hasattr(cause, "str") else str(error)


def _too_large(failed: dict[int, Failed]) -> list[int]:
    """Return the positions of the events whose message set was too large, in ascending order."""
    return sorted(
        place
        for place, each in failed.items()
        if each.error is not None and meaning_of(each.error) is Meaning.TOO_LARGE
    )


async def _close(client: KafkaClient | None) -> None:
    if client is not None:
        await client.close()
