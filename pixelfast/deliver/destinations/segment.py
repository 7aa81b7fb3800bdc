"""Twilio Segment, whose API RudderStack has adopted with other limits."""

from __future__ import annotations

from pixelfast.config import SegmentDestination
from pixelfast.deliver.http.sender import HttpSender, basic, shared_options

__all__ = ["segment_sender"]


def segment_sender(settings: SegmentDestination) -> HttpSender:
    """Return a sender of `{"batch":[…]}` to `{url}/v1/batch`.

    The write key is the user name of basic authentication.

    Source: Twilio Segment's documentation, "HTTP API Source": a batch may have 500 KB and each of
    its events 32 KB; the response to a larger one is 400. Every other response is 200, whether the
    events are valid or not. Segment drops repeated values of `messageId`.
    """
    return HttpSender(
        settings.url.rstrip("/") + "/v1/batch",
        "json_array",
        headers={"Authorization": basic(settings.write_key, "")},
        wrap=(b'{"batch":[', b"]}"),
        **shared_options(settings),
    )
