"""One request per event: failures have an index, and nothing is kept between batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from pixelfast.deliver.http.signatures import Webhook
from pixelfast.deliver.outcomes import Accepted, Held, Partial, Rejected, Retry
from tests.deliver.running import run
from tests.deliver.senders import batch, destination_and_sender, send
from tests.deliver.spools import event
from tests.fake_destination import FakeDestination, FakeResponse, Request

CONCURRENCY = 16


def number_of(request: Request) -> int:
    (event,) = request.events()
    return int(event["n"])


def failing_at(*numbers: int) -> Callable[[Request], FakeResponse]:
    """Make a script that fails for these events."""
    return lambda request: FakeResponse(503 if number_of(request) in numbers else 200)


def fail_always(_: Request) -> FakeResponse:
    return FakeResponse(503)


def take(destination: FakeDestination) -> list[int]:
    """Return the events of all requests since the last call, sorted."""
    numbers = sorted(number_of(request) for request in destination.requests)
    destination.requests.clear()
    return numbers


def test_failed_events_are_reported_by_index_and_nothing_is_kept_for_the_next_attempt() -> None:
    async def main() -> None:
        sent = batch(map(event, range(10)))
        async with destination_and_sender(failing_at(3, 7), "single") as (destination, sender):
            retry = Retry("status 503", status=503, response=b"ok")
            assert Partial.of({3: retry, 7: retry}) == await sender.send(sent)
            assert list(range(10)) == take(destination)
            destination.respond_with([])
            assert Accepted() == await sender.send(sent)
            assert list(range(10)) == take(destination)

    run(main())


def test_each_event_is_rejected_or_retried_separately() -> None:
    async def main() -> None:
        statuses = {1: 400, 3: 503, 4: 413}

        def script(request: Request) -> FakeResponse:
            return FakeResponse(statuses.get(number_of(request), 200), body=b"")

        async with destination_and_sender(script, "single") as (_, sender):
            assert Partial.of(
                {
                    1: Rejected("status 400", 400),
                    3: Retry("status 503", status=503),
                    4: Rejected("status 413", 413, is_too_large=True),
                }
            ) == await send(sender, *range(5))

    run(main())


def test_events_that_are_all_rejected_are_reported_one_by_one() -> None:
    async def main() -> None:
        rejected = Rejected("status 422", 422, b"ok")
        async with destination_and_sender(lambda _: FakeResponse(422), "single") as (_, sender):
            assert Partial.of(dict.fromkeys(range(40), rejected)) == await send(sender, *range(40))

    run(main())


@pytest.mark.parametrize("status", [401, 404, 302, 501])
def test_a_wrong_setting_holds_the_whole_batch(status: int) -> None:
    async def main() -> None:
        def script(request: Request) -> FakeResponse:
            return FakeResponse(status if number_of(request) == 5 else 200)

        async with destination_and_sender(script, "single") as (_, sender):
            assert Held(f"status {status}", status, b"ok") == await send(sender, *range(10))

    run(main())


def test_a_destination_that_is_down_does_not_get_a_request_for_every_event() -> None:
    async def main() -> None:
        async with destination_and_sender(fail_always, "single") as (destination, sender):
            sent = batch(map(event, range(300)))
            assert Retry("status 503", 0.0, 503, b"ok") == await sender.send(sent)
            assert len(destination.requests) <= 2 * CONCURRENCY

    run(main())


def test_a_destination_that_goes_down_gets_only_the_remaining_events_again() -> None:
    async def main() -> None:
        def script(request: Request) -> FakeResponse:
            return FakeResponse(200 if number_of(request) < 50 else 503)

        async with destination_and_sender(script, "single") as (destination, sender):
            outcome = await send(sender, *range(300))
            assert isinstance(outcome, Partial)
            assert list(range(50, 300)) == list(outcome.failed)
            assert len(destination.requests) <= 50 + 2 * CONCURRENCY

    run(main())


def test_each_event_has_its_own_constant_id() -> None:
    async def main() -> None:
        sent = batch(map(event, range(3)), "b7")
        async with destination_and_sender(form="single", webhook=Webhook()) as (
            destination,
            sender,
        ):
            for _ in range(2):
                await sender.send(sent)
            ids = {(number_of(each), each.value("webhook-id")) for each in destination.requests}
            assert {(0, "b7-0"), (1, "b7-1"), (2, "b7-2")} == ids

    run(main())


@pytest.mark.parametrize("concurrency", [1, 5])
def test_concurrent_batches_share_the_limit_of_the_destination(concurrency: int) -> None:
    async def main() -> None:
        gate = asyncio.Event()
        options = {"concurrency": concurrency}
        async with destination_and_sender(
            lambda _: FakeResponse(first=gate), "single", **options
        ) as (
            destination,
            sender,
        ):
            sends = [asyncio.ensure_future(send(sender, *range(n, n + 20))) for n in (0, 20, 40)]
            await destination.received(concurrency)
            gate.set()
            assert [Accepted()] * 3 == await asyncio.gather(*sends)
            assert concurrency == destination.connections
            assert list(range(60)) == take(destination)

    run(main())


def test_events_use_a_limited_number_of_connections_at_once() -> None:
    async def main() -> None:
        gate = asyncio.Event()
        async with destination_and_sender(lambda _: FakeResponse(first=gate), "single") as (
            destination,
            sender,
        ):
            sending = asyncio.ensure_future(send(sender, *range(100)))
            await destination.received(CONCURRENCY)
            gate.set()
            assert Accepted() == await sending
            assert CONCURRENCY == destination.connections
            assert list(range(100)) == take(destination)

    run(main())


def test_the_longest_pause_of_several_failures_applies_if_nothing_was_accepted() -> None:
    async def main() -> None:
        def script(request: Request) -> FakeResponse:
            text = {1: "5", 2: "60", 3: "20"}.get(number_of(request))
            return FakeResponse(429, (("Retry-After", text),)) if text else FakeResponse(503)

        async with destination_and_sender(script, "single") as (_, sender):
            assert Retry("status 429", 60.0, 429, b"ok") == await send(sender, 0, 1, 2, 3)

    run(main())


class Broken(Webhook):
    """Raises an unexpected error for one event."""

    def headers(self, message_id: str, body: bytes) -> dict[str, str]:
        if b'"n":5,' in body:
            raise ZeroDivisionError
        return super().headers(message_id, body)


def test_an_unexpected_error_ends_all_requests_of_the_batch() -> None:
    """None of them continues with further events and a session that is being closed."""

    async def main() -> None:
        gate = asyncio.Event()
        async with destination_and_sender(
            lambda _: FakeResponse(first=gate), "single", webhook=Broken()
        ) as (_, sender):
            before = asyncio.all_tasks()
            outcome = await send(sender, *range(10))
            assert isinstance(outcome, Retry)
            assert outcome.reason in {
                "internal error: ZeroDivisionError",
                "internal error: ExceptionGroup",
            }
            left = asyncio.all_tasks() - before
            assert [] == [task for task in left if "_send_each" in repr(task.get_coro())]

    run(main())
