"""Totals that continue when the process that counted them ends."""

from __future__ import annotations

from typing import Any

__all__ = ["Totals", "added"]


class Totals:
    """The sum of the totals of all runs of a process, each of which counts from 0.

    >>> totals = Totals()
    >>> totals.follow({"commits": 5, "responses": {"200": 7}})
    >>> totals.end()
    >>> totals.follow({"commits": 1, "responses": {"503": 2}})
    >>> totals.value
    {'commits': 6, 'responses': {'200': 7, '503': 2}}
    """

    def __init__(self, ended: dict[str, Any] | None = None) -> None:
        self._ended: dict[str, Any] = ended or {}
        self._present: dict[str, Any] = {}

    @property
    def ended(self) -> dict[str, Any]:
        """The totals of earlier runs."""
        return self._ended

    @property
    def value(self) -> dict[str, Any]:
        """The totals of all runs; empty before the first report."""
        value: dict[str, Any] = added(self._ended, self._present)
        return value

    def follow(self, counted: dict[str, Any]) -> None:
        """Set the totals of the current run."""
        self._present = counted

    def end(self) -> None:
        """End the current run; the next one counts from 0."""
        self._ended, self._present = self.value, {}


def added(one: Any, other: Any) -> Any:
    """Return the sum of two trees of numbers, number by number.

    >>> added({"a": 1, "b": [1, 2]}, {"b": [10, 20], "c": {"d": 3.0}})
    {'a': 1, 'b': [11, 22], 'c': {'d': 3.0}}
    """
    if isinstance(one, dict):
        both = {name: added(one[name], other[name]) for name in one.keys() & other.keys()}
        return {name: both.get(name, value) for name, value in {**one, **other}.items()}
    if isinstance(one, list):
        return [added(*pair) for pair in zip(one, other, strict=True)]
    return one + other
