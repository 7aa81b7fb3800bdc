"""Batches as POST requests over keep-alive connections."""

from __future__ import annotations

import asyncio
import gzip
import io
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
from multidict import CIMultiDict

from pixelfast import __version__
from pixelfast.config import HttpDestination
from pixelfast.deliver.batches import Batch, Limits
from pixelfast.deliver.destinations.base import Sender
from pixelfast.deliver.outcomes import Accepted, Outcome, Retry
from pixelfast.deliver.retry import parse_retry_after

__all__ = ["HttpSender", "Timeouts"]

_CONTENT_TYPES = {
    "json_array": "application/json",
    "ndjson": "application/x-ndjson",
    "single": "application/json",
}
_MOST_ANSWER_BYTES = 65536
_SINGLE_CONCURRENCY = 16
_GZIP_LEVEL = 5
_SENT_AT_ONCE_BYTES = 2**20  # larger ones go out in pieces, so that the loop is not held up


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Bounds of one request, seconds."""

    total_s: float = 30.0
    connect_s: float = 5.0


class HttpSender(Sender):
    """Sends batches to one URL.

    `wrap` is what stands before and behind the events of a `json_array`, for APIs that want them
    inside an object.
    """

    def __init__(
        self,
        url: str,
        form: str,
        limits: Limits,
        *,
        headers: Mapping[str, str] | None = None,
        gzip: bool = False,
        timeouts: Timeouts | None = None,
        wrap: tuple[bytes, bytes] = (b"[", b"]"),
        retry_s: tuple[float, float] = (0.5, 60.0),
    ) -> None:
        self.url = url
        self.limits = limits
        self.retry_first_s, self.retry_most_s = retry_s
        self._form = form
        self._gzip = gzip
        self._wrap = wrap
        self._timeouts = timeouts or Timeouts()
        self._headers = CIMultiDict(
            {"User-Agent": f"pixelfast/{__version__}", "Content-Type": _CONTENT_TYPES[form]}
        )
        if gzip:
            self._headers["Content-Encoding"] = "gzip"
        for name, text in (headers or {}).items():
            self._headers[name] = text
        self._session: aiohttp.ClientSession | None = None
        self._tried: Batch | None = None  # `single`: the batch that the last try was of
        self._unsent: list[bytes] = []  # and what it left of it

    @classmethod
    def from_settings(cls, settings: HttpDestination) -> HttpSender:
        """The sender of a `type = "http"` destination."""
        headers = CIMultiDict(settings.headers)
        if settings.username:
            auth = aiohttp.encode_basic_auth(settings.username, settings.password or "")
            headers.setdefault("Authorization", auth)
        elif settings.bearer_token:
            headers.setdefault("Authorization", f"Bearer {settings.bearer_token}")
        return cls(
            settings.url,
            settings.format,
            Limits(settings.max_events, settings.max_bytes, settings.max_age_s),
            headers=headers,
            gzip=settings.gzip,
            timeouts=Timeouts(settings.timeout_s, settings.connect_timeout_s),
            retry_s=(settings.retry_first_s, settings.retry_most_s),
        )

    async def open(self, memory: dict[str, object]) -> None:  # noqa: ARG002 - nothing to remember
        self._tried, self._unsent = None, []
        if self._session is not None:
            await self._session.close()
        timeouts = self._timeouts
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=timeouts.total_s, connect=timeouts.connect_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Accept-Encoding",),
            auto_decompress=False,
        )

    async def send(self, batch: Batch) -> Outcome:
        if self._form == "ndjson":
            return await self._post(batch.ndjson())
        if self._form == "json_array":
            return await self._post(batch.joined(*self._wrap))
        return await self._post_each(batch)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _post_each(self, batch: Batch) -> Outcome:
        """One request an event; a second try goes on with those that were not accepted."""
        waiting = self._unsent if batch is self._tried else batch.lines()
        self._tried, self._unsent = None, []
        waiting.reverse()
        failed: list[tuple[bytes, Retry]] = []

        async def work() -> None:
            while waiting and len(failed) < _SINGLE_CONCURRENCY:
                event = waiting.pop()
                outcome = await self._post(event)
                if isinstance(outcome, Retry):
                    failed.append((event, outcome))

        async with asyncio.TaskGroup() as group:
            for _ in range(min(_SINGLE_CONCURRENCY, len(waiting))):
                group.create_task(work())
        if not failed:
            return Accepted()
        self._tried = batch
        self._unsent = [event for event, _ in failed] + waiting[::-1]
        return Retry(failed[0][1].reason, max(outcome.after_s for _, outcome in failed))

    async def _post(self, body: bytes) -> Outcome:
        assert self._session is not None, "open() comes first"
        if self._gzip:
            # Without its time: a batch has the same bytes on every try.
            body = await self.in_thread(gzip.compress, body, _GZIP_LEVEL, mtime=0)
        try:
            async with self._session.post(
                self.url,
                data=body if len(body) <= _SENT_AT_ONCE_BYTES else io.BytesIO(body),
                headers=self._headers,
                allow_redirects=False,
            ) as answer:
                await _read_away(answer)
                if 200 <= answer.status < 300:
                    return Accepted()
                after_s = parse_retry_after(answer.headers.get("Retry-After"))
                return Retry(f"status {answer.status}", after_s)
        except aiohttp.ConnectionTimeoutError:
            return Retry(f"no connection within {self._timeouts.connect_s:g} s")
        except TimeoutError:
            return Retry(f"no answer within {self._timeouts.total_s:g} s")
        except (aiohttp.ClientError, OSError) as error:
            return Retry(_describe(error))


def _describe(error: Exception) -> str:
    """What went wrong, without the URL: its query may be a secret."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"{error.host}:{error.port}: {error.os_error.strerror or error.os_error}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__


async def _read_away(answer: aiohttp.ClientResponse) -> None:
    """Read an answer to its end, so that its connection can be used again; but not without end.

    What the status says stays said when the body breaks off.
    """
    read = 0
    try:
        async for chunk in answer.content.iter_any():
            read += len(chunk)
            if read > _MOST_ANSWER_BYTES:
                answer.close()
                return
    except (aiohttp.ClientError, OSError):
        answer.close()
