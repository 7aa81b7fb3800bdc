"""Dead letters in their topic: writing, replaying and dropping them, and their limits."""

from __future__ import annotations

import json
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from pixelfast.config import Cluster
from pixelfast.deliver.batches import BatchLimits
from pixelfast.deliver.cluster.dead import dead_topic_problems
from pixelfast.deliver.cluster.dead_view import ClusterDeadLetters
from pixelfast.deliver.cluster.dead_writer import DeadLetterWriter
from pixelfast.deliver.dead import DeadLetterLimits
from pixelfast.deliver.outcomes import Rejected
from tests.bundles import bundle
from tests.deliver.clocks import HandClock
from tests.deliver.cluster.dead_topics import DeadTopic

AT_ONCE = BatchLimits(100, 10**6, 0.0)


class Letters:
    """The dead letters of "hook" in a topic, and a writer that keeps them."""

    def __init__(self, limits: DeadLetterLimits = DeadLetterLimits()) -> None:  # noqa: B008
        self.topic = DeadTopic()
        self.hand = HandClock()
        self.limits = limits
        self.writer = self.make_writer()

    def make_writer(self, name: str = "hook", *, is_keeper: bool = True) -> DeadLetterWriter:
        index: Any = self.topic.index
        log = structlog.get_logger("deliver")
        return DeadLetterWriter(
            self.topic, index, name, self.limits, log, self.hand.clock, is_keeper=is_keeper
        )

    @property
    def view(self) -> ClusterDeadLetters:
        """What a command sees on any machine."""
        topic: Any = self.topic
        return ClusterDeadLetters(topic, "hook")

    def add(self, count: int, start: int = 0, writer: DeadLetterWriter | None = None) -> None:
        events = [bundle(n, b'{"n":%d}' % n, attempts=3) for n in range(start, start + count)]
        (writer or self.writer).write(events, [], {})

    def taken(self, limits: BatchLimits = AT_ONCE) -> list[int]:
        return [each.id for each in self.writer.tend(limits, is_due=False)]


def test_a_dead_letter_that_is_written_again_replaces_itself() -> None:
    letters = Letters()
    letters.add(3)
    letters.add(3)
    assert 6 == len(letters.topic.messages)
    assert [b'{"n":0}', b'{"n":1}', b'{"n":2}'] == [each.event for each in letters.view.read()]
    assert 3 == letters.writer.by_source["web"].letters


def test_marked_dead_letters_are_replayed_once_and_dropped_when_they_are_delivered() -> None:
    letters = Letters()
    letters.add(4)
    first, *_, last = letters.view.read()
    assert [] == letters.taken()
    assert 2 == letters.view.ask_for_replay([first.id, last.id, 999])
    assert [0, 0, 1, 1] == sorted(each.replay for each in letters.view.read())
    letters.topic.is_late = True
    assert [first.id, last.id] == letters.taken()
    assert [] == letters.taken(), "they are being replayed"
    letters.writer.write([], [first.id], {})
    assert [] == letters.taken(), "the index does not know yet that it was delivered"
    assert [2, 3, last.id] == [each.id for each in letters.view.read()]
    letters.topic.is_late = False
    letters.topic.catch_up()
    letters.writer.write([], [last.id], {})
    assert ([2, 3], []) == ([each.id for each in letters.view.read()], letters.taken())
    assert 2 == letters.writer.by_source["web"].letters


def test_a_replayed_dead_letter_that_is_rejected_again_keeps_its_id_and_has_a_new_reason() -> None:
    letters = Letters()
    letters.add(2)
    assert 1 == letters.view.ask_for_replay([2])
    assert [2] == letters.taken()
    letters.writer.write([], [], {2: Rejected("still bad", 422, b"no")})
    (before, after) = letters.view.read()
    assert (1, 3, 0) == (before.id, before.attempts, before.replay)
    assert (2, 4, 0) == (after.id, after.attempts, after.replay)
    assert (422, "still bad", b"no", b'{"n":1}') == (
        *(after.status, after.reason, after.response, after.event),
    )
    assert [] == letters.taken()
    assert 1 == letters.view.ask_for_replay([2])
    assert [2] == letters.taken()


