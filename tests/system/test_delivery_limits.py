"""Delivery with destinations that accept nothing: memory is limited, and the others continue."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

from tests.fake_destination import FakeDestination, FakeResponse, Request
from tests.load import Load
from tests.servers import Server, serving
from tests.waiting import wait_until

KINDS = {
    "hangs": FakeResponse(first="never"),
    "fails": FakeResponse(500),
    "resets": FakeResponse(first="reset"),
    "holds": FakeResponse(401),
}
LOOKS = 16  # at the lag, while pixels arrive
MAX_MEMORY_MIB = 256  # the default
LAG = "pixelfast_delivery_lag_seconds"
MAX_LAG_S = 5.0  # a delayed one would wait for the timeout of another, 30 s

DESTINATION = """
[[destinations]]
name = "{kind}-{number}"
type = "http"
url = "{url}/{kind}"
max_age_s = {max_age_s}
"""


def most_mib(pid: int) -> float:
    """Return the peak resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def has_lag(server: Server, destination: str) -> bool:
    return f'{LAG}{{destination="{destination}"}} ' in server.admin("/metrics")


def lag_s(server: Server, destination: str) -> float:
    label = f'{LAG}{{destination="{destination}"}} '
    (line,) = (each for each in server.admin("/metrics").splitlines() if each.startswith(label))
    return float(line.removeprefix(label))


def test_27_destinations_that_take_nothing_cost_neither_memory_nor_the_good_one(
    tmp_path: Path,
) -> None:
    def script(request: Request) -> FakeResponse:
        return KINDS[request.path.rpartition("/")[2]]

    async def main() -> None:
        async with FakeDestination(script) as bad:
            parts = ['[log]\nlevel = "error"\n[[destinations]]\nname = "archive"\ntype = "file"\n']
            for number in range(27):
                kind = list(KINDS)[number % len(KINDS)]
                age_s = (0.1, 1.0, 60.0)[number % 3]
                parts.append(
                    DESTINATION.format(kind=kind, number=number, url=bad.url, max_age_s=age_s)
                )
            parts.append('[[sources]]\nname = "web"\nwrite_keys = ["wk-web"]\n')
            settings = "".join(parts)
            with serving(tmp_path / "data", "--workers", "2", settings=settings) as server:
                has_figures = partial(has_lag, server, "archive")
                await asyncio.to_thread(wait_until, has_figures, "delivery reports its figures")
                load = Load(server.port, server.write_key, connections=8)
                load.start()
                lags = []
                for _ in range(LOOKS):
                    await load.until_acked(200)
                    lags.append(await asyncio.to_thread(lag_s, server, "archive"))
                await load.stop()
                found = await asyncio.to_thread(server.wait_for_events, len(load.acked))
                resident_mib = most_mib(server.children()["pf-delivery"])
                assert set(load.acked) <= {each["event"] for each in found}
                assert resident_mib <= MAX_MEMORY_MIB
                assert max(lags) <= MAX_LAG_S, lags

    asyncio.run(main())
