"""The dead letters of a cluster, for the commands that list and change them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pixelfast.deliver.bundles import DeadLetter
from pixelfast.deliver.cluster.dead import DeadLetterTopic
from pixelfast.deliver.cluster.dead_records import key_of, message_of
from pixelfast.deliver.dead import DeadLetterGroup

__all__ = ["ClusterDeadLetters"]


class ClusterDeadLetters:
    """The dead letters of one destination, as they are in the topic now. Every method blocks.

    All methods raise DestinationError if the brokers do not respond.
    """

    def __init__(self, topic: DeadLetterTopic, destination: str) -> None:
        """Read the dead letters of a destination."""
        self._topic = topic
        self._destination = destination
        self._letters = sorted(each.letter for each in topic.read(destination))

    def count(self) -> int:
        """Return the number of dead letters."""
        return len(self._letters)

    def read(self, ids: Iterable[int] | None = None, *, limit: int = 2**62) -> list[DeadLetter]:
        """Return the dead letters with these ids, or all, the oldest first."""
        if ids is None:
            return self._letters[:limit]
        known = {each.id: each for each in self._letters}
        return [known[each] for each in ids if each in known]

    def groups(self) -> list[DeadLetterGroup]:
        """Return the dead letters by source, status and reason, the largest group first."""
        groups: dict[tuple[str, int, str], DeadLetterGroup] = {}
        for each in self._letters:
            key = each.source, each.status, each.reason
            group = groups.get(key, DeadLetterGroup(*key, 0, each.died_ms, each.died_ms))
            groups[key] = group._replace(
                letters=group.letters + 1,
                oldest_ms=min(group.oldest_ms, each.died_ms),
                newest_ms=max(group.newest_ms, each.died_ms),
            )
        return sorted(groups.values(), key=lambda each: (-each.letters, each.source, each.reason))

    def ask_for_replay(self, ids: Iterable[int] | None = None) -> int:
        """Mark dead letters, by default all, for replay; return how many were marked."""
        return self._change(
            ids, lambda each: message_of(self._destination, each._replace(replay=1))
        )

    def drop(self, ids: Iterable[int] | None = None) -> int:
        """Delete dead letters, by default all, except those being replayed; return how many."""
        return self._change(
            ids, lambda each: (key_of(self._destination, each.batch, each.number), None)
        )

    def _change(
        self, ids: Iterable[int] | None, change: Callable[[DeadLetter], tuple[bytes, bytes | None]]
    ) -> int:
        chosen = [each for each in self.read(ids) if not each.replay]
        self._topic.write(change(each) for each in chosen)
        return len(chosen)
