"""Blocking requests to the brokers, outside of the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

__all__ = ["in_background"]

_Result = TypeVar("_Result")


async def in_background(function: Callable[[], _Result]) -> _Result:
    """Call a function in a thread; neither a cancellation nor the end of the process waits for it.

    Otherwise, brokers that do not respond would delay a stop until the request times out.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_Result] = loop.create_future()

    def call() -> None:
        try:
            report = partial(_set_result, done, function())
        except Exception as error:  # noqa: BLE001 - raised on the event loop
            report = partial(_set_exception, done, error)
        with contextlib.suppress(RuntimeError):  # the event loop has ended
            loop.call_soon_threadsafe(report)

    threading.Thread(target=call, name="kafka-request", daemon=True).start()
    return await done


def _set_result(future: asyncio.Future[_Result], result: _Result) -> None:
    if not future.done():
        future.set_result(result)


def _set_exception(future: asyncio.Future[_Result], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
