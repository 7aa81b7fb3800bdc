"""Which events each destination accepts, across reloads."""

from __future__ import annotations

from pixelfast.config import Config, Destination
from pixelfast.deliver.selection import Selection

__all__ = ["Selections"]


class Selections:
    """The selections of all destinations, by the current settings.

    Events of a source that was removed from the settings are accepted, because they were stored for
    this destination, too. A destination that did not accept them before does not receive those that
    are still in the log either.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        # For each destination, removed sources that it did not accept.
        self._withheld: dict[str, set[str]] = {}

    def of(self, destination: Destination) -> Selection:
        """Return which events a destination accepts."""
        excluded = self._excluded(destination).union(self._withheld.get(destination.name, ()))
        return Selection(tuple(sorted(excluded)), destination.events, destination.types)

    def follow(self, config: Config) -> None:
        """Apply new settings."""
        names = {each.name for each in config.destinations}
        known = {source.name for source in config.sources}
        for each in self._config.destinations:
            if each.name in names:
                before = self.of(each).excluded
                self._withheld[each.name] = {source for source in before if source not in known}
        self._config = config

    def _excluded(self, destination: Destination) -> set[str]:
        return {
            source.name
            for source in self._config.sources
            if source.destinations is not None and destination.name not in source.destinations
        }
