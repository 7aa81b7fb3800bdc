from collections.abc import Iterable

from pixelfast import config
from pixelfast.collect.budgets import RateBudgets
from pixelfast.collect.clock import Clock
from pixelfast.collect.proxies import TrustedProxies
from pixelfast.collect.rejections import RejectionLog
from pixelfast.collect.responses import Responses
from pixelfast.errors import RequestError
from pixelfast.event import Rules
from pixelfast.spool import SpoolWriter

__all__ = ["ActiveSource", "Collector", "RateLimited", "Sources"]

class RateLimited(RequestError):
    """429: the source is over its rate limit. `retry_after_s` is in whole seconds."""

    retry_after_s: int

    def __init__(self, retry_after_s: int) -> None: ...

class ActiveSource:
    """One source: its rules, its rate limit, and its counts.

    Args:
        name: its name in the settings.
        number: its place among the names of the spool writer.
        settings: its settings; None: the source of requests without a known write key.
        budgets: has room for its rate limit; needed only with one.

    Attributes:
        accepted: events accepted.
        refused: rejected requests by reason.
        warned: warnings by reason.
    """

    accepted: int

    def __init__(
        self,
        name: str,
        number: int,
        settings: config.Source | None = None,
        budgets: RateBudgets | None = None,
    ) -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def number(self) -> int: ...
    @property
    def rules(self) -> Rules: ...
    @property
    def is_enabled(self) -> bool: ...
    @property
    def refused(self) -> dict[str, int]: ...
    @property
    def warned(self) -> dict[str, int]: ...

class ActiveKey:
    """One write key of a source, and when it expires; for compiled code."""

class Sources:
    """Find the source of a write key.

    Args:
        settings: the sources, in the order of their numbers.
        budgets: the rate limits that other collectors share; None: this process is the only one.

    Attributes:
        all: the sources.
        nobody: counts requests without a known write key.
    """

    def __init__(
        self, settings: Iterable[config.Source], budgets: RateBudgets | None = None
    ) -> None: ...
    @property
    def all(self) -> list[ActiveSource]: ...
    @property
    def nobody(self) -> ActiveSource: ...
    def check(self, write_key: str, now_ms: int) -> ActiveSource:
        """Return the source that accepts pixels with a write key now, whatever its rate.

        Args:
            write_key: the key, decoded.
            now_ms: milliseconds since 1970.

        Raises:
            RequestError: 401, the key is unknown or has expired; 404, the source is disabled.
        """

class Collector:
    """Responds to requests; what all connections of one process share.

    Set `writer` before the first request: it calls back `Connections.on_stored`, so it comes last.

    Args:
        sources: the write keys, and how their pixels are read.
        responses: renders responses.
        clock: wall time for events, monotonic time for rate limits.
        trusted_proxies: networks whose X-Forwarded-For, X-Real-IP and `message_id_header` are
            believed; "unix:" for the peers of Unix sockets.
        message_id_header: the header whose value becomes the messageId of an event that has none;
            empty: there is none.
        always_200: send 200 for every GET and POST of a pixel, also if it is rejected.
        health_path: the path of the health check; empty: there is none.
        rejections: logs a sample of the rejected pixels; None: none is logged.
    """

    writer: SpoolWriter
    is_leaving: bool
    """Whether the health check fails although events can be stored."""

    def __init__(
        self,
        sources: Sources,
        responses: Responses,
        clock: Clock,
        *,
        trusted_proxies: Iterable[str] = (),
        message_id_header: str = "",
        always_200: bool = False,
        health_path: str = "",
        rejections: RejectionLog | None = None,
    ) -> None: ...
    @property
    def sources(self) -> Sources: ...
    @property
    def responses(self) -> Responses: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def proxies(self) -> TrustedProxies: ...
    @property
    def message_id_header(self) -> bytes: ...
    @property
    def always_200(self) -> bool: ...
    @property
    def rejections(self) -> RejectionLog | None: ...
    def tick(self, now_s: float) -> None:
        """Renew the Date header; to be called once a second.

        Args:
            now_s: seconds since 1970.
        """
