"""Dead letters, one at a time, as delivery adds them."""

from __future__ import annotations

from pixelfast.deliver.bundles import Bundle
from pixelfast.deliver.excerpts import Excerpts

__all__ = ["bundle"]


def bundle(
    number: int = 0,
    event: bytes = b"{}",
    *,
    batch: str = "batch",
    status: int = 400,
    reason: str = "no",
    response: bytes = b"",
    attempts: int = 1,
    source: str = "web",
) -> Bundle:
    return Bundle(
        batch,
        attempts,
        source,
        status,
        reason,
        [number],
        Excerpts.of([event]),
        Excerpts.of([response]),
    )
