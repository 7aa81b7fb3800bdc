"""Lines in the log about pixels that are rejected: at most one a second for each reason.

Of pixels that are rejected with 503 there is one a minute: the reason is ours and not the sender's,
and a full disk is not to be filled with its own log.

A line says who sent the pixel, and where the image stands, as far as somebody who mends it has to
know: never the write key or the query.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

import structlog

from pixelfast.config import Log, fingerprint

__all__ = ["RejectionLog"]

_INTERVAL_S = 1.0
_UNAVAILABLE = 503
_UNAVAILABLE_INTERVAL_S = 60.0
_HOST = re.compile(r"[a-z0-9._-]{1,253}|[0-9a-f:.]{2,45}")
_PREFIXES = {4: 24, 6: 48}  # of masked addresses, by version


@dataclass(slots=True)
class _Reason:
    logged_s: float
    suppressed: int = 0  # since then
    interval_s: float = _INTERVAL_S


class RejectionLog:
    """Decides which rejections are logged, and writes their lines.

    >>> RejectionLog(Log()).is_due("no-write-key", 100.0)
    True
    >>> RejectionLog(Log(rejections=False)).is_due("no-write-key", 100.0)
    False
    """

    def __init__(self, settings: Log) -> None:
        self._reasons: dict[str, _Reason] = {}
        self._log = structlog.get_logger("collect")
        self.follow(settings)

    def follow(self, settings: Log) -> None:
        """Follow other settings; the intervals go on."""
        self._is_on = settings.rejections
        self._addresses = settings.addresses

    def is_due(self, reason: str, now_s: float) -> bool:
        """Count a rejection; return whether `write` is to be called for it.

        This is all that a rejection which is not logged costs.
        """
        if not self._is_on:
            return False
        known = self._reasons.get(reason)
        if known is None:
            self._reasons[reason] = _Reason(now_s)
            return True
        if now_s - known.logged_s < known.interval_s:
            known.suppressed += 1
            return False
        known.logged_s = now_s
        return True

    def write(
        self,
        reason: str,
        status: int,
        *,
        source: str = "",
        address: str = "",
        referrer: bytes | None = None,
        write_key: str | None = None,
    ) -> None:
        """Log a rejection that is due; empty values are left out."""
        if status == _UNAVAILABLE:
            self._reasons[reason].interval_s = _UNAVAILABLE_INTERVAL_S
        line = {
            "reason": reason,
            "status": status,
            "source": source,
            "address": self._shown(address),
            "referrer": _host_of(referrer) if referrer else "",
            "key_fingerprint": fingerprint(write_key) if write_key else "",
            "suppressed": self._take_suppressed(reason),
        }
        self._log.warning(
            "pixel_rejected", **{name: value for name, value in line.items() if value}
        )

    def flush(self, now_s: float, *, is_end: bool = False) -> None:
        """Log the counts of reasons that have not come again; to be called once a second."""
        for reason, known in self._reasons.items():
            if known.suppressed and (is_end or now_s - known.logged_s >= 2 * known.interval_s):
                known.logged_s = now_s
                suppressed = self._take_suppressed(reason)
                self._log.warning("pixel_rejected", reason=reason, suppressed=suppressed)

    def _take_suppressed(self, reason: str) -> int:
        known = self._reasons[reason]
        count, known.suppressed = known.suppressed, 0
        return count

    def _shown(self, address: str) -> str:
        """The address as the settings allow it to be shown."""
        if self._addresses == "none" or not address:
            return ""
        if self._addresses == "full":
            return address
        try:
            parsed = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return ""
        network = ipaddress.ip_network((parsed, _PREFIXES[parsed.version]), strict=False)
        return str(network)


def _host_of(referrer: bytes) -> str:
    """The host of a referrer; "" if it is not one that a browser would send."""
    try:
        host = urlsplit(referrer.decode("ascii")).hostname or ""
    except ValueError:
        return ""
    return host if _HOST.fullmatch(host) else ""
