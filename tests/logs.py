"""Check that a log contains no write keys, no queries, and no addresses that must be masked.

`tests.servers` and `tests.program` check the log of every program that they start, when it ends.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

# All write keys of the tests begin with this prefix.
_KEY = re.compile(r"\bwk[-_]\w[\w-]*")
_QUERY = re.compile(
    r"write_?key=|/pixel/v1/\w+\?|[?&](?:userId|anonymousId|messageId|event|name|properties|context)\b",
    re.IGNORECASE,
)
# The documentation networks of RFC 5737 and RFC 3849, which all clients of tests use.
_ADDRESS = re.compile(
    r"\b(?:192\.0\.2|198\.51\.100|203\.0\.113)\.\d+\b(?!/24)"
    r"|\b2001:db8:[0-9a-f:]*(?![0-9a-f:]|/48)",
    re.IGNORECASE,
)


def check_log(log: str, settings: str = "", data_dir: Path | None = None) -> None:
    """Fail if a log contains anything that it must not contain.

    `settings` is the settings file of the program; `data_dir` may hold the key of the demo source.
    """
    found = [
        f"{what}: {line}"
        for line in log.splitlines()
        for what in _leaks(line, _keys(settings, data_dir), settings)
    ]
    assert not found, "the log contains\n" + "\n".join(found)


def _leaks(line: str, keys: list[str], settings: str) -> Iterator[str]:
    if _KEY.search(line) or any(key in line for key in keys):
        yield "a write key"
    if _QUERY.search(line):
        yield "a query"
    if 'addresses = "full"' in settings:
        return
    match = _ADDRESS.search(line)
    if match and match[0] not in settings:  # the address of a destination or a listener
        yield "the address of a client"
    if line.startswith("{") and "pixel_rejected" in line:
        address = json.loads(line).get("address", "")
        if address and not address.endswith(("/24", "/48")):
            yield "an address that is not masked"


def _keys(settings: str, data_dir: Path | None) -> list[str]:
    """Return all write keys, except short ones, which may be part of other words."""
    keys = []
    for source in tomllib.loads(settings).get("sources", []):
        given = source.get("write_keys", [])
        keys += [each.get("key") if isinstance(each, dict) else each for each in given]
    if data_dir is not None and (data_dir / "demo-write-key").exists():
        keys.append((data_dir / "demo-write-key").read_text().strip())
    return [key for key in keys if isinstance(key, str) and len(key) >= 6]
