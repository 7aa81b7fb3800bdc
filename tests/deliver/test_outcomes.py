"""The failures of a batch in groups."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelfast.deliver.outcomes import Failures, Partial, Rejected, Retry

FAILURES = st.one_of(
    st.builds(
        Rejected,
        st.sampled_from(["no", "never"]),
        st.sampled_from([400, 413]),
        st.binary(max_size=3),
        st.booleans(),
    ),
    st.builds(
        Retry,
        st.sampled_from(["no", "later"]),
        st.sampled_from([0.0, 2.0]),
        st.sampled_from([0, 503]),
        st.binary(max_size=3),
    ),
)
FAILED = st.dictionaries(st.integers(0, 50), FAILURES)


@given(FAILED)
def test_grouped_failures_are_those_of_each_event(failed: dict[int, Rejected | Retry]) -> None:
    failures = Failures.of(failed)
    assert failed == failures
    assert sorted(failed) == list(failures)
    assert len(failed) == len(failures)
    ways = {str(msgspec.structs.replace(each, response=b"")) for each in failed.values()}
    assert len(ways) == len(failures.groups)
    assert all(group.why.response == b"" for group in failures.groups)


@given(FAILED)
def test_failures_of_one_kind_are_selected(failed: dict[int, Rejected | Retry]) -> None:
    for kind in (Rejected, Retry):
        expected = {n: each for n, each in failed.items() if isinstance(each, kind)}
        assert expected == Failures.of(failed).only(kind)


@given(FAILED, st.sets(st.integers(0, 50)))
def test_some_events_are_left_out(failed: dict[int, Rejected | Retry], excluded: set[int]) -> None:
    expected = {n: each for n, each in failed.items() if n not in excluded}
    assert expected == Failures.of(failed).without(excluded)


def test_thousands_of_events_that_failed_alike_are_one_group() -> None:
    no = Rejected("status 400", 400, b"no")
    failures = Failures.of(dict.fromkeys(range(0, 10_000, 2), no))
    (group,) = failures.groups
    assert (5000, b"no") == (len(group.places), group.responses.buffer)
    assert failures == Failures.same(no, range(0, 10_000, 2))
    assert Failures() == Failures.same(no, [])


def test_the_first_failure_is_that_of_the_first_event() -> None:
    failures = Failures.of({3: Rejected("a", 400), 1: Retry("b"), 7: Rejected("a", 400)})
    assert Retry("b") == failures.first


def test_an_event_that_did_not_fail_is_not_found() -> None:
    failures = Failures.of({3: Retry("a"), 5: Retry("b")})
    assert 4 not in failures
    with pytest.raises(KeyError):
        failures[9]


def test_partial_outcomes_with_the_same_failures_are_equal() -> None:
    one = Partial(
        Failures([*Failures.of({1: Retry("a")}).groups, *Failures.of({2: Retry("a")}).groups])
    )
    assert Partial.of({1: Retry("a"), 2: Retry("a")}) == one
    assert Partial.of({1: Retry("a")}) != one
