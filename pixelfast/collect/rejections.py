"""Log rejected pixels: at most one line per second for each reason.

Rejections with 503 are logged at most once per minute: the cause is the server and not the client,
and the log must not fill a disk that is already full.

A line shows the client's address and the host of the page, so that the operator can find the faulty
pixel. It never contains the write key or the query.
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
_PREFIXES = {4: 24, 6: 48}  # prefix length of masked addresses, by IP version


@dataclass(slots=True)
class _Reason:
    logged_s: float
    suppressed: int = 0  # since `logged_s`
    interval_s: float = _INTERVAL_S


class RejectionLog:
    """Decide which rejections are logged, and log them.

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
        """Apply new settings without resetting the intervals."""
        self._is_on = settings.rejections
        self._addresses = settings.addresses

    def is_due(self, reason: str, now_s: float) -> bool:
        """Count a rejection and return whether the caller must log it with `write`.

        Args:
            reason: the reason of the rejection.
            now_s: monotonic time in seconds.
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
        """Log a rejection for which `is_due` returned True. Empty values are omitted."""
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
        """Log the counts of suppressed rejections whose reason has not recurred.

        Call this once per second, and with `is_end` before the process ends.
        """
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
        """Return the address as `log.addresses` allows it to be logged."""
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
    """Return the host of a referrer, or "" if no browser would send such a referrer."""
    try:
        host = urlsplit(referrer.decode("ascii")).hostname or ""
    except ValueError:
        return ""
    return host if _HOST.fullmatch(host) else ""
