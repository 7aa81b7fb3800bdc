from collections.abc import Iterable

from pixelfast.collect.clock import Clock
from pixelfast.collect.proxies import TrustedProxies
from pixelfast.collect.rejections import RejectionLog
from pixelfast.collect.responses import Responses
from pixelfast.collect.sources import Sources
from pixelfast.spool import SpoolWriter

__all__ = ["Collector"]

class Collector:
    """Respond to the requests of all connections of one process.

    Set `writer` before the first request. It is not an argument because it needs
    `Connections.on_stored`, and the connections need the collector.

    Args:
        sources: the write keys and the rules of their sources.
        responses: renders responses.
        clock: wall time for events, monotonic time for rate limits.
        trusted_proxies: networks whose X-Forwarded-For, X-Real-IP and `message_id_header` headers
            are trusted; "unix:" for the peers of Unix sockets.
        message_id_header: the header whose value becomes the messageId of an event that has none;
            empty to use no header.
        always_200: respond with 200 to every GET and POST of a pixel, even if it is rejected.
        health_path: the path of the health check; empty for none.
        rejections: logs a sample of the rejected pixels; None to log none.
    """

    writer: SpoolWriter
    fails_health_checks: bool
    """Whether health checks fail although events can be stored."""

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
    def follow(self, trusted_proxies: Iterable[str], always_200: bool, health_path: str) -> None:
        """Apply new settings, between two requests; they have the meaning of the constructor's."""

    def tick(self, now_s: float) -> None:
        """Renew the Date header. Call this once per second.

        Args:
            now_s: the time in seconds since 1970.
        """

    def untemplated_events(self) -> dict[str, int]:
        """Return the numbers of events that no template has written, by reason."""
