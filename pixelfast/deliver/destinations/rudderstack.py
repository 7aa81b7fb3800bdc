"""A RudderStack data plane: its batch API is the HTTP sender with an envelope."""

from __future__ import annotations

import aiohttp

from pixelfast.config import RudderstackDestination
from pixelfast.deliver.batches import Limits
from pixelfast.deliver.destinations.http import HttpSender, Timeouts

__all__ = ["rudderstack_sender"]


def rudderstack_sender(settings: RudderstackDestination) -> HttpSender:
    """Sends `{"batch":[…]}` to `{url}/v1/batch`; the write key is the user of basic auth.

    Source: RudderStack's HTTP API specification, "Batch". Its servers refuse bodies over 4 MB and
    events over 32 KB.
    """
    return HttpSender(
        settings.url.rstrip("/") + "/v1/batch",
        "json_array",
        Limits(settings.max_events, settings.max_bytes, settings.max_age_s),
        headers={"Authorization": aiohttp.encode_basic_auth(settings.write_key, "")},
        gzip=settings.gzip,
        timeouts=Timeouts(settings.timeout_s, settings.connect_timeout_s),
        wrap=(b'{"batch":[', b"]}"),
        retry_s=(settings.retry_first_s, settings.retry_most_s),
    )
