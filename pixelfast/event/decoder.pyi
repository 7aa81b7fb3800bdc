from collections.abc import Iterable

__all__ = ["Rules"]

class Rules:
    """Define how the pixels of one source become events.

    Rules are immutable and compare by value. A writer shares its templates among equal rules.

    Args:
        numbers: convert strings to numbers if a double represents them exactly.
        booleans: convert `true` and `false` to booleans wherever a number is allowed.
        strings: places that always hold strings, as names joined with dots. Array indexes are left
            out; an index that is a name in an object is part of the place.
        force_numbers: places that may hold numbers regardless of their name.
        ignore: names at the top level that are omitted without a warning.
        fill: values to add from the request: `ip` for `context.ip`, `referer` for
            `context.page.url`, `locale` for `context.locale`. Each is added only if the event has
            no such value, or a blank one.
        keeps_placeholders: accept ids that a template should have replaced, such as `{{user.id}}`
            and `undefined`.

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
