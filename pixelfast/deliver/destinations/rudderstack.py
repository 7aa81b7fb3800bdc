"""A RudderStack data plane, which accepts batches inside a JSON object."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace
from typing import Any

import orjson

from pixelfast.config import RudderstackDestination
from pixelfast.deliver.batches import Batch
from pixelfast.deliver.http.sender import EventsRejected, HttpSender, basic, shared_options
from pixelfast.deliver.outcomes import Rejected

__all__ = ["RudderstackSender"]

# Most ids begin with an ASCII character.
_UNUSUAL_ID = re.compile(rb'"(?:anonymousId|userId)":"[^\x00-\x7f]')
# Letters and marks that are invisible. The data plane removes them from ids, and all characters
# that Go's unicode.IsPrint does not regard as printable.
_INVISIBLE = set("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
_PRINTABLE = frozenset("LMNPS")  # the first letters of general categories
_RUN_IDS = ("job_run_id", "task_run_id")
_NO_IDENTITY = Rejected("neither userId nor anonymousId has a visible character")


class RudderstackSender(HttpSender):
    """Send `{"batch":[…]}` to `{url}/v1/batch`; the write key is the user name of basic auth.

    Source: RudderStack's HTTP API specification, "Batch", and its gateway's getJobDataFromRequest.
    The servers reject bodies over 4 MB and events over 32 KB. They accept or reject a batch as a
    whole, and reject it for one event without an identity. The ids of a job run in the first
    event's `context.sources` would apply to the whole batch, so they are removed.
    """

    def __init__(self, settings: RudderstackDestination) -> None:
        super().__init__(
            settings.url.rstrip("/") + "/v1/batch",
            "json_array",
            headers={"Authorization": basic(settings.write_key, "")},
            wrap=(b'{"batch":[', b"]}"),
            **shared_options(settings),
        )

    def body_of(self, batch: Batch) -> bytes:
        events = batch.ndjson()
        if not events.isascii() and _UNUSUAL_ID.search(events):
            lines = enumerate(batch.lines())
            if rejected := {n: _NO_IDENTITY for n, line in lines if _lacks_identity(line)}:
                raise EventsRejected(rejected)
        end = events.find(b"\n")
        if events.find(b"_run_id", 0, end) >= 0:
            batch = replace(batch, body=_without_run(events[:end]) + events[end:])
        return batch.joined(*self._wrap)


def _lacks_identity(line: bytes) -> bool:
    if not _UNUSUAL_ID.search(line):
        return False
    event = orjson.loads(line)
    return not any(_is_visible(event.get(name)) for name in ("userId", "anonymousId"))


def _is_visible(identity: Any) -> bool:
    return any(
        each not in _INVISIBLE and unicodedata.category(each)[0] in _PRINTABLE
        for each in str(identity or "")
    )


def _without_run(line: bytes) -> bytes:
    event = orjson.loads(line)
    context = event.get("context")
    sources = context.get("sources") if isinstance(context, dict) else None
    if not isinstance(sources, dict) or not any(name in sources for name in _RUN_IDS):
        return line
    context["sources"] = {name: each for name, each in sources.items() if name not in _RUN_IDS}
    return orjson.dumps(event)
