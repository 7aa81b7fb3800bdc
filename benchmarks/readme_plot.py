"""Draw the plot of README, CPU time per request, from the table in RESULTS.md.

`python -m benchmarks.readme_plot` writes `benchmarks/plots/cpu.svg`. The text is grey, which can be
read on the light and the dark background of GitHub.
"""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["cpu_us", "draw"]

RESULTS = Path(__file__).with_name("RESULTS.md")
PLOT = Path(__file__).with_name("plots") / "cpu.svg"
CONNECTIONS = 256
# In the order of the plot: a server of RESULTS.md, its name, and its work for each pixel.
BARS = (
    ("nginx", "nginx", "empty_gif and a buffered log line; no decoding, no sync"),
    ("pixelfast", "pixelfast", "decodes the event and syncs it to disk before the response"),
    ("granian", "Granian (Rust)", "pixelfast's decoder, buffered write, no sync"),
    ("go", "Go net/http", "buffered write, no sync"),
    ("uvicorn", "uvicorn", "pixelfast's decoder, buffered write, no sync"),
    ("aiohttp", "aiohttp", "pixelfast's decoder, buffered write, no sync"),
    ("fastapi", "FastAPI", "pixelfast's decoder, buffered write, no sync"),
)
WIDTH, ROW, LEFT, TOP = 760, 36, 130, 40
STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #7a848e }
.title { font-size: 16px; font-weight: 600 }
.small { font-size: 11px }
.own { font-weight: 700; fill: #e8590c }
rect { fill: #8c9aa8 }
rect.own { fill: #e8590c }
"""


def cpu_us(results: str) -> dict[str, float]:
    """Return the median CPU time of a request of each server, from the text of RESULTS.md.

    Of several tables with the same server, the first one counts: all servers are in it.
    """
    row = rf"^\| ([a-z +]+) \| {CONNECTIONS} \| [^|]+ \| ([0-9.]+) \("
    found: dict[str, float] = {}
    for name, us in re.findall(row, results, re.MULTILINE):
        found.setdefault(name, float(us))
    return found


def svg(results: str) -> str:
    """Return the plot of the text of RESULTS.md."""
    by_server = cpu_us(results)
    scale = (WIDTH - LEFT - 60) / max(by_server[server] for server, _, _ in BARS)
    height = TOP + ROW * len(BARS)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"',
        '     aria-label="CPU time per pixel of pixelfast, nginx and other servers">',
        f"<style>\n{STYLE}</style>",
        f'<text class="title" y="18">CPU time per pixel, µs ({CONNECTIONS} connections)</text>',
    ]
    for row, (server, name, work) in enumerate(BARS):
        y = TOP + ROW * row
        us = by_server[server]
        own = ' class="own"' if server == "pixelfast" else ""
        end = LEFT + us * scale
        lines += [
            f'<text{own} x="{LEFT - 10}" y="{y + 15}" text-anchor="end">{name}</text>',
            f'<rect{own} x="{LEFT}" y="{y + 3}" width="{us * scale:.1f}" height="15" rx="2"/>',
            f'<text{own} x="{end + 6:.1f}" y="{y + 15}">{us:.1f}</text>',
            f'<text class="small" x="{LEFT}" y="{y + 30}">{work}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])


def draw() -> Path:
    """Write the plot; return its path."""
    PLOT.write_text(svg(RESULTS.read_text("utf-8")), "utf-8")
    return PLOT


if __name__ == "__main__":
    print(draw())
