"""ASGI by hand, without any framework: for Granian and uvicorn."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.rivals.straight import GIF, NO_STORE, Pixels

CALLS = {"/pixel/v1/track": True, "/pixel/v1/page": False}
HEADERS = [
    (b"content-type", b"image/gif"),
    (b"content-length", b"43"),
    (b"cache-control", NO_STORE.encode()),
]
BODY = {"type": "http.response.body", "body": GIF}
pixels = Pixels()


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    if scope["type"] == "lifespan":
        return await _live(receive, send)
    is_track = CALLS.get(scope["path"])
    address, user_agent = "", None
    for name, text in scope["headers"]:
        if name == b"user-agent":
            user_agent = text.decode("latin-1")
        elif name == b"x-forwarded-for":
            address = text.decode("latin-1")
    if is_track is None:
        status = 404
    else:
        status = pixels.take(is_track, scope["query_string"], address, user_agent)
    await send({"type": "http.response.start", "status": status, "headers": HEADERS})
    await send(BODY)
    return None


async def _live(
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.shutdown":
            pixels.close()
            return await send({"type": "lifespan.shutdown.complete"})
        await send({"type": "lifespan.startup.complete"})
