"""Requests about topics and consumer groups."""

from __future__ import annotations

import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from pixelfast.config import Cluster
from pixelfast.kafka.connection import admin_properties
from pixelfast.kafka.errors import ALL_BROKERS_DOWN, is_denial, timed_out
from pixelfast.kafka.logger import KafkaLogger

if TYPE_CHECKING:
    from confluent_kafka import KafkaError

__all__ = ["Admin"]

_POLL_S = 0.1
_DOWN_S = 1.0  # a name can have several addresses, of which one at a time is tried
_Result = TypeVar("_Result")


class Admin:
    """A client for requests about topics and consumer groups.

    Attributes:
        client: the client, whose methods return futures.
    """

    def __init__(self, settings: Cluster, log: Any) -> None:
        """Start connecting.

        Raises:
            KafkaException: librdkafka does not accept a property.
        """
        from confluent_kafka.admin import AdminClient

        self._error: KafkaError | None = None
        self._down_s = float("inf")  # since when no broker accepts a connection
        callbacks: dict[str, Any] = {"error_cb": self._on_error}
        self.client = AdminClient(
            {**admin_properties(settings), **callbacks}, logger=KafkaLogger(log)
        )

    def wait(
        self, future: Future[_Result], timeout_s: float, *, is_patient: bool = True
    ) -> _Result:
        """Return the result of a request. Blocks.

        Unless `is_patient`, it waits only a second for brokers of which none accepts a connection.

        Raises:
            KafkaException: it has failed. If no broker has responded, this is the error of a
                connection, which says why. A wrong password is reported at once.
        """
        from confluent_kafka import KafkaException

        self._error, self._down_s = None, float("inf")
        until_s = time.monotonic() + timeout_s
        while not future.done():
            self.client.poll(_POLL_S)
            if self._error is not None and is_denial(self._error):
                raise KafkaException(self._error)
            is_down = time.monotonic() >= self._down_s + _DOWN_S and not is_patient
            if is_down or time.monotonic() >= until_s:
                raise KafkaException(self._error) if self._error is not None else timed_out()
        return future.result()

    def _on_error(self, error: KafkaError) -> None:
        if error.name() == ALL_BROKERS_DOWN:
            self._down_s = min(self._down_s, time.monotonic())
        else:
            self._error = error
