"""The published cases of the pixel dialect over HTTP, whole and split, by scan and reader."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.collect.test_split_input import Outcome, outcome_of, split_at
from tests.collect.wire import TO_READER, http, statuses

# Fields that the server adds. The cases omit generated values.
ADDED = {
    "messageId",
    "receivedAt",
    "originalTimestamp",
    "sentAt",
    "timestamp",
    "channel",
    "integrations",
    "request_ip",
}


def event_of(seen: Outcome, expected: dict[str, Any]) -> str:
    (event,) = seen.events
    return canonical({n: value for n, value in event.items() if n not in ADDED or n in expected})


def canonical(event: dict[str, Any]) -> str:
    """Return JSON, in which 1, 1.0 and true differ."""
    return json.dumps(event, sort_keys=True)


@pytest.mark.parametrize("more", [[], [TO_READER]], ids=["scan", "reader"])
def test_a_vector_is_stored_as_published_whole_and_split(
    vector: dict[str, Any], more: list[bytes]
) -> None:
    request = http(vector["target"].encode(), headers=more)
    whole = outcome_of([request])
    assert [vector["status"]] == statuses(whole.sent)
    if vector["status"] == 200:
        expected = {n: value for n, value in vector["event"].items() if n != "messageId"}
        assert canonical(expected) == event_of(whole, expected)
    else:
        assert [] == whole.events
    for place in range(1, len(request), max(1, len(request) // 40)):
        assert whole == outcome_of(split_at(request, [place])), place
