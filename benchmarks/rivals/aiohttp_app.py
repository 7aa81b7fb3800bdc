"""aiohttp's server on uvloop."""

from __future__ import annotations

import sys

import uvloop
from aiohttp import web

from benchmarks.rivals.straight import GIF, NO_STORE, Pixels

pixels = Pixels()


def _take(request: web.Request, is_track: bool) -> web.Response:
    headers = request.headers
    status = pixels.take(
        is_track,
        request.rel_url.raw_query_string.encode(),
        headers.get("X-Forwarded-For", ""),
        headers.get("User-Agent"),
    )
    return web.Response(
        body=GIF,
        status=status,
        content_type="image/gif",
        headers={"Cache-Control": NO_STORE},
    )


async def track(request: web.Request) -> web.Response:
    return _take(request, True)


async def page(request: web.Request) -> web.Response:
    return _take(request, False)


async def close(_: web.Application) -> None:
    pixels.close()


if __name__ == "__main__":
    app = web.Application()
    app.add_routes([web.get("/pixel/v1/track", track), web.get("/pixel/v1/page", page)])
    app.on_cleanup.append(close)
    web.run_app(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        access_log=None,
        backlog=2048,
        loop=uvloop.new_event_loop(),
        print=None,
    )
