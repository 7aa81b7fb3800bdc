"""Batches as POST requests over keep-alive connections."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp

from pixelfast import __version__
from pixelfast.config import HttpDestination
from pixelfast.deliver.batches import Batch, Limits
from pixelfast.deliver.destinations.base import Sender
from pixelfast.deliver.retry import Accepted, Outcome, Retry, parse_retry_after

__all__ = ["HttpSender", "Timeouts"]

_CONTENT_TYPES = {
    "json_array": "application/json",
    "ndjson": "application/x-ndjson",
    "single": "application/json",
}
_MOST_ANSWER_BYTES = 65536
_SINGLE_CONCURRENCY = 16
_GZIP_LEVEL = 5


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
        self._headers = {
            "User-Agent": f"pixelfast/{__version__}",
            "Content-Type": _CONTENT_TYPES[form],
            **({"Content-Encoding": "gzip"} if gzip else {}),
            **(headers or {}),
        }
        self._session: aiohttp.ClientSession | None = None
        self._unsent: list[bytes] = []  # `single`: what the last try of this batch left

    @classmethod
    def from_settings(cls, settings: HttpDestination) -> HttpSender:
        """The sender of a `type = "http"` destination."""
        headers = dict(settings.headers)
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
        waiting = self._unsent or batch.lines()
        failed: list[tuple[bytes, Retry]] = []

        async def work() -> None:
            while waiting and len(failed) < _SINGLE_CONCURRENCY:
                event = waiting.pop(0)
                outcome = await self._post(event)
                if isinstance(outcome, Retry):
                    failed.append((event, outcome))

        await asyncio.gather(*(work() for _ in range(min(_SINGLE_CONCURRENCY, len(waiting)))))
        self._unsent = [event for event, _ in failed] + waiting
        return failed[0][1] if failed else Accepted()

    async def _post(self, body: bytes) -> Outcome:
        assert self._session is not None, "open() comes first"
        if self._gzip:
            body = await asyncio.to_thread(gzip.compress, body, _GZIP_LEVEL)
        try:
            async with self._session.post(
                self.url, data=body, headers=self._headers, allow_redirects=False
            ) as answer:
                await _read_away(answer)
                if 200 <= answer.status < 300:
                    return Accepted()
                after_s = parse_retry_after(answer.headers.get("Retry-After"))
                return Retry(f"status {answer.status}", after_s)
        except TimeoutError:
            return Retry(f"no answer within {self._timeouts.total_s:g} s")
        except (aiohttp.ClientError, OSError) as error:
            return Retry(f"{type(error).__name__}: {error}")


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
