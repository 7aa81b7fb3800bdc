"""The headers of Standard Webhooks, which authenticate a request and identify retries."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable

from pixelfast.deliver.timing import DeliveryClock

__all__ = ["Webhook"]


class Webhook:
    """Make the headers of a request, with signatures if there are secrets.

    Source: the Standard Webhooks specification 1.0.0, "Webhook headers" and "Signature scheme".
    A secret is `whsec_` and base64 of 24 to 64 bytes. Each secret results in a signature, so that a
    receiver can rotate its secret.
    """

    def __init__(
        self,
        secrets: Iterable[str] = (),
        clock: DeliveryClock = DeliveryClock(),  # noqa: B008 - only an engine's notices jumps
    ) -> None:
        self._keys = [base64.b64decode(each.removeprefix("whsec_")) for each in secrets]
        self._clock = clock

    def headers(self, message_id: str, body: bytes) -> dict[str, str]:
        """Return the headers for `body`, which is compressed if the request's body is.

        The id is the same on every attempt; the timestamp is that of this attempt.

        >>> clock = DeliveryClock(wall_s=lambda: 1614265330.0)
        >>> webhook = Webhook(["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"], clock)
        >>> webhook.headers("msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}')[
        ...     "webhook-signature"]
        'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE='
        """
        seconds = str(int(self._clock.wall_s()))
        headers = {"webhook-id": message_id, "webhook-timestamp": seconds}
        if self._keys:
            signed = f"{message_id}.{seconds}.".encode() + body
            headers["webhook-signature"] = " ".join(_sign(key, signed) for key in self._keys)
        return headers


def _sign(key: bytes, content: bytes) -> str:
    digest = hmac.new(key, content, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()
