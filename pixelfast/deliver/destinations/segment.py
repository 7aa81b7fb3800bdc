"""Twilio Segment: RudderStack's API is its own, with other limits."""

from __future__ import annotations

from pixelfast.config import SegmentDestination
from pixelfast.deliver.http.sender import HttpSender, basic, shared_options

__all__ = ["segment_sender"]


def segment_sender(settings: SegmentDestination) -> HttpSender:
    """Sends `{"batch":[…]}` to `{url}/v1/batch`; the write key is the user of basic auth.

    Source: Twilio Segment's documentation, "HTTP API Source": a batch may have 500 KB and each of
    its events 32 KB, larger ones are answered with 400; every other reply is 200, whether an event
    is valid or not. Segment drops repeated values of `messageId`.
    """
    return HttpSender(
        settings.url.rstrip("/") + "/v1/batch",
        "json_array",
        headers={"Authorization": basic(settings.write_key, "")},
        wrap=(b'{"batch":[', b"]}"),
        **shared_options(settings),
    )
