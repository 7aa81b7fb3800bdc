from collections.abc import Iterable
from typing import Any, Literal

class Rules:
    """How one source's values are read.

    Args:
        numbers: turn texts that a double carries without loss into numbers.
        booleans: turn `true` and `false` into booleans, where a number could stand.
        strings: places that always stay texts: their names joined with dots, without the indexes of
            arrays. Where an index is a plain name, as it is in an object, it is part of that.
        force_numbers: places that may become numbers whatever their name.
        ignore: names at the top level that are left out silently.
    """

    numbers: bool
    booleans: bool
    strings: frozenset[str]
    force_numbers: frozenset[str]
    ignore: frozenset[str]

    def __init__(
        self,
        *,
        numbers: bool = True,
        booleans: bool = False,
        strings: Iterable[str] = (),
        force_numbers: Iterable[str] = (),
        ignore: Iterable[str] = ("_", "z", "cb", "rand"),
    ) -> None: ...

class Event:
    """One decoded event, before the server's additions.

    `warnings` lists the parameters that were left out: (reason, raw key).
    """

    type: Literal["track", "page"]
    rest: dict[str, Any]
    warnings: list[tuple[str, bytes]]

    def __init__(self, type: Literal["track", "page"]) -> None: ...  # noqa: A002 - its name in JSON
    def to_dict(self) -> dict[str, Any]:
        """The event as nested dicts and lists, in the order that events have.

        Shares its containers with the event.
        """

class Decoder:
    """Turns the query of a pixel into its event. Not for use by two threads at once.

    >>> decoder = Decoder()
    >>> decoder.split(b"writeKey=k&userId=7&event=Bought&properties.revenue=29.99")
    4
    >>> decoder.write_key()
    'k'
    >>> decoder.decode(Rules(), is_track=True).to_dict()
    {'type': 'track', 'userId': '7', 'event': 'Bought', 'properties': {'revenue': 29.99}}
    """

    def split(self, query: bytes) -> int:
        """Find the parameters of a query; returns how many there are.

        The query is kept until the next `split`.

        Raises:
            RequestError: 414, it is longer than 32,768 bytes; 400, more than 256 parameters.
        """

    def write_key(self) -> str | None:
        """The first write key of the query, decoded; None where there is none."""

    def decode(self, rules: Rules, is_track: bool) -> Event:
        """Build the event from what `split` found.

        Raises:
            RequestError: 400, a key of more than 32 segments, neither userId nor anonymousId, or a
                track call without event; 413, arrays so large that the event is too large.
        """
