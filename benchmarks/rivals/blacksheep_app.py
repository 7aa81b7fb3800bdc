"""BlackSheep, on the server that its documentation starts it with: uvicorn."""

from __future__ import annotations

from blacksheep import Application, Content, Request, Response

from benchmarks.rivals.straight import GIF, NO_STORE, Pixels

CACHE_CONTROL = (b"Cache-Control", NO_STORE.encode())
pixels = Pixels()
app = Application()


def _take(request: Request, is_track: bool) -> Response:
    address = request.get_first_header(b"X-Forwarded-For") or b""
    user_agent = request.get_first_header(b"User-Agent") or b""
    status = pixels.take(
        is_track, request.url.query or b"", address.decode("latin-1"), user_agent.decode("latin-1")
    )
    return Response(status, [CACHE_CONTROL], Content(b"image/gif", GIF))


@app.router.get("/pixel/v1/track")
async def track(request: Request) -> Response:
    return _take(request, True)


@app.router.get("/pixel/v1/page")
async def page(request: Request) -> Response:
    return _take(request, False)


@app.on_stop
async def close(_: Application) -> None:
    pixels.close()
