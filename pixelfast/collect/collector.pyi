from collections.abc import Iterable

from pixelfast.collect.clock import Clock
from pixelfast.collect.proxies import TrustedProxies
from pixelfast.collect.rejections import RejectionLog
from pixelfast.collect.responses import Responses
from pixelfast.collect.sources import Sources
from pixelfast.spool import SpoolWriter

__all__ = ["Collector"]

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
    def follow(self, trusted_proxies: Iterable[str], always_200: bool, health_path: str) -> None:
        """Follow other settings, between two requests; they mean what they mean for a new one."""

    def tick(self, now_s: float) -> None:
        """Renew the Date header; to be called once a second.

        Args:
            now_s: seconds since 1970.
        """
