"""The meaning of each HTTP status for a batch."""

from __future__ import annotations

import pytest

from pixelfast.deliver.http.responses import Response, classify
from pixelfast.deliver.outcomes import Accepted, Held, Rejected, Retry

RETRIED = {408, 425, 429, *range(500, 600)} - {501, 505}
REJECTED = {400, 413, 422}


def meaning_of(status: int) -> object:
    reason = f"status {status}"
    if 200 <= status <= 299:
        return Accepted()
    if status in RETRIED:
        return Retry(reason, 30.0, status, b"why")
    if status in REJECTED:
        return Rejected(reason, status, b"why", is_too_large=status == 413)
    return Held(reason, status, b"why", is_final=status == 410)


def test_every_status_has_its_meaning() -> None:
    for status in range(100, 1000):
        assert meaning_of(status) == classify(Response(status, "30", b"why"))


@pytest.mark.parametrize("status", [400, 404, 503])
def test_a_response_is_kept_up_to_a_kilobyte(status: int) -> None:
    outcome = classify(Response(status, None, b"a" * 1024 + b"b"))
    assert b"a" * 1024 == outcome.response  # type: ignore[union-attr]
