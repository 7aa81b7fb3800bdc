from collections.abc import Mapping

__all__ = ["REJECTIONS", "STATES", "TRANSITIONS", "StateMachine"]

REJECTIONS: Mapping[int, str]
"""The reasons for rejections, as sent to clients, by the number in a receipt."""

STATES: tuple[str, ...]
"""The states of a writer, beginning with the initial one."""

TRANSITIONS: Mapping[str, tuple[str, ...]]
"""The states that each state may lead to."""

class StateMachine:
    """The state of a writer; the only place where it changes.

    >>> machine = StateMachine()
    >>> machine.change_to("late")
    >>> machine.name
    'late'
    >>> machine.change_to("closed")
    Traceback (most recent call last):
    AssertionError: a spool writer can't go from late to closed
    """

    @property
    def name(self) -> str:
        """One of `STATES`."""

    def change_to(self, name: str) -> None:
        """Change to another state.

        Raises:
            AssertionError: `TRANSITIONS` does not allow it.
        """

    @property
    def reason(self) -> str:
        """Why all events are rejected in this state, one of `REJECTIONS`; empty if none are."""
