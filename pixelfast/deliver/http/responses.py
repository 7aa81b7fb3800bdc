"""What an HTTP response means for a batch."""

from __future__ import annotations

import aiohttp
import msgspec

from pixelfast.deliver.outcomes import Accepted, Held, Rejected, Retry
from pixelfast.deliver.retry import parse_retry_after

__all__ = ["KEPT_BYTES", "Response", "classify", "read_response"]

KEPT_BYTES = 1024  # of a response, for people
_PASSING = frozenset({408, 425, 429})
_REJECTING = frozenset({400, 413, 422})
_LASTING_5XX = frozenset({501, 505})


class Response(msgspec.Struct, frozen=True, gc=False):
    """A status, and as much of the body as was read."""

    status: int
    retry_after: str | None = None
    body: bytes = b""


def classify(response: Response, reason: str = "") -> Accepted | Retry | Rejected | Held:
    """Tell from a response what became of a request, by RFC 9110 section 15.

    >>> classify(Response(204))
    Accepted(memory=None)
    >>> classify(Response(503, "7"))
    Retry(reason='status 503', after_s=7.0, status=503, response=b'')

    Rejected is what sending the same once more would not mend. Held is what no event is to blame
    for: a wrong URL or credentials, a redirect (they are not followed), a method or version that is
    not spoken there. A response is kept up to 1 KiB. The default `reason` is the status.
    """
    status, kept = response.status, response.body[:KEPT_BYTES]
    reason = reason or f"status {status}"
    if 200 <= status < 300:
        return Accepted()
    if status in _PASSING or (500 <= status < 600 and status not in _LASTING_5XX):
        return Retry(reason, parse_retry_after(response.retry_after), status, kept)
    if status in _REJECTING:
        return Rejected(reason, status, kept, is_too_large=status == 413)
    return Held(reason, status, kept, is_final=status == 410)


async def read_response(response: aiohttp.ClientResponse, max_bytes: int) -> Response:
    """Read a response to its end, so that its connection can be used again; but not without end.

    A body longer than `max_bytes` costs the connection. What the status says stays said when the
    body breaks off.
    """
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in response.content.iter_any():
            chunks.append(chunk)
            size += len(chunk)
            if size > max_bytes:
                response.close()
                break
    except (aiohttp.ClientError, OSError):  # a TimeoutError is an OSError
        response.close()
    return Response(
        response.status, response.headers.get("Retry-After"), b"".join(chunks)[:max_bytes]
    )
