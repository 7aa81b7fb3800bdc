"""One request an event: what failed goes again, alone; nothing is shared between batches."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator

import pytest

from pixelfast.deliver.destinations.http import HttpSender
from pixelfast.deliver.outcomes import Accepted, Outcome, Retry
from tests.deliver.running import run
from tests.deliver.senders import destination_and_sender, send
from tests.deliver.spools import batch_of, event
from tests.fake_destination import Answer, FakeDestination, Request

CONCURRENCY = 16


def number_of(request: Request) -> int:
    (event,) = request.events()
    return int(event["n"])


def refusing(*numbers: int) -> Callable[[Request], Answer]:
    """A script that refuses these events."""
    return lambda request: Answer(503 if number_of(request) in numbers else 200)


def refuse_all(_: Request) -> Answer:
    return Answer(503)


def take(destination: FakeDestination) -> list[int]:
    """The events of all requests since the last time, sorted."""
    numbers = sorted(number_of(request) for request in destination.requests)
    destination.requests.clear()
    return numbers


def test_a_second_try_sends_only_what_was_not_accepted() -> None:
    async def main() -> None:
        batch = batch_of(map(event, range(10)))
        async with destination_and_sender(refusing(3, 7), "single") as (destination, sender):
            assert Retry("status 503") == await sender.send(batch)
            assert list(range(10)) == take(destination)
            destination.answer(refusing(7))
            assert Retry("status 503") == await sender.send(batch)
            assert [3, 7] == take(destination)
            destination.answer([])
            assert Accepted() == await sender.send(batch)
            assert [7] == take(destination)

    run(main())


def test_the_next_batch_is_whole_again() -> None:
    async def main() -> None:
        batch = batch_of([event(1), event(2)])
        async with destination_and_sender(refusing(1), "single") as (destination, sender):
            await sender.send(batch)
            destination.answer([])
            assert Accepted() == await sender.send(batch)
            take(destination)
            assert Accepted() == await send(sender, 1, 2, 3)
            assert [1, 2, 3] == take(destination)

    run(main())


def test_a_destination_that_is_down_is_not_asked_for_every_event() -> None:
    async def main() -> None:
        async with destination_and_sender(refuse_all, "single") as (destination, sender):
            batch = batch_of(map(event, range(300)))
            assert Retry("status 503") == await sender.send(batch)
            assert len(destination.requests) <= 2 * CONCURRENCY
            destination.answer([])
            assert Accepted() == await sender.send(batch)
            assert set(range(300)) == set(take(destination))

    run(main())


def test_events_go_over_a_bounded_number_of_connections_at_a_time() -> None:
    async def main() -> None:
        gate = asyncio.Event()
        async with destination_and_sender(lambda _: Answer(first=gate), "single") as (
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


def test_of_several_refusals_the_longest_wait_counts() -> None:
    async def main() -> None:
        def script(request: Request) -> Answer:
            waits = {1: "5", 2: "60", 3: "20"}
            text = waits.get(number_of(request))
            return Answer(429, (("Retry-After", text),)) if text else Answer(503)

        async with destination_and_sender(script, "single") as (_, sender):
            outcome = await send(sender, 0, 1, 2, 3)
            assert isinstance(outcome, Retry)
            assert 60.0 == outcome.after_s

    run(main())


@contextlib.contextmanager
def broken(monkeypatch: pytest.MonkeyPatch, number: int) -> Iterator[None]:
    """Something in the sender raises what nobody thought of, at one event."""
    post = HttpSender._post

    async def raising(self: HttpSender, body: bytes) -> Outcome:
        if b'"n":%d,' % number in body:
            raise ZeroDivisionError
        return await post(self, body)

    with monkeypatch.context() as patch:
        patch.setattr(HttpSender, "_post", raising)
        yield


def test_after_an_unexpected_error_the_next_batch_is_sent_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The runner opens the sender again and cuts a new batch: that one counts, not the old one."""
    count = 4 * CONCURRENCY

    async def main() -> None:
        async with destination_and_sender(refuse_all, "single") as (destination, sender):
            batch = batch_of(map(event, range(count)))
            assert Retry("status 503") == await sender.send(batch)
            with broken(monkeypatch, 0), pytest.raises((ZeroDivisionError, ExceptionGroup)):
                await sender.send(batch)
            await sender.close()
            destination.answer([])
            destination.requests.clear()
            await sender.open({})
            assert Accepted() == await send(sender, *range(count + 5))
            assert set() == set(range(count + 5)) - set(take(destination))

    run(main())


def test_a_sender_that_is_opened_again_begins_with_a_whole_batch() -> None:
    async def main() -> None:
        async with destination_and_sender(refusing(2), "single") as (destination, sender):
            assert Retry("status 503") == await send(sender, 1, 2)
            await sender.close()
            destination.answer([])
            destination.requests.clear()
            await sender.open({})
            assert Accepted() == await send(sender, 1, 2, 3)
            assert [1, 2, 3] == take(destination)

    run(main())


def test_another_batch_is_not_mistaken_for_a_second_try() -> None:
    async def main() -> None:
        async with destination_and_sender(refusing(2), "single") as (destination, sender):
            assert Retry("status 503") == await send(sender, 1, 2)
            destination.answer([])
            destination.requests.clear()
            assert Accepted() == await send(sender, 10, 11)
            assert {10, 11} <= set(take(destination))

    run(main())


def test_an_unexpected_error_ends_all_requests_of_the_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """None goes on by itself, popping events and using a session that is being closed."""

    async def main() -> None:
        gate = asyncio.Event()
        async with destination_and_sender(lambda _: Answer(first=gate), "single") as (_, sender):
            before = asyncio.all_tasks()
            with broken(monkeypatch, 5), pytest.raises((ZeroDivisionError, ExceptionGroup)):
                await send(sender, *range(10))
            left = asyncio.all_tasks() - before
            assert [] == [task for task in left if "_post_each" in repr(task.get_coro())]

    run(main())