def test_another_owner_replays_what_the_first_one_did_not_complete() -> None:
    letters = Letters()
    letters.add(2)
    letters.view.ask_for_replay()
    assert [1, 2] == letters.taken()
    letters.writer.write([], [1], {})
    letters.writer = letters.make_writer()
    assert [2] == letters.taken()


def test_a_replay_has_the_limits_of_a_batch() -> None:
    letters = Letters()
    letters.add(7)
    letters.view.ask_for_replay()
    assert [1, 2, 3] == letters.taken(BatchLimits(3, 10**6, 0.0))
    assert [4] == letters.taken(BatchLimits(3, 1, 0.0))
    assert [5, 6, 7] == letters.taken()


def test_the_events_of_a_replay_can_be_read_again_until_it_has_ended() -> None:
    letters = Letters()
    letters.add(3)
    letters.view.ask_for_replay()
    assert [1, 2, 3] == letters.taken()
    found = letters.writer.read_replayed([3, 1])
    assert found is not None
    assert [b'{"n":2}', b'{"n":0}'] == [each.event for each in found]
    letters.writer.write([], [1], {})
    assert letters.writer.read_replayed([3, 1]) is None
    assert (1, 2) == (letters.writer.existing([3, 1]), letters.writer.existing([2, 3]))


def test_dead_letters_of_other_destinations_are_left_alone() -> None:
    letters = Letters()
    other = letters.make_writer("other")
    letters.add(2, writer=other)
    letters.add(3)
    assert 3 == letters.view.drop()
    assert (0, 2) == (letters.writer.size_bytes, other.by_source["web"].letters)
    assert ["other", "other"] == [each.destination for each in letters.topic.read()]


def test_only_one_writer_replays_and_reports_dead_letters() -> None:
    letters = Letters()
    letters.add(2)
    other = letters.make_writer(is_keeper=False)
    assert (False, {}) == (other.has_any, other.by_source)
    assert other.size_bytes == letters.writer.size_bytes > 0
    letters.topic.index.is_complete = False
    assert not letters.writer.has_any


def test_dead_letters_being_replayed_are_not_dropped_by_an_operator() -> None:
    letters = Letters()
    letters.add(3)
    letters.view.ask_for_replay([2])
    assert 2 == letters.view.drop()
    assert [2] == [each.id for each in letters.view.read()]


def test_the_oldest_dead_letters_over_the_limits_are_dropped_and_counted() -> None:
    letters = Letters(DeadLetterLimits(max_age_s=100.0))
    letters.add(2)
    letters.hand.advance(60.0)
    letters.add(3, start=2)
    letters.hand.advance(60.0)
    letters.writer.tend(None, is_due=False)
    assert 5 == letters.view.count()
    letters.writer.tend(None, is_due=True)
    assert [3, 4, 5] == [each.id for each in letters.view.read()]
    letters.writer = letters.make_writer()
    size_bytes = letters.writer.size_bytes
    letters.limits = DeadLetterLimits(max_bytes=size_bytes - 1)
    letters.writer = letters.make_writer()
    letters.writer.tend(None, is_due=True)
    assert [4, 5] == [each.id for each in letters.view.read()]
    assert (2, 3) == letters.writer.by_source["web"][::2]
    letters.limits = DeadLetterLimits(max_bytes=1, on_full="hold")
    letters.writer = letters.make_writer()
    letters.writer.tend(None, is_due=True)
    assert 2 == letters.view.count()


