from collections.abc import Iterable

from pixelfast.collect.clock import Clock
from pixelfast.collect.responses import Responses
from pixelfast.collect.sources import Sources
from pixelfast.spool import SpoolWriter

class Collector:
    """Responds to requests; what all connections of one process share.

    Set `writer` before the first request: it calls back `Connections.on_stored`, so it comes last.

    Args:
        sources: the write keys, and how their pixels are read.
        responses: renders responses.
        clock: wall time for events, monotonic time for rate limits.
        trusted_proxies: networks whose X-Forwarded-For and X-Real-IP are believed.
        always_200: send 200 for every GET and POST of a pixel, also if it is rejected.
    """

    sources: Sources
    responses: Responses
    clock: Clock
    always_200: bool
    writer: SpoolWriter

    def __init__(
        self,
        sources: Sources,
        responses: Responses,
        clock: Clock,
        *,
        trusted_proxies: Iterable[str] = (),
        always_200: bool = False,
    ) -> None: ...
    def tick(self, now_s: float) -> None:
        """Once a second: renew the Date header from the seconds since 1970."""
