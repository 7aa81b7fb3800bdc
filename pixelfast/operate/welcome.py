"""What `pixelfast serve` says once it takes pixels."""

from __future__ import annotations

from pixelfast import __version__
from pixelfast.config import Config, FileDestination, without_secrets
from pixelfast.printable import printable
from pixelfast.spool import DataDir

__all__ = ["welcome"]


def welcome(
    config: Config, data: DataDir, addresses: list[str], admin_address: str, *, is_demo: bool
) -> str:
    """Where pixels go in, where events come out, and a line to try it.

    The write key is shown for the demo source only; a configured one stays in its file.
    """
    source = config.sources[0]
    key = source.write_keys[0].key if is_demo else f"<write key of {source.name}>"
    tcp = [address for address in addresses if not address.startswith("unix:")]
    base = f"http://{tcp[0]}" if tcp else "http://localhost"
    over_unix = "" if tcp else f"--unix-socket {addresses[0].removeprefix('unix:')} "
    pixel = f"{base}/pixel/v1/track?writeKey={key}&anonymousId=you&event=Hello"
    lines = [
        f"pixelfast {__version__} takes pixels at " + ", ".join(addresses),
        "",
        f"  pixel    {pixel}",
        f"  try it   curl -i {over_unix}'{pixel}'",
    ]
    for destination in config.destinations:
        where = without_secrets(getattr(destination, "url", ""))
        if isinstance(destination, FileDestination):
            where = f"{destination.path or data.events_dir(destination.name)}/*.ndjson"
        lines.append(f"  events   {where}")
    if admin_address and not admin_address.startswith("unix:"):
        lines.append(f"  health   http://{admin_address}/health/ready, /metrics")
    return "\n".join(map(printable, [*lines, "  stop     Ctrl-C", ""]))
