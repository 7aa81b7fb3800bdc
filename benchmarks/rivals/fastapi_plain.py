"""FastAPI on uvicorn in plain Python, without any compiled code of pixelfast.

It supports nested names and numbers, but not arrays, limits or fields that stay strings.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl
from uuid import uuid4

from fastapi import FastAPI, Request, Response

from benchmarks.rivals.straight import BUFFER_BYTES, GIF, KEY, NO_STORE, events_file

NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
file = events_file().open("a", BUFFER_BYTES, encoding="utf-8")


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    yield
    file.close()


app = FastAPI(lifespan=lifespan)


def number_or_text(text: str) -> int | float | str:
    if not (found := NUMBER.fullmatch(text)):
        return text
    return float(text) if found[1] else int(text)


def nested(query: str) -> dict[str, Any]:
    event: dict[str, Any] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        *parents, last = name.split(".")
        place = event
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = number_or_text(text)
    return event


@app.get("/pixel/v1/{call}")
async def pixel(call: str, request: Request) -> Response:
    event = nested(request.url.query)
    if event.pop("writeKey", None) != KEY:
        return Response(status_code=401)
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    event["type"] = call
    context = event.setdefault("context", {})
    context.setdefault("userAgent", request.headers.get("user-agent", ""))
    event["channel"] = "web"
    event["integrations"] = {"All": True}
    event["messageId"] = str(uuid4())
    for name in ("receivedAt", "originalTimestamp", "sentAt", "timestamp"):
        event[name] = now
    event["request_ip"] = request.headers.get("x-forwarded-for", "")
    file.write(json.dumps(event) + "\n")
    return Response(GIF, headers={"Cache-Control": NO_STORE}, media_type="image/gif")
