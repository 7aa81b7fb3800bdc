"""Check that every event that locust's users sent with a 200 arrives once, and no other.

Locust is the slowest link here: this checks correctness under a mixed load, not the top rate.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import orjson

USERS, SPAWN_PER_S, SECONDS = 50, 25, 20
ARRIVE_S = 30.0
SETTINGS = ("--listen", "127.0.0.1:0", "--admin", "", "--workers", "1")


def welcome_of(server: subprocess.Popen[str]) -> tuple[str, str]:
    """Return the base URL and the write key that the server prints when it is ready."""
    assert server.stdout is not None
    for line in server.stdout:
        if match := re.search(r"pixel    (http://[^/]+)/\S*writeKey=([\w-]+)", line):
            return match[1], match[2]
    raise RuntimeError("the server did not start")


def delivered(folder: Path) -> Iterator[str]:
    for path in folder.glob("*.ndjson"):
        for line in path.read_bytes().splitlines():
            yield orjson.loads(line)["messageId"]


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="pixelfast-locust-") as folder:
        data, accepted_path = Path(folder) / "data", Path(folder) / "accepted"
        server = subprocess.Popen(
            [sys.executable, "-m", "pixelfast", "serve", "--data-dir", str(data), *SETTINGS],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            base, key = welcome_of(server)
            locust = subprocess.run(
                [
                    *(sys.executable, "-m", "locust", "--headless", "--only-summary"),
                    *("-f", str(Path(__file__).with_name("locustfile.py")), "--host", base),
                    *("-u", str(USERS), "-r", str(SPAWN_PER_S), "-t", f"{SECONDS}s"),
                    *("--stop-timeout", "10", "--exit-code-on-error", "1"),
                ],
                env={
                    **os.environ,
                    "PIXELFAST_WRITE_KEY": key,
                    "PIXELFAST_ACCEPTED": str(accepted_path),
                },
                check=False,
            )
            accepted = accepted_path.read_text().split()
            deadline = time.monotonic() + ARRIVE_S
            while True:
                arrived = Counter(delivered(data / "events" / "archive"))
                missing = [one for one in accepted if one not in arrived]
                if not missing or time.monotonic() > deadline:
                    break
                time.sleep(0.2)
        finally:
            server.terminate()
            server.wait(30)
    twice = sum(arrived.values()) - len(arrived)
    invented = len(set(arrived) - set(accepted))
    print(
        f"accepted {len(accepted):,}, arrived {len(arrived):,}, missing {len(missing):,}, "
        f"twice {twice:,}, never accepted {invented:,}"
    )
    # Locust does not wait for the last responses, so more events may be stored than it saw.
    if locust.returncode or missing or twice or invented > USERS or not accepted:
        sys.exit("locust: failed")


if __name__ == "__main__":
    main()
