"""Pages, events and mistakes, as a site with a few faulty pixels would send them.

Run it by `make locust`, or against a server of your own:
`PIXELFAST_WRITE_KEY=… locust -f benchmarks/locustfile.py --host http://127.0.0.1:8080`.
Which events were accepted is written to the file named by PIXELFAST_ACCEPTED, one name a line.
"""

from __future__ import annotations

import itertools
import os
import random
from pathlib import Path
from typing import Any

from locust import FastHttpUser, between, events, task

WRITE_KEY = os.environ.get("PIXELFAST_WRITE_KEY", "")
numbers = itertools.count()
accepted: list[str] = []

# Requests of a faulty page, with the expected status.
MISTAKES = [
    ("/pixel/v1/track?writeKey={key}&anonymousId=a", 400),
    ("/pixel/v1/page?writeKey={key}&name=Home", 400),
    ("/pixel/v1/page?writeKey=wrong&anonymousId=a", 401),
    ("/pixel/v1/identify?writeKey={key}&anonymousId=a", 404),
    ("/pixel/v1/page?writeKey={key}&anonymousId=a&x=" + "x" * 33_000, 414),
]


class Visitor(FastHttpUser):
    """A visitor who views pages; each view is a page call and sometimes a track call."""

    wait_time = between(0.0, 0.01)

    def on_start(self) -> None:
        # The client decodes the body of an unsuccessful response as text, but it is the GIF.
        self.client.client.valid_response_codes = frozenset(range(100, 600))

    @task(6)
    def page(self) -> None:
        self._send("page", {"name": "Home", "context.page.path": "/", "properties.n": "7"})

    @task(3)
    def track(self) -> None:
        self._send("track", {"event": "Bought", "properties.revenue": "29.99"})

    @task(1)
    def mistake(self) -> None:
        target, status = random.choice(MISTAKES)
        with self.client.get(
            target.format(key=WRITE_KEY), name="mistakes", catch_response=True
        ) as response:
            if response.status_code != status:
                response.failure(f"{response.status_code} instead of {status}")

    def _send(self, call: str, fields: dict[str, str]) -> None:
        one = f"{os.getpid()}-{next(numbers)}"
        parameters = {"writeKey": WRITE_KEY, "anonymousId": one, "messageId": one, **fields}
        target = f"/pixel/v1/{call}?" + "&".join(f"{k}={v}" for k, v in parameters.items())
        with self.client.get(target, name=call, catch_response=True) as response:
            if response.status_code == 200:
                accepted.append(one)
            else:
                response.failure(f"{response.status_code} instead of 200")


@events.quitting.add_listener
def write_accepted(**_: Any) -> None:
    """Write the names of the events that must arrive."""
    if path := os.environ.get("PIXELFAST_ACCEPTED"):
        Path(path).write_text("".join(f"{one}\n" for one in accepted))
