"""Behind the runner no outcome holds a secret of the settings."""

from __future__ import annotations

import asyncio

import pytest

from pixelfast.config import HttpDestination, Redactor
from pixelfast.config.schema import Config
from pixelfast.deliver import engine, masking
from pixelfast.deliver.masking import masked
from pixelfast.deliver.outcomes import Accepted, Held, Outcome, Partial, Refused, Retry
from pixelfast.spool import DataDir

HOOK = HttpDestination(name="h", url="https://h.example", bearer_token="bear3r-token")
REDACTOR = Redactor(Config(destinations=(HOOK,)))
REASON, ANSWER = "no bear3r-token", b"no: Bearer bear3r-token"


def outcome_of(outcome: Outcome) -> Outcome:
    return asyncio.run(masked(outcome, REDACTOR))


@pytest.mark.parametrize("kind", [Retry, Refused, Held])
def test_reason_and_answer_of_every_outcome_are_masked(kind: type[Retry | Refused | Held]) -> None:
    found = outcome_of(kind(REASON, status=500, answer=ANSWER))
    assert kind("no …", status=500, answer="no: Bearer …".encode()) == found


def test_what_an_outcome_says_beside_them_stays() -> None:
    assert Retry("…", 7.0, 503, b"x") == outcome_of(Retry("bear3r-token", 7.0, 503, b"x"))
    assert outcome_of(Held("x", 410, is_final=True)) == Held("x", 410, is_final=True)
    accepted = Accepted({"file": "bear3r-token"})  # the destination's own, kept as it is
    assert outcome_of(accepted) is accepted


def test_every_event_of_a_partial_outcome_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "_EVENTS_A_TURN", 3)
    failed: dict[int, Refused | Retry] = {
        n: (Refused if n % 2 else Retry)(REASON, status=400, answer=ANSWER + b" %d" % (n // 3))
        for n in range(20)
    }
    found = outcome_of(Partial(failed))
    assert isinstance(found, Partial)
    assert list(range(20)) == list(found.failed)
    for n, each in found.failed.items():
        assert type(failed[n])("no …", status=400, answer=f"no: Bearer … {n // 3}".encode()) == each


def test_a_large_partial_outcome_lets_others_have_their_turns() -> None:
    async def main() -> int:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        await masked(Partial({n: Refused("x", 400, b"%d" % n) for n in range(2000)}), REDACTOR)
        counting.cancel()
        return turns

    assert asyncio.run(main()) >= 9


def test_why_a_destination_is_unusable_is_told_without_its_secrets(
    data: DataDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise ValueError("cannot use Bearer bear3r-token")

    monkeypatch.setattr(engine, "make_sender", fail)
    made = engine.Engine(Config(destinations=(HOOK,)), data)
    told = made.stats()["destinations"]["h"]
    assert ("unusable", "cannot use Bearer …") == (told["state"], told["last_error"])


def test_a_runner_that_fails_tells_no_secret(
    data: DataDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> str:
        made = engine.Engine(Config(destinations=(HOOK,)), data)
        runner = made.runners[0]

        async def fail() -> None:
            raise ValueError("bear3r-token")

        async def pause(_seconds: float) -> bool:
            return True

        monkeypatch.setattr(runner, "run", fail)
        monkeypatch.setattr(runner, "pause", pause)
        await made.run()
        return runner.last_error

    assert "…" == asyncio.run(main())
