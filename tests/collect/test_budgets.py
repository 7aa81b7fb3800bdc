"""Rate limits in shared memory: all collectors use the same budget."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from pixelfast.collect.budgets import RateBudget, RateBudgets
from pixelfast.operate.rates import RateTable


@pytest.fixture
def table() -> Iterator[RateTable]:
    table = RateTable(["other", "web"])
    yield table
    table.close()


def budget_of(table: RateTable, rate: float, name: str = "web") -> RateBudget:
    """Return the budget with its own memory mapping, as another process has it."""
    return RateBudgets.open(table.fd, table.places).budget(name, rate)


def accepted(budgets: list[RateBudget], rate: int, seconds: int) -> int:
    """Return how many events are accepted; nine of ten arrive at the first collector."""
    events = range(rate * seconds)
    return sum(
        budgets[0 if number % 10 else 1].take_at(1000.0 + number / rate) == 0.0 for number in events
    )


def test_below_the_limit_nothing_is_rejected_even_with_uneven_load(
    table: RateTable,
) -> None:
    budgets = [budget_of(table, 200.0) for _ in range(2)]
    assert 150 * 20 == accepted(budgets, 150, 20)


def test_above_the_limit_the_configured_rate_is_accepted(table: RateTable) -> None:
    budgets = [budget_of(table, 200.0) for _ in range(2)]
    assert (
        200 * 20 <= accepted(budgets, 400, 20) <= 200 * 21
    )  # one second's worth is available at first


def test_the_wait_is_returned_in_seconds(table: RateTable) -> None:
    budget = budget_of(table, 0.5)
    assert [0.0, 2.0] == [budget.take_at(1000.0) for _ in range(2)]
    assert [0.5, 0.0, 2.0] == [budget.take_at(at) for at in (1001.5, 1002.0, 1002.0)]


@pytest.mark.parametrize("rate", [1e-12, 1e300, float("inf")])
def test_every_rate_allows_a_first_event(table: RateTable, rate: float) -> None:
    assert 0.0 == budget_of(table, rate).take_at(1000.0)


def test_a_raised_rate_applies_immediately(table: RateTable) -> None:
    assert 0.0 == budget_of(table, 1e-12).take_at(1000.0)
    assert 0.0 < budget_of(table, 1e-12).take_at(1000.0)
    raised = budget_of(table, 100.0)
    assert 0.01 == pytest.approx(raised.take_at(1000.0))
    assert 0.0 == raised.take_at(1000.011)


def test_a_lowered_rate_applies_immediately(table: RateTable) -> None:
    fast = budget_of(table, 100.0)
    assert [0.0] * 100 == [fast.take_at(1000.0) for _ in range(100)]
    slow = budget_of(table, 2.0)
    assert [True, False] == [slow.take_at(at) > 0.0 for at in (1000.0, 1000.6)]


def test_added_sources_get_an_offset_and_others_keep_theirs(table: RateTable) -> None:
    assert 0.0 == budget_of(table, 1.0).take_at(1000.0)
    table.add(["web", "shop"])
    assert [False, True] == [
        budget_of(table, 1.0, n).take_at(1000.0) == 0.0 for n in ("web", "shop")
    ]


def test_sources_do_not_share(table: RateTable) -> None:
    assert [0.0, 0.0] == [budget_of(table, 1.0, n).take_at(1000.0) for n in ("web", "other")]


def test_an_offset_outside_of_the_memory_raises_valueerror(table: RateTable) -> None:
    for place in (-8, 4, 128):
        with pytest.raises(ValueError, match=f"offset {place} is not that of a word in 128 bytes"):
            RateBudgets.open(table.fd, {"web": place})
    with pytest.raises(ValueError, match="expected more than 0"):
        budget_of(table, 0.0)


TAKES = """
import sys
from pixelfast.collect.budgets import RateBudgets
budget = RateBudgets.open(int(sys.argv[1]), {"web": int(sys.argv[2])}).budget("web", 1e7)
print("ready", flush=True)
input()
print(sum(budget.take_at(1000.0) == 0.0 for _ in range(3_000_000)))
"""


def test_concurrent_processes_share_one_budget(table: RateTable) -> None:
    command = [sys.executable, "-c", TAKES, str(table.fd), str(table.places["web"])]
    processes = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(table.fd,), text=True
        )
        for _ in range(4)
    ]
    for each in processes:
        assert each.stdin is not None
        assert each.stdout is not None
        assert "ready\n" == each.stdout.readline()
    for each in processes:
        assert each.stdin is not None
        each.stdin.write("\n")
        each.stdin.flush()
    taken = [int(each.communicate(timeout=60)[0]) for each in processes]
    assert 10_000_000 == sum(taken), taken
