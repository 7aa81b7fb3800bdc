"""Log lines of librdkafka, as events of the log."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from pixelfast.kafka.errors import line_message

__all__ = ["KafkaLogger", "SilentLogger"]

_WARNING = 30  # level of `logging`; lower ones are notices
# librdkafka warns for each producer that this is experimental; that of `[cluster]` needs it.
_GAPLESS = "Configuration property enable.gapless.guarantee is experimental"


class KafkaLogger:
    """Logs the lines of a client of librdkafka, which calls it as a `logging.Logger`.

    `on_lost_connection` is called with the reason why a connection failed or ended. librdkafka does
    not report all of these lines as errors.
    """

    def __init__(
        self,
        log: structlog.typing.FilteringBoundLogger,
        on_lost_connection: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._log = log
        self._on_lost_connection = on_lost_connection

    def log(self, level: int, form: str, *arguments: str) -> None:
        """Log one line; the first argument is its facility, the last one its text."""
        if arguments[:1] == ("FAIL",):
            self._on_lost_connection(line_message(arguments[-1]))
        text = form % arguments if arguments else form
        if _GAPLESS in text:
            return
        if level >= _WARNING:
            self._log.warning("kafka_warning", error=text)
        else:
            self._log.info("kafka_notice", line=text)


class SilentLogger:
    """A logger that logs nothing; without a logger, librdkafka writes to standard error."""

    def log(self, *_: object) -> None:
        """Drop a line."""
