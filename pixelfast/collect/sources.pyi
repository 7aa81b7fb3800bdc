from collections.abc import Iterable

from pixelfast import config
from pixelfast.errors import RequestError
from pixelfast.event import Rules

class RateLimited(RequestError):
    """429: the source is over its rate limit. `retry_after_s` is in whole seconds."""

    retry_after_s: int

class Source:
    """One source: its rules, its rate limit, and what it counted."""

    name: str
    number: int
    rules: Rules
    is_enabled: bool
    accepted: int
    refused: dict[str, int]
    warned: dict[str, int]

class Sources:
    """Finds the source of a write key. `workers` share each rate limit evenly."""

    all: list[Source]
    nobody: Source

    def __init__(self, settings: Iterable[config.Source], workers: int = 1) -> None: ...
    def check(self, text: str, now_ms: int) -> Source:
        """The source whose pixels are taken with a write key now, whatever its rate.

        Raises:
            RequestError: 401, the key is unknown or has expired; 404, the source is disabled.
        """
