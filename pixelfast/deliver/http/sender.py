"""Sending batches as POST requests over keep-alive connections, for all HTTP destinations."""

from __future__ import annotations

import asyncio
import gzip
import io
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import structlog
from aiohttp.abc import AbstractStreamWriter
from multidict import CIMultiDict
from yarl import URL

from pixelfast import __version__
from pixelfast.config.delivery import Batching
from pixelfast.deliver.batches import Batch, BatchLimits, some_events
from pixelfast.deliver.bodies.lines import escape_line_ends
from pixelfast.deliver.http.bounds import limit_responses
from pixelfast.deliver.http.failures import outcome_of_failure
from pixelfast.deliver.http.guard import guarded_connector
from pixelfast.deliver.http.responses import Response, classify, read_response
from pixelfast.deliver.http.signatures import Webhook
from pixelfast.deliver.outcomes import Accepted, Held, Outcome, Partial, Rejected, Retry
from pixelfast.deliver.sender import RemoteSender
from pixelfast.tls import Tls, TlsFileError, new_context

__all__ = ["EventsRejected", "HttpSender", "Timeouts", "basic", "shared_options"]

_log = structlog.get_logger("deliver")

_CONTENT_TYPES = {
    "json_array": "application/json",
    "ndjson": "application/x-ndjson",
    "single": "application/json",
}
_SINGLE_CONCURRENCY = 16  # requests of one batch
_GZIP_LEVEL = 5
_EVENT_ERRORS = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
_JUDGED_AT_ONCE_BYTES = 16384  # of a response; a longer one blocks the loop for 1 ms or more
_WITH_HEAD_BYTES = 2**12  # of a body, sent in the same packet as the request's head
_SENT_AT_ONCE_BYTES = 2**20  # larger bodies are sent in pieces so as not to block the loop


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Timeouts of one request, in seconds."""

    total_s: float = 30.0
    connect_s: float = 5.0


class EventsRejected(Exception):
    """Events, by their index, for which a product would reject their whole batch."""

    def __init__(self, rejected: Mapping[int, Rejected]) -> None:
        super().__init__(f"{len(rejected)} events")
        self.rejected = rejected


class _Body(aiohttp.BytesPayload):
    """A body without a copy, except for its beginning, which aiohttp sends with the head."""

    async def write_with_length(
        self, writer: AbstractStreamWriter, content_length: int | None
    ) -> None:
        view = memoryview(self._value)[:content_length]
        await writer.write(view[:_WITH_HEAD_BYTES])
        if len(view) > _WITH_HEAD_BYTES:
            await writer.write(view[_WITH_HEAD_BYTES:])


class HttpSender(RemoteSender):
    """Send batches to one URL; several batches may be under way.

    `wrap` is put before and after the events of a `json_array`, for APIs that expect them inside an
    object. `webhook` adds the headers of Standard Webhooks. Subclasses for products with their own
    API override the body, the URL and the meaning of a response.

    Attributes:
        max_response_bytes: how much of a response is read before its connection is closed.
        is_body_costly: whether bodies are made in the destination's thread, as compressed ones are.
    """

    max_response_bytes = 65536
    is_body_costly = False

    def __init__(
        self,
        url: str,
        form: str,
        limits: BatchLimits,
        *,
        headers: Mapping[str, str] | None = None,
        gzip: bool = False,
        timeouts: Timeouts | None = None,
        wrap: tuple[bytes, bytes] = (b"[", b"]"),
        retry_s: tuple[float, float] = (0.5, 60.0),
        concurrency: int = 64,
        tls: Tls | None = None,
        block_private: bool = False,
        webhook: Webhook | None = None,
    ) -> None:
        self.url = url
        self.limits = limits
        self.concurrency = concurrency
        self.retry_first_s, self.retry_most_s = retry_s
        self._form = form
        self._gzip = gzip
        self._wrap = wrap
        self._timeouts = timeouts or Timeouts()
        self._tls = tls or Tls()
        self._block_private = block_private
        self._webhook = webhook
        self._headers = CIMultiDict(
            {"User-Agent": f"pixelfast/{__version__}", "Content-Type": _CONTENT_TYPES[form]}
        )
        if gzip:
            self._headers["Content-Encoding"] = "gzip"
        for name, text in (headers or {}).items():
            self._headers[name] = text
        # For all batches: each has several requests under way if it sends one per event.
        self._places = asyncio.Semaphore(concurrency)
        self._session: aiohttp.ClientSession | None = None
        self._context: ssl.SSLContext | None = None
        self._tls_problem = ""  # if set, the files are read again before the next request

    async def open(self, memory: dict[str, object]) -> None:  # noqa: ARG002 - nothing to remember
        await self.close()
        options: dict[str, Any] = {"limit": 0}  # `concurrency` is the limit
        if self.url.startswith("https:"):
            self._context = options["ssl"] = new_context()
            await self.in_thread(self._read_tls)
        timeouts = self._timeouts
        connector = guarded_connector(self._block_private, **options)
        limit_responses(connector, self.max_response_bytes)
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=timeouts.total_s, connect=timeouts.connect_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Accept-Encoding",),
            auto_decompress=False,
            trust_env=False,  # no proxies, no .netrc
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def attempt(self, batch: Batch) -> Outcome:
        if self._form == "single":
            return await self._send_each(batch)
        try:
            if self._gzip or self.is_body_costly:
                body = await self.in_thread(self._pack, batch)
            else:
                body = self.body_of(batch)
        except EventsRejected as error:
            return await self._send_rest(batch, error.rejected)
        except _EVENT_ERRORS as error:
            if batch.events == 1:  # found by dividing the batch
                _log.exception("event_not_encoded", batch=batch.id)
            return Rejected(f"cannot be encoded: {type(error).__name__}")
        response = await self._post(self.url_of(batch), body, batch.id, batch.attempt)
        if not isinstance(response, Response):
            return response
        if len(response.body) > _JUDGED_AT_ONCE_BYTES:
            outcome: Outcome = await self.in_thread(self.judge, response, batch)
            return outcome
        return self.judge(response, batch)

    async def _send_rest(self, batch: Batch, rejected: Mapping[int, Rejected]) -> Outcome:
        """Send the acceptable events; reject the others once those were accepted."""
        places = [n for n in range(batch.events) if n not in rejected]
        if places:
            rest = some_events(batch.lines(), batch.sources(), places)
            part = replace(batch, body=rest.body, events=rest.events, runs=rest.runs)
            outcome = await self.attempt(part)
            if not isinstance(outcome, Accepted):
                return outcome
        return Partial.of(rejected)

    # --- overridden for products -------------------------------------------------------------

    def body_of(self, batch: Batch) -> bytes:
        """Return the body before compression; it has the same bytes on every attempt.

        Raises:
            EventsRejected: the product would reject the whole batch for some of its events.
        """
        if self._form == "ndjson":
            return escape_line_ends(batch.ndjson())
        return batch.joined(*self._wrap)

    def url_of(self, batch: Batch) -> str | URL:  # noqa: ARG002 - for subclasses
        """Return the URL to which a batch is sent."""
        return self.url

    def judge(self, response: Response, batch: Batch) -> Outcome:  # noqa: ARG002 - as above
        """Return what a response means for a batch."""
        return classify(response)

    # --- one request -------------------------------------------------------------------------

    def _pack(self, batch: Batch) -> bytes:
        body = self.body_of(batch)
        return _compress(body) if self._gzip else body

    async def _post(
        self, url: str | URL, body: bytes, message_id: str, attempt: int
    ) -> Response | Retry | Held:
        """Send a body, already compressed if required."""
        assert self._session is not None, "open() comes first"
        if self._tls_problem:
            self._read_tls()  # rarely, because held destinations are retried slowly
            if self._tls_problem:
                return Held(self._tls_problem)
        headers = self._headers.copy()
        if self._webhook is not None:
            headers.update(self._webhook.headers(message_id, body))
        headers["X-Pixelfast-Attempt"] = str(attempt)
        async with self._places:
            try:
                async with self._session.post(
                    url,
                    data=_Body(body) if len(body) <= _SENT_AT_ONCE_BYTES else io.BytesIO(body),
                    headers=headers,
                    allow_redirects=False,
                ) as response:
                    return await read_response(response, self.max_response_bytes)
            except (aiohttp.ClientError, OSError) as error:  # a TimeoutError is an OSError
                timeouts = self._timeouts
                outcome = outcome_of_failure(error, timeouts.total_s, timeouts.connect_s)
        if isinstance(outcome, Held) and self._context is not None:
            self._tls_problem = outcome.reason
        return outcome

    async def _send_each(self, batch: Batch) -> Outcome:
        """Send one request per event. After 16 failures, the rest of the batch also fails."""
        lines = batch.lines()
        ids = batch.event_ids()
        waiting = list(range(len(lines)))[::-1]
        failed: dict[int, Rejected | Retry] = {}
        held: list[Held] = []
        retries: list[Retry] = []

        async def work() -> None:
            while waiting and not held and len(retries) < _SINGLE_CONCURRENCY:
                index = waiting.pop()
                body = lines[index]
                if self._gzip:
                    body = await self.in_thread(_compress, body)
                response = await self._post(self.url, body, ids[index], batch.attempt)
                outcome = classify(response) if isinstance(response, Response) else response
                if isinstance(outcome, Held):
                    held.append(outcome)
                elif isinstance(outcome, Retry):
                    retries.append(outcome)
                    failed[index] = outcome
                elif isinstance(outcome, Rejected):
                    failed[index] = outcome

        async with asyncio.TaskGroup() as group:
            for _ in range(min(_SINGLE_CONCURRENCY, len(lines))):
                group.create_task(work())
        if held:
            return held[0]
        if not failed:
            return Accepted()
        if retries:
            longest = max(retries, key=lambda each: each.after_s)
            failed |= dict.fromkeys(waiting, longest)
            if len(failed) == len(lines) and len(retries) + len(waiting) == len(lines):
                return longest  # none was accepted, none rejected
        return Partial.of(failed)

    # --- certificates ------------------------------------------------------------------------

    def _read_tls(self) -> None:
        """Read the certificate files, which may have been renewed, and keep the error if any."""
        assert self._context is not None
        self._tls_problem = ""
        try:
            self._tls.read_into(self._context)
        except TlsFileError as error:
            self._tls_problem = str(error)


def basic(username: str, password: str) -> str:
    """Return the Authorization header of HTTP basic authentication (RFC 7617), in UTF-8."""
    return aiohttp.encode_basic_auth(username, password)


def shared_options(settings: Batching) -> dict[str, Any]:
    """Return the settings that all HTTP destinations share, as arguments of `HttpSender`."""
    return {
        "limits": BatchLimits(settings.max_events, settings.max_bytes, settings.max_age_s),
        "gzip": settings.gzip,
        "timeouts": Timeouts(settings.timeout_s, settings.connect_timeout_s),
        "retry_s": (settings.retry_first_s, settings.retry_most_s),
        "concurrency": settings.concurrency,
        "tls": Tls(settings.tls_ca, settings.tls_cert, settings.tls_key),
        "block_private": settings.block_private,
    }


def _compress(body: bytes) -> bytes:
    # Without a timestamp, because a batch has the same bytes on every attempt.
    return gzip.compress(body, _GZIP_LEVEL, mtime=0)
