"""Secrets are taken out of an outcome where it enters the engine: behind it nothing is secret."""

from __future__ import annotations

import asyncio
import dataclasses

from pixelfast.config import Redactor
from pixelfast.deliver.outcomes import Accepted, Held, Outcome, Partial, Refused, Retry

__all__ = ["masked"]

_EVENTS_A_TURN = 200  # then other destinations get theirs


async def masked(outcome: Outcome, redactor: Redactor) -> Outcome:
    """The outcome with the secrets of the settings masked in its reasons and answers.

    A destination may repeat our headers, and errors may quote a URL. Both are logged, and kept with
    dead letters.
    """
    if isinstance(outcome, Accepted):
        return outcome
    if not isinstance(outcome, Partial):
        return _masked(outcome, redactor)
    done: dict[tuple[str, bytes], tuple[str, bytes]] = {}  # many events fail in the same way
    failed: dict[int, Refused | Retry] = {}
    for index, each in outcome.failed.items():
        said = each.reason, each.answer
        if said not in done:
            if len(done) % _EVENTS_A_TURN == _EVENTS_A_TURN - 1:
                await asyncio.sleep(0)
            done[said] = redactor.text(each.reason), redactor.data(each.answer)
        reason, answer = done[said]
        if said != (reason, answer):
            each = dataclasses.replace(each, reason=reason, answer=answer)
        failed[index] = each
    return dataclasses.replace(outcome, failed=failed)


def _masked(outcome: Retry | Refused | Held, redactor: Redactor) -> Retry | Refused | Held:
    reason, answer = redactor.text(outcome.reason), redactor.data(outcome.answer)
    return dataclasses.replace(outcome, reason=reason, answer=answer)
