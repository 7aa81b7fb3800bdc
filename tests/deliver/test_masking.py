"""Outcomes contain no secrets of the settings."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest

from pixelfast.config import HttpDestination, Redactor
from pixelfast.config.schema import Config
from pixelfast.deliver.engine import Engine
from pixelfast.deliver.lines import pick_lines
from pixelfast.deliver.masking import masked
from pixelfast.deliver.outcomes import (
    Accepted,
    FailureGroup,
    Failures,
    Held,
    Outcome,
    Partial,
    Rejected,
    Retry,
)
from pixelfast.deliver.sender import Sender
from pixelfast.deliver.timing import DeliveryClock
from pixelfast.spool import DataDir

HOOK = HttpDestination(name="h", url="https://h.example", bearer_token="bear3r-token")
REDACTOR = Redactor(Config(destinations=(HOOK,)))
REASON, ANSWER = "no bear3r-token", b"no: Bearer bear3r-token"


def outcome_of(outcome: Outcome) -> Outcome:
    return asyncio.run(masked(outcome, REDACTOR))


@pytest.mark.parametrize("kind", [Retry, Rejected, Held])
def test_reason_and_response_of_every_outcome_are_masked(
    kind: type[Retry | Rejected | Held],
) -> None:
    found = outcome_of(kind(REASON, status=500, response=ANSWER))
    assert kind("no …", status=500, response="no: Bearer …".encode()) == found


def test_other_fields_of_an_outcome_are_not_changed() -> None:
    assert Retry("…", 7.0, 503, b"x") == outcome_of(Retry("bear3r-token", 7.0, 503, b"x"))
    assert outcome_of(Held("x", 410, is_final=True)) == Held("x", 410, is_final=True)
    accepted = Accepted({"file": "bear3r-token"})  # the destination's own memory is not changed
    assert outcome_of(accepted) is accepted


def test_every_event_of_a_partial_outcome_is_masked() -> None:
    failed: dict[int, Rejected | Retry] = {
        n: (Rejected if n % 2 else Retry)(REASON, status=400, response=ANSWER + b" %d" % (n // 3))
        for n in range(20)
    }
    found = outcome_of(Partial.of(failed))
    assert isinstance(found, Partial)
    assert list(range(20)) == list(found.failed)
    for n, each in found.failed.items():
        assert (
            type(failed[n])("no …", status=400, response=f"no: Bearer … {n // 3}".encode()) == each
        )


def test_a_response_that_several_events_share_is_masked_for_each() -> None:
    shared, other = Rejected("no", 400, ANSWER), Rejected("no", 400, b"nothing")
    found = outcome_of(Partial.of({0: other, 1: shared, 2: shared, 3: shared, 4: other}))
    masked_one = Rejected("no", 400, "no: Bearer …".encode())
    assert Partial.of({0: other, **dict.fromkeys((1, 2, 3), masked_one), 4: other}) == found


def test_secrets_beside_responses_and_in_them_are_told_apart() -> None:
    """The responses of a batch are parts of one body."""
    body = b"bear3r-token{bear3r-token}bear3r-token{}bear3r{no}"
    lines = pick_lines(body.replace(b"{", b"\n{").replace(b"}", b"}\n") + b"\n", [1, 3, 5])
    assert [b"{bear3r-token}", b"{}", b"{no}"] == list(lines)
    failures = Failures([FailureGroup(Rejected("no", 400), [0, 1, 2], lines)])
    found = outcome_of(Partial(failures))
    assert isinstance(found, Partial)
    (group,) = found.failed.groups
    assert ["{…}".encode(), b"{}", b"{no}"] == list(group.responses)


def test_a_partial_outcome_with_a_secret_in_reasons_only_is_masked() -> None:
    failed = {n: Rejected(REASON if n % 2 else "no", 400, b"nothing") for n in range(4)}
    expected = {n: Rejected("no …" if n % 2 else "no", 400, b"nothing") for n in range(4)}
    assert Partial.of(expected) == outcome_of(Partial.of(failed))


def test_a_partial_outcome_without_secrets_stays_the_same_object() -> None:
    outcome = Partial.of({n: Rejected("no", 400, b"nothing") for n in range(4)})
    assert outcome_of(outcome) is outcome


class Costly(Redactor):
    """Masking takes this long per response by its own clock; counts the responses of each turn."""

    def __init__(self, cost_s: float) -> None:
        super().__init__()
        self.cost_s = cost_s
        self.now_s = 0.0
        self.turn = 0
        self.cost_of_turns: Counter[int] = Counter()

    def data(self, data: bytes) -> bytes:
        if data:
            self.now_s += self.cost_s
            self.cost_of_turns[self.turn] += 1
        return super().data(data)

    def suspects(self, data: bytes, end_of: Callable[[int], int]) -> set[int]:
        """Suspect every response."""
        found, at = set(), 0
        while at < len(data):
            found.add(at)
            at = end_of(at) + 1
        return found

    def clock(self) -> float:
        return self.now_s

    def mask(self, *outcomes: Outcome) -> None:
        async def count() -> None:
            while True:
                self.turn += 1
                await asyncio.sleep(0)

        async def main() -> None:
            counting = asyncio.create_task(count())
            await asyncio.gather(
                *(masked(each, self, DeliveryClock(monotonic_s=self.clock)) for each in outcomes)
            )
            counting.cancel()

        asyncio.run(main())


@pytest.mark.parametrize(("cost_s", "max_count"), [(0.00001, 204), (0.0006, 5), (0.003, 4)])
@pytest.mark.parametrize("outcomes", [1, 8])
def test_masking_blocks_the_loop_for_a_time_and_not_for_a_number_of_responses(
    cost_s: float, max_count: int, outcomes: int
) -> None:
    """Any number of outcomes may arrive at once."""
    redactor = Costly(cost_s)
    partial = Partial.of({n: Rejected("", 400, b"%1000d" % n) for n in range(500)})
    redactor.mask(*[partial] * outcomes)
    assert 500 * outcomes == redactor.cost_of_turns.total()
    assert max(redactor.cost_of_turns.values()) <= max_count


def test_outcomes_of_whole_batches_are_masked_in_separate_turns() -> None:
    redactor = Costly(0.0006)
    redactor.mask(*[Rejected("", 400, b"%d" % n) for n in range(64)])
    assert [1] * 64 == list(redactor.cost_of_turns.values())


def test_an_outcome_with_few_responses_does_not_wait_for_one_with_many() -> None:
    order: list[bytes] = []

    class Ordered(Costly):
        def data(self, data: bytes) -> bytes:
            if data:  # otherwise it is the reason
                order.append(data)
            return super().data(data)

    redactor = Ordered(0.003)
    many = Partial.of({n: Rejected("", 400, b"%1000d" % n) for n in range(100)})
    redactor.mask(many, Retry("", status=500, response=b"few"))
    assert order.index(b"few") <= 4  # the first group of the other outcome was being masked


def test_events_with_the_same_response_count_against_the_time_as_well() -> None:
    """Time passes for each, though only one is masked."""
    redactor = Costly(0.0)
    turns = []

    def clock() -> float:
        redactor.now_s += 0.0005
        turns.append(redactor.turn)
        return redactor.now_s

    redactor.clock = clock  # type: ignore[method-assign]
    redactor.mask(Partial.of(dict.fromkeys(range(1000), Rejected("x", 400, b"same"))))
    assert max(Counter(turns).values()) <= 6


def test_the_reason_of_an_unusable_destination_has_no_secrets(data: DataDir) -> None:
    def fail(*_arguments: object) -> Sender:
        raise ValueError("cannot use Bearer bear3r-token")

    made = Engine(Config(destinations=(HOOK,)), data, make_sender=fail)
    told = made.stats()["destinations"]["h"]
    assert ("unusable", "cannot use Bearer …") == (told["state"], told["last_error"])


def test_the_error_of_a_failed_runner_has_no_secrets(
    data: DataDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> str:
        made = Engine(Config(destinations=(HOOK,)), data)
        runner = made.runners[0]

        async def fail() -> None:
            raise ValueError("bear3r-token")

        async def pause(_seconds: float) -> bool:
            made.stop()
            return True

        monkeypatch.setattr(runner, "run", fail)
        monkeypatch.setattr(runner, "pause", pause)
        await made.run()
        return runner.last_error

    assert "…" == asyncio.run(main())
