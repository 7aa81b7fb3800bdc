"""1,000 realistic pixels: the documented track call with various ids, as nginx forwards it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

__all__ = ["DOCUMENTED", "HEADERS", "PIXELS", "targets", "write_script", "write_wrk_script"]

PIXELS = 1000
HEADERS = {
    "Host": "pixel.example.com",
    "X-Forwarded-For": "203.0.113.7",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Accept": "image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5",
    "Accept-Language": "en-US,en;q=0.5",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Referer": "https://example.com/",
    "Sec-Fetch-Dest": "image",
    "Sec-Fetch-Mode": "no-cors",
    "Sec-Fetch-Site": "cross-site",
}


def _target(write_key: str, person: str, product: str, revenue: str) -> str:
    fields = {
        "writeKey": write_key,
        "anonymousId": person,
        "context.locale": "en-US",
        "context.userAgent": "Mozilla/5.0 (Windows NT 10.0; Win64; x64)",
        "context.page.path": f"/product/{product}",
        "context.page.url": f"https://example.com/product/{product}",
        "context.page.referrer": "https://example.com/",
        "context.page.title": "Product Page",
        "context.screen.width": "1920",
        "context.screen.height": "1080",
        "name": "Product Page",
        "event": "Product Viewed",
        "properties.productId": product,
        "properties.revenue": revenue,
    }
    query = "&".join(f"{name}={quote(value, safe='()')}" for name, value in fields.items())
    return f"/pixel/v1/track?{query}"


DOCUMENTED = _target("wk-demo", "anon-123", "sku-123", "29.99")


def targets(*write_keys: str) -> list[str]:
    """Return the pixels, each with another person and product; at least one for each write key."""
    return [
        _target(
            write_keys[n % len(write_keys)],
            f"anon-{n * 7919}",
            f"sku-{n}",
            f"{n % 500}.{n % 90 + 10}",
        )
        for n in range(max(PIXELS, len(write_keys)))
    ]


_SCRIPT = """
local requests, sent = {{}}, 0
local targets = {{
{targets}
}}
local headers = {{
{headers}
}}
function init(args)
  for i, target in ipairs(targets) do requests[i] = wrk.format("GET", target, headers) end
end
function request()
  sent = sent % #requests + 1
  return requests[sent]
end
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d %d\\n", summary.requests, summary.duration,
    errors.connect + errors.read + errors.write + errors.timeout, errors.status,
    latency:percentile(50), latency:percentile(99)))
end
"""


def write_wrk_script(path: Path, *write_keys: str) -> None:
    """Write a script for wrk that sends the pixels in turn and prints one line of figures."""
    write_script(path, targets(*write_keys), HEADERS)


def write_script(path: Path, own: Sequence[str], headers: Mapping[str, str]) -> None:
    """Write a script for wrk that sends these targets in turn, each with these headers."""
    path.write_text(
        _SCRIPT.format(
            targets=",\n".join(f'  "{target}"' for target in own),
            headers=",\n".join(f'  ["{name}"] = "{text}"' for name, text in headers.items()),
        )
    )
