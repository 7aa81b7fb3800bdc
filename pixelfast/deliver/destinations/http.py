"""Any HTTP endpoint that accepts JSON."""

from __future__ import annotations

from multidict import CIMultiDict

from pixelfast.config import HttpDestination
from pixelfast.deliver.http.sender import HttpSender, basic, shared_options
from pixelfast.deliver.http.signatures import Webhook
from pixelfast.deliver.timing import DeliveryClock

__all__ = ["http_sender"]


def http_sender(
    settings: HttpDestination,
    clock: DeliveryClock = DeliveryClock(),  # noqa: B008 - only an engine's notices jumps
) -> HttpSender:
    """Return the sender of a `type = "http"` destination."""
    headers = CIMultiDict(settings.headers)
    if settings.username:
        auth = basic(settings.username, settings.password or "")
        headers.setdefault("Authorization", auth)
    elif settings.bearer_token:
        headers.setdefault("Authorization", f"Bearer {settings.bearer_token}")
    return HttpSender(
        settings.url,
        settings.format,
        headers=headers,
        webhook=Webhook(settings.signing_secrets, clock),
        **shared_options(settings),
    )
