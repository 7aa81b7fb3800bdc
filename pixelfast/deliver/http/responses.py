"""The meaning of an HTTP response for a batch."""

from __future__ import annotations

import aiohttp
import msgspec

from pixelfast.deliver.outcomes import Accepted, Held, Rejected, Retry
from pixelfast.deliver.retry import parse_retry_after

__all__ = ["KEPT_BYTES", "Response", "classify", "read_response"]

KEPT_BYTES = 1024  # of a response, for the log and dead letters
_TEMPORARY = frozenset({408, 425, 429})
_REJECTING = frozenset({400, 413, 422})
_LASTING_5XX = frozenset({501, 505})


class Response(msgspec.Struct, frozen=True, gc=False):
    """An HTTP response, and as much of its body as was read."""

    status: int
    retry_after: str | None = None
    body: bytes = b""


def classify(response: Response, reason: str = "") -> Accepted | Retry | Rejected | Held:
    """Return the outcome of a request with this response, by RFC 9110 section 15.

    >>> classify(Response(204))
    Accepted(memory=None)
    >>> classify(Response(503, "7"))
    Retry(reason='status 503', after_s=7.0, status=503, response=b'')

    Rejected means that sending the same again would fail again. Held means that no event is to
    blame: a wrong URL or wrong credentials, a redirect (redirects are not followed), or a method or
    version that the server does not support. The first 1 KiB of the body is kept. The default
    `reason` is the status.
    """
    status, kept = response.status, response.body[:KEPT_BYTES]
    reason = reason or f"status {status}"
    if 200 <= status < 300:
        return Accepted()
    if status in _TEMPORARY or (500 <= status < 600 and status not in _LASTING_5XX):
        return Retry(reason, parse_retry_after(response.retry_after), status, kept)
    if status in _REJECTING:
        return Rejected(reason, status, kept, is_too_large=status == 413)
    return Held(reason, status, kept, is_final=status == 410)


async def read_response(response: aiohttp.ClientResponse, max_bytes: int) -> Response:
    """Read a response to its end, so that its connection can be reused, but at most `max_bytes`.

    The connection of a longer response is closed. If the body breaks off, the status still counts.
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