def test_the_largest_source_loses_its_oldest_dead_letters_at_the_size_limit() -> None:
    letters = Letters()
    for number, source, size_bytes in (
        (0, "shop", 10),
        (1, "mail", 900),
        (2, "web", 400),
        (3, "web", 500),
        (4, "web", 600),
        (5, "web", 700),
    ):
        letters.hand.advance(1.0)
        event = b'{"n":"%s"}' % (size_bytes * b"x")
        letters.writer.write([bundle(number, event, source=source)], [], {})
    size_bytes = letters.writer.size_bytes
    letters.limits = DeadLetterLimits(max_bytes=size_bytes - 1000)
    letters.writer = letters.make_writer()
    letters.view.ask_for_replay([3])
    assert [3] == letters.taken()
    with capture_logs() as logs:
        letters.writer.tend(None, is_due=True)
    assert [1, 2, 3, 6] == [each.id for each in letters.view.read()], "3 is being replayed"
    (dropped,) = [each for each in logs if each["event"] == "dead_letters_dropped"]
    assert (2, letters.writer.size_bytes) == (dropped["events"], dropped["bytes"])
    letters.limits = DeadLetterLimits(max_bytes=1)
    letters.writer = letters.make_writer()
    letters.writer.tend(None, is_due=True)
    assert [] == letters.view.read()


def test_dead_letters_near_their_limit_are_logged_once_by_the_keeper() -> None:
    letters = Letters()
    letters.add(8)
    letters.limits = DeadLetterLimits(max_bytes=letters.writer.size_bytes * 10 // 8)
    letters.writer = letters.make_writer()
    with capture_logs() as logs:
        for added in (1, 0, 1):
            letters.add(added, start=8)
            letters.writer.tend(None, is_due=False)
        letters.view.drop([1, 2, 3])
        letters.writer.tend(None, is_due=False)
        letters.add(3, start=20)
        letters.writer.tend(None, is_due=False)
    told = [each for each in logs if each["event"] == "dead_letters_nearly_full"]
    assert 2 == len(told)
    assert letters.limits.max_bytes == told[0]["max_bytes"] == told[0]["max_dead_bytes"]


def test_messages_that_are_not_dead_letters_are_logged_once_and_change_nothing() -> None:
    letters = Letters()
    key, value = b"hook/b/1", b'{"batch":"b","number":1}'
    with capture_logs() as logs:
        letters.topic.write([(b"hook/b/1", b"{"), (b"x", b"{}"), (key, value), (b"", None)])
        letters.add(1)
    assert ["dead_letter_invalid"] == [each["event"] for each in logs]
    assert 1 == letters.writer.by_source["web"].letters
    stolen = letters.topic.messages[-1][1]
    letters.topic.write([(b"hook/other/0", stolen)])
    assert 1 == letters.writer.by_source["web"].letters


def test_the_index_forgets_a_topic_that_was_deleted_and_created_again() -> None:
    letters = Letters()
    letters.add(3)
    key, value = letters.topic.messages[1]
    letters.topic.index.add(0, key, value)
    assert 1 == letters.writer.by_source["web"].letters


def test_dead_letters_are_grouped_by_source_status_and_reason() -> None:
    letters = Letters()
    letters.add(2)
    letters.hand.advance(5.0)
    letters.writer.write([bundle(7, status=0, reason="gone", source="mail")], [], {})
    letters.writer.write([bundle(8)], [], {})
    (most, least) = letters.view.groups()
    assert ("web", 3, 5000) == (most.source, most.letters, most.newest_ms - most.oldest_ms)
    assert ("mail", 0, "gone", 1) == (least.source, least.status, least.reason, least.letters)


@pytest.mark.parametrize(
    ("found", "partitions", "problem"),
    [
        ({"cleanup.policy": "compact,delete"}, 1, "cleanup.policy is compact,delete"),
        ({"min.insync.replicas": "1"}, 1, "min.insync.replicas is 1; expected at least 2"),
        ({}, 3, "it has 3 partitions; expected 1"),
    ],
)
def test_a_topic_that_would_lose_or_confuse_dead_letters_is_rejected(
    found: dict[str, str | None], partitions: int, problem: str
) -> None:
    cluster = Cluster(brokers=("kafka-1:9092",))
    (told,) = dead_topic_problems(found, partitions, cluster)
    assert problem in told


def test_the_value_of_a_dead_letter_is_readable_json() -> None:
    letters = Letters()
    letters.add(1)
    ((key, value),) = letters.topic.messages
    assert b"hook/" == key[:5]
    record = json.loads(value or b"")
    assert {"n": 0} == record["event"]
    assert {"batch", "number", "event", "source", "status", "reason", "attempts", "died_ms"} <= (
        record.keys()
    )
