"""Limits on the cost of a destination's responses: bytes, interim responses, and CPU time.

aiohttp reads as fast as the peer sends. A peer can send interim responses (1xx) without end, a
response in chunks of one byte, or responses to no request on an idle connection. All destinations
share one event loop, so one of them could take it from the others. Here each response is read in
slices, and each destination has a share of the loop's time for reading.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import sys
import time
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

from pixelfast.deliver.timing import DeliveryClock

__all__ = ["BoundedHandler", "LoopShare", "ResponseTooCostly", "limit_responses"]

_MAX_INTERIM = 8
_MAX_HEAD_BYTES = 16384  # including interim responses and the framing of chunks
_FIRST_BYTES = 512  # of a response that are parsed at once; most responses have no more
_SLICE_BYTES = 4096  # parsed between two checks: at most 1.7 ms
_PLAIN_SLICE_BYTES = 65536  # of a body that is not chunked
_SHARE = 0.2
_BURST_S = 0.005
_AND_READING = 4.0  # reading a body in pieces takes longer than parsing it
_READ_S = 100e-6  # additional cost of each further read: system calls, waking the task
_WATCH_S = 0.25
_PADDED = "too many TLS records without content"
# struct tcp_info of linux/tcp.h: tcpi_bytes_received, since Linux 4.1
_TCP_INFO_RECEIVED, _TCP_INFO_BYTES = 128, 136


class ResponseTooCostly(aiohttp.ClientError):
    """A response exceeded a limit; its connection was closed."""


class LoopShare:
    """The share of the event loop's time that one destination may use for reading responses.

    Unused time is saved, up to `burst_s`.

    >>> now_s = 10.0
    >>> share = LoopShare(0.2, 0.005, DeliveryClock(monotonic_s=lambda: now_s))
    >>> share.spend(0.007)
    >>> round(share.wait_s(), 6)
    0.01
    """

    def __init__(
        self,
        share: float,
        burst_s: float,
        clock: DeliveryClock = DeliveryClock(),  # noqa: B008 - only an engine's notices jumps
    ) -> None:
        self._share = share
        self._burst_s = burst_s
        self._clock = clock
        self._saved_s = burst_s
        self._at_s = clock.monotonic_s()

    def spend(self, seconds: float) -> None:
        """Subtract time that was used."""
        self._catch_up()
        self._saved_s -= seconds

    def wait_s(self) -> float:
        """Return how long to wait before more time may be used, in seconds; 0 if not at all."""
        if self._saved_s >= 0.0:
            return 0.0
        self._catch_up()
        return max(0.0, -self._saved_s / self._share)

    def _catch_up(self) -> None:
        now_s = self._clock.monotonic_s()
        earned_s = (now_s - self._at_s) * self._share
        self._saved_s = min(self._burst_s, self._saved_s + earned_s)
        self._at_s = now_s


class BoundedHandler(ResponseHandler):
    """Read one response to each request, within limits, and nothing without a request.

    Data that arrives after the destination has used its share is buffered, and reading pauses.
    `_left_bytes` is how many more bytes the response may have. Bytes are counted when they arrive,
    so it also limits the buffer.
    """

    def __init__(self, max_bytes: int, share: LoopShare, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._max_bytes = max_bytes
        self._share = share
        self._buffered = b""
        self._parsed = 0  # bytes of `_buffered`
        self._is_dropped = False
        self._pausing: asyncio.TimerHandle | None = None
        self._left_bytes = self._fed = self._interim = 0
        self._is_asked = False
        self._is_tls = False
        self._watching: asyncio.TimerHandle | None = None
        self._responses = self._received = 0  # on the whole connection
        self._body: Any = None  # of the final response, once its head was received
        self._body_bytes = 0  # its Content-Length, or 0

    def is_connected(self) -> bool:
        return not self._is_dropped and super().is_connected()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._is_tls = transport.get_extra_info("sslcontext") is not None

    def set_response_params(self, **options: Any) -> None:
        """Expect a response: a request is about to be sent."""
        self._is_asked = True
        self._left_bytes = self._max_bytes
        self._fed = self._interim = 0
        self._body = None
        self._body_bytes = 0
        self._responses += 1
        if self._is_tls and self._watching is None:
            self._watching = self._loop.call_later(_WATCH_S, self._watch)
        super().set_response_params(**options)

    def feed_data(self, data: Any, size: int = 0) -> None:
        """Take the head of a response from the parser."""
        if self._interim > _MAX_INTERIM:
            return  # ignore all further data, however it is divided
        message, body = data
        if 100 <= message.code <= 199 and message.code != 101:  # no HTTP follows a 101
            self._interim += 1
        elif self._body is None:
            self._body = body
            if not message.chunked:
                self._body_bytes = int(message.headers.get("Content-Length", 0))
        super().feed_data(data, size)

    def data_received(self, data: bytes) -> None:
        if not data:  # aiohttp resumes after its own flow control
            super().data_received(data)
            self._parse()
            return
        if not self._is_asked or (self._body is not None and self._body.is_eof()):
            self._drop()  # data without a request
            return
        size = len(data)
        self._received += size
        if not self._fed and size <= _FIRST_BYTES:  # almost every response
            self._fed = size
            self._left_bytes -= size
            super().data_received(data)
            self._is_over()
            return
        if self._fed:
            self._share.spend(_READ_S)
            if self._is_tls and self._is_padded():
                self._fail(_PADDED)
                return
        self._buffered = self._buffered[self._parsed :] + data[: max(0, self._left_bytes + 1)]
        self._parsed = 0
        self._left_bytes -= size
        self._parse()

    def close(self) -> None:
        """Close at once, without waiting for data in either direction.

        An orderly close would wait forever for a peer that does not read the request, and TLS would
        continue to read for 30 s.
        """
        self._abort_soon()
        super().close()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Resume reading if it was paused; aiohttp calls this for every piece of a body."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def connection_lost(self, exc: BaseException | None) -> None:
        # A close by the peer is only noticed while nothing is buffered, a reset at any time.
        self._buffered, self._parsed = b"", 0
        self._cancel_timers()
        super().connection_lost(exc)

    def _parse(self) -> None:
        while self._parsed < len(self._buffered):
            if self._pausing is not None or self._reading_paused:
                return
            slice_bytes = _SLICE_BYTES
            if self._fed < _FIRST_BYTES:
                slice_bytes = _FIRST_BYTES - self._fed
            elif wait_s := self._share.wait_s():
                self._wait(wait_s)
                return
            if self._body_bytes:  # the parser only copies it
                left_bytes = self._body_bytes - self._body.total_bytes
                slice_bytes = max(slice_bytes, min(left_bytes, _PLAIN_SLICE_BYTES))
            piece = self._buffered[self._parsed : self._parsed + slice_bytes]
            self._parsed += len(piece)
            self._fed += len(piece)
            began_s = time.thread_time()
            super().data_received(piece)
            self._share.spend((time.thread_time() - began_s) * _AND_READING)
            if self._is_over():
                return
        self._buffered, self._parsed = b"", 0

    def _is_over(self) -> bool:
        """End the response if it is complete or over a limit; return whether it has ended."""
        if self._interim > _MAX_INTERIM:
            self._fail(f"more than {_MAX_INTERIM} interim responses (1xx)")
        elif self._body is not None and self._body.is_eof():
            if self._parsed < len(self._buffered):
                self._drop()
        elif self._fed > self._max_bytes:
            self._fail(f"the response is longer than {self._max_bytes:,} bytes")
        elif self._exception is None and self.transport is not None:
            return False
        self._buffered, self._parsed = b"", 0
        return True

    def _fail(self, reason: str) -> None:
        if self._body is None:
            self.set_exception(ResponseTooCostly(reason))
        else:
            # The status is known, and the received part of the body can still be read.
            self._body.feed_eof()
            self._payload = None
        self._drop()

    def _drop(self) -> None:
        self._buffered, self._parsed = b"", 0
        self._cancel_timers()
        self.force_close()
        self._abort_soon()

    def _abort_soon(self) -> None:
        if not self._is_dropped and self.transport is not None:
            self._is_dropped = True
            # Not now: uvloop's TLS still uses the transport after this callback.
            self._loop.call_soon(self.transport.abort)

    def _is_padded(self) -> bool:
        """Whether TLS has received much more than responses: tiny records, session tickets.

        They are not passed to the protocol, but cost as much to decrypt as large records.
        """
        assert self.transport is not None
        info = self.transport.get_extra_info("socket").getsockopt(
            socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES
        )
        received = int.from_bytes(info[_TCP_INFO_RECEIVED:_TCP_INFO_BYTES], sys.byteorder)
        return received - self._received > self._responses * self._max_bytes

    def _watch(self) -> None:
        self._watching = None
        is_complete = self._body is not None and self._body.is_eof()
        if is_complete or self._is_dropped or self.transport is None:
            return
        if self._is_padded():
            self._fail(_PADDED)
        else:
            self._watching = self._loop.call_later(_WATCH_S, self._watch)

    def _wait(self, seconds: float) -> None:
        self._pause_transport_reading()
        self._pausing = self._loop.call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        self._pausing = None
        self._parse()
        if self._pausing is None and not (self._reading_paused or self._buffer_paused):
            self._resume_transport_reading()

    def _cancel_timers(self) -> None:
        for timer in (self._pausing, self._watching):
            if timer is not None:
                timer.cancel()
        self._pausing = self._watching = None


def limit_responses(connector: aiohttp.BaseConnector, max_bytes: int) -> None:
    """Limit all responses on connections of this connector to `max_bytes` and their heads.

    aiohttp has no setting for the class that reads responses. tests/deliver/test_http_floods.py
    fails with a version of aiohttp that uses another attribute.
    """
    share = LoopShare(_SHARE, _BURST_S)
    loop = asyncio.get_running_loop()
    limit = max_bytes + _MAX_HEAD_BYTES
    connector._factory = functools.partial(BoundedHandler, limit, share, loop)  # type: ignore[assignment]
