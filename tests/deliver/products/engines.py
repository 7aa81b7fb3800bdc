"""The delivery engine with one destination, until all events are settled."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import closing
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from pixelfast.config import Config, Destination
from pixelfast.deliver.dead import DeadLetters
from pixelfast.spool import DataDir
from tests.deliver.runners import make_engine, running
from tests.deliver.running import run
from tests.spools import Feed
from tests.waiting import until

__all__ = ["SHORT", "Dead", "ask", "dead_letters", "deliver"]

SHORT = {"max_age_s": 0.02, "retry_first_s": 0.01, "retry_most_s": 0.02, "start": "earliest"}
_BOUND_S = 60.0


class Dead(NamedTuple):
    event: dict[str, Any]
    reason: str
    response: str


def deliver(
    destination: Destination, data: DataDir, events: Iterable[bytes] = (), state: str = "healthy"
) -> dict[str, Any]:
    """Deliver events until none is pending or the destination is held; return its figures."""

    async def main() -> dict[str, Any]:
        with Feed(data, segment_bytes=2**20) as feed:
            for event in events:
                feed.write(event)
        engine = make_engine(data, config=Config(destinations=(destination,)))

        def figures() -> dict[str, Any]:
            return engine.stats()["destinations"][destination.name]

        def is_over() -> bool:
            now = figures()
            is_settled = now.get("stored", 0) > 0 and not now.get("pending")
            return now["state"] == "held" or (state == "healthy" and is_settled)

        async with running(engine):
            await until(is_over, _BOUND_S)
            return figures()

    return run(main(), _BOUND_S + 20.0)


def dead_letters(data: DataDir, name: str) -> list[Dead]:
    path = data.dead_dir(name) / "dead.db"
    if not path.exists():
        return []
    with closing(DeadLetters(path)) as dead:
        return [
            Dead(json.loads(each.event), each.reason, each.response.decode())
            for each in dead.read()
        ]


def ask(url: str, method: str = "GET", body: object = None, **query: str) -> Any:
    """Send a request to a product; a string is sent unchanged, anything else as JSON."""
    packed = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    request = Request(  # noqa: S310 - loopback
        f"{url}?{urlencode(query)}" if query else url,
        method=method,
        data=None if body is None else packed,
        headers={"Content-Type": "application/json"},
    )
    try:
        with urlopen(request, timeout=30.0) as response:  # noqa: S310
            text = response.read().decode()
    except HTTPError as error:
        with error:
            raise AssertionError(f"{method} {url}: {error.read().decode()[:1000]}") from None
    return json.loads(text) if text.startswith("{") and "\n{" not in text else text
