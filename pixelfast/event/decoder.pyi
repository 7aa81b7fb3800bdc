from collections.abc import Iterable

__all__ = ["Rules"]

class Rules:
    """Say how one source's pixels become events.

    Rules are immutable and compare by value; equal ones share what a writer learns of its pixels.

    Args:
        numbers: turn strings that a double carries without loss into numbers.
        booleans: turn `true` and `false` into booleans, where a number could stand.
        strings: places that always stay strings: their names joined with dots, without the indexes
            of arrays. If an index is a plain name, as it is in an object, it is part of that.
        force_numbers: places that may become numbers whatever their name.
        ignore: names at the top level that are left out silently.
        fill: which of `ip`, `referer` and `locale` the server fills in from the request:
            `context.ip`, `context.page.url`, `context.locale`, each if it is absent or blank.
        keeps_placeholders: take ids that a template should have replaced, such as `{{user.id}}` and
            `undefined`, for ids.

    >>> Rules(strings=["properties.campaign"]) == Rules(strings=("properties.campaign",))
    True
    """

    numbers: bool
    booleans: bool
    strings: frozenset[str]
    force_numbers: frozenset[str]
    ignore: frozenset[str]
    fill: frozenset[str]
    keeps_placeholders: bool

    def __init__(
        self,
        *,
        numbers: bool = True,
        booleans: bool = False,
        strings: Iterable[str] = (),
        force_numbers: Iterable[str] = (),
        ignore: Iterable[str] = ("_", "z", "cb", "rand"),
        fill: Iterable[str] = (),
        keeps_placeholders: bool = False,
    ) -> None: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
