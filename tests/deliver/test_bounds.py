"""The share of the loop's time that a destination's responses may use, without a network."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from aiohttp.client_proto import ResponseHandler

from pixelfast.deliver.http.bounds import BoundedHandler, LoopShare
from pixelfast.deliver.timing import DeliveryClock
from tests.deliver.running import run

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


class FakeTransport(asyncio.Transport):
    """Records whether it is read from. Its peer never reads, so a close is never completed."""

    def __init__(self) -> None:
        super().__init__()
        self.reads, self.is_closed, self.is_aborted = True, False, False

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def is_closing(self) -> bool:
        return self.is_aborted or self.is_closed

    def abort(self) -> None:
        self.is_aborted = True

    def close(self) -> None:
        self.is_closed = True


class FakeShare(LoopShare):
    """Requires no wait until this many slices are parsed."""

    def __init__(self, slices: int) -> None:
        super().__init__(1.0, 1.0, DeliveryClock(monotonic_s=lambda: 0.0))
        self.slices = slices

    def spend(self, seconds: float) -> None:  # noqa: ARG002
        self.slices -= 1

    def wait_s(self) -> float:
        return 0.001 if self.slices <= 0 else 0.0


def new_handler(share: LoopShare, max_bytes: int = 81_920) -> tuple[BoundedHandler, FakeTransport]:
    handler = BoundedHandler(max_bytes, share, asyncio.get_running_loop())
    transport = FakeTransport()
    handler.connection_made(transport)
    handler.set_response_params(read_until_eof=True, auto_decompress=False)
    return handler, transport


def test_reading_pauses_while_a_destination_has_used_its_share() -> None:
    async def main() -> None:
        share = FakeShare(slices=3)
        handler, transport = new_handler(share)
        handler.data_received(CHUNKED + b"1\r\nx\r\n" * 8000)
        message, body = await handler.read()
        assert (200, False) == (message.code, transport.reads)
        got = len(body.read_nowait())
        assert got < 3 * 4096 / 6
        while not transport.reads:
            share.slices = 1
            before = got
            await asyncio.sleep(0.002)
            got += len(body.read_nowait())
            assert got - before <= 2 * 4096 / 6, "one slice a turn"
        assert 8000 == got

    run(main())


def test_a_plain_body_is_parsed_in_large_slices_and_later_bytes_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The parser only copies a body. Heads without end may follow it, which are costly."""
    sizes: list[int] = []
    receive = ResponseHandler.data_received

    def noted(handler: ResponseHandler, data: bytes) -> None:
        sizes.append(len(data))
        receive(handler, data)

    monkeypatch.setattr(ResponseHandler, "data_received", noted)

    async def main() -> None:
        handler, transport = new_handler(FakeShare(slices=99), max_bytes=10**6)
        handler.data_received(HEAD + b"Content-Length: 80000\r\n\r\n" + b"x" * 40_000)
        handler.data_received(b"x" * 39_999)
        message, body = await handler.read()
        assert (200, 79_999) == (message.code, len(body.read_nowait()))
        assert len(sizes) <= 4
        handler.data_received(b"x" + b"HTTP/1.1 100 Continue\r\n\r\n" * 2000)
        assert sizes[-1] <= 4096
        assert b"x" == await body.read()
        await asyncio.sleep(0)
        assert transport.is_aborted, "data without a request"

    run(main())


def test_the_first_bytes_of_a_response_are_parsed_at_once() -> None:
    """Good responses do not wait for the share that bad ones of the destination have used."""

    async def main() -> None:
        handler, transport = new_handler(FakeShare(slices=0))
        handler.data_received(HEAD + b"Content-Length: 400\r\n\r\n" + b"x" * 400)
        message, body = await handler.read()
        assert (200, 400, True) == (message.code, len(await body.read()), transport.reads)

    run(main())


def test_a_reset_while_a_response_is_buffered_loses_no_status() -> None:
    async def main() -> None:
        handler, _ = new_handler(FakeShare(slices=0))
        handler.data_received(HEAD + b"Content-Length: 20000\r\n\r\n" + b"x" * 10_000)
        message, body = await handler.read()
        handler.connection_lost(ConnectionResetError())
        assert 200 == message.code
        with pytest.raises(aiohttp.ClientPayloadError):
            await body.read()

    run(main())


def test_closing_a_connection_does_not_wait_for_unsent_data() -> None:
    """A peer that never reads would keep the connection and the body forever."""

    async def main() -> None:
        handler, transport = new_handler(FakeShare(slices=9))
        handler.close()
        await asyncio.sleep(0)
        assert transport.is_aborted

    run(main())


def test_a_connection_with_data_after_its_response_is_not_reused() -> None:
    async def main() -> None:
        handler, transport = new_handler(FakeShare(slices=9))
        handler.data_received(HEAD + b"Content-Length: 2\r\n\r\nok")
        assert handler.is_connected()
        handler.data_received(b"HTTP/1.1 200 OK\r\n")
        assert not handler.is_connected()
        await asyncio.sleep(0)
        assert transport.is_aborted

    run(main())


def test_a_share_is_used_saved_and_regained() -> None:
    now_s = 100.0
    share = LoopShare(0.2, 0.005, DeliveryClock(monotonic_s=lambda: now_s))
    share.spend(0.004)
    assert 0.0 == share.wait_s()
    share.spend(0.003)
    assert pytest.approx(0.01) == share.wait_s()
    now_s += 0.005
    assert pytest.approx(0.005) == share.wait_s()
    now_s += 3600.0
    assert 0.0 == share.wait_s()
    share.spend(0.007)
    assert pytest.approx(0.01) == share.wait_s(), "an idle hour saves no more than a burst"
