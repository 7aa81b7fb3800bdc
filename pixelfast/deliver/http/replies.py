"""What an HTTP reply means for a batch."""

from __future__ import annotations

import aiohttp
import msgspec

from pixelfast.deliver.outcomes import Accepted, Held, Refused, Retry
from pixelfast.deliver.retry import parse_retry_after

__all__ = ["KEPT_BYTES", "Reply", "classify", "read_reply"]

KEPT_BYTES = 1024  # of a reply, for people
_PASSING = frozenset({408, 425, 429})
_REFUSING = frozenset({400, 413, 422})
_LASTING_5XX = frozenset({501, 505})


class Reply(msgspec.Struct, frozen=True, gc=False):
    """A status, and as much of the body as was read."""

    status: int
    retry_after: str | None = None
    body: bytes = b""


def classify(reply: Reply, reason: str = "") -> Accepted | Retry | Refused | Held:
    """Tell from a reply what became of a request, by RFC 9110 section 15.

    >>> classify(Reply(204))
    Accepted(memory=None)
    >>> classify(Reply(503, "7"))
    Retry(reason='status 503', after_s=7.0, status=503, reply=b'')

    Refused is what sending the same once more would not mend. Held is what no event is to blame
    for: a wrong URL or credentials, a redirect (they are not followed), a method or version that is
    not spoken there. A reply is kept up to 1 KiB. The default `reason` is the status.
    """
    status, kept = reply.status, reply.body[:KEPT_BYTES]
    reason = reason or f"status {status}"
    if 200 <= status < 300:
        return Accepted()
    if status in _PASSING or (500 <= status < 600 and status not in _LASTING_5XX):
        return Retry(reason, parse_retry_after(reply.retry_after), status, kept)
    if status in _REFUSING:
        return Refused(reason, status, kept, is_too_large=status == 413)
    return Held(reason, status, kept, is_final=status == 410)


async def read_reply(response: aiohttp.ClientResponse, most_bytes: int) -> Reply:
    """Read a reply to its end, so that its connection can be used again; but not without end.

    A body longer than `most_bytes` costs the connection. What the status says stays said when the
    body breaks off.
    """
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in response.content.iter_any():
            chunks.append(chunk)
            size += len(chunk)
            if size > most_bytes:
                response.close()
                break
    except (aiohttp.ClientError, OSError):  # a TimeoutError is an OSError
        response.close()
    return Reply(
        response.status, response.headers.get("Retry-After"), b"".join(chunks)[:most_bytes]
    )
