"""FastAPI on uvicorn, with pixelfast's decoder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response

from benchmarks.rivals.straight import GIF, NO_STORE, Pixels

pixels = Pixels()


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    yield
    pixels.close()


app = FastAPI(lifespan=lifespan)


@app.get("/pixel/v1/{call}")
async def pixel(call: str, request: Request) -> Response:
    headers = request.headers
    status = pixels.take(
        call == "track",
        request.scope["query_string"],
        headers.get("x-forwarded-for", ""),
        headers.get("user-agent"),
    )
    return Response(GIF, status, {"cache-control": NO_STORE}, "image/gif")
