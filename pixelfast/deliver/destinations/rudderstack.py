"""A RudderStack data plane: its batch API is the HTTP sender with an envelope."""

from __future__ import annotations

from pixelfast.config import RudderstackDestination
from pixelfast.deliver.destinations.http import HttpSender, basic, shared_options

__all__ = ["rudderstack_sender"]


def rudderstack_sender(settings: RudderstackDestination) -> HttpSender:
    """Sends `{"batch":[…]}` to `{url}/v1/batch`; the write key is the user of basic auth.

    Source: RudderStack's HTTP API specification, "Batch". Its servers refuse bodies over 4 MB and
    events over 32 KB; a batch is taken as a whole or refused as a whole.
    """
    return HttpSender(
        settings.url.rstrip("/") + "/v1/batch",
        "json_array",
        headers={"Authorization": basic(settings.write_key, "")},
        wrap=(b'{"batch":[', b"]}"),
        **shared_options(settings),
    )
