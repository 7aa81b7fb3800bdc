"""The queue of tasks: order, delays, probes, and culprits."""

from __future__ import annotations

from pixelfast.deliver.outcomes import Retry
from pixelfast.deliver.plans import Plan
from pixelfast.deliver.queue import Queue
from pixelfast.deliver.tasks import Task
from pixelfast.deliver.timing import Timings


def task(number: int, **options: float) -> Task:
    plan = Plan(
        id=f"p{number}", root=f"p{number}", sequence=number, events=1, size_bytes=1, checksum=0,
        oldest_ms=0,
    )  # fmt: skip
    made = Task(plan)
    for name, value in options.items():
        setattr(made, name, value)
    return made


def take(queue: Queue, now_s: float, *, in_order: bool = False, is_probe: bool = False) -> int:
    taken = queue.next(now_s, in_order=in_order, is_probe=is_probe)
    return -1 if taken is None else taken.plan.sequence


def test_tasks_are_taken_in_order_and_delayed_ones_after_their_delay() -> None:
    queue = Queue(Timings())
    for each in (task(3), task(1, not_before_s=5.0), task(2)):
        queue.add(each)
    assert [2, 3, -1] == [take(queue, 1.0) for _ in range(3)]
    assert 5.0 == queue.next_s()
    assert [1, -1] == [take(queue, 5.0) for _ in range(2)]


def test_in_order_no_task_overtakes_a_delayed_one() -> None:
    queue = Queue(Timings())
    for each in (task(2), task(1, not_before_s=5.0)):
        queue.add(each)
    assert [-1, 1, 2] == [take(queue, now_s, in_order=True) for now_s in (1.0, 5.0, 5.0)]


def test_probes_take_turns() -> None:
    queue = Queue(Timings())
    for number in range(3):
        queue.add(task(number))
    taken = []
    for now_s in range(1, 7):
        each = queue.next(float(now_s), in_order=False, is_probe=True)
        assert each is not None
        taken.append(each.plan.sequence)
        queue.add(each)
    assert [0, 1, 2, 0, 1, 2] == taken


def test_culprits_use_a_tenth_of_the_time_one_at_a_time() -> None:
    queue = Queue(Timings(max_culprit_pause_s=0.0))
    for number in range(2):
        queue.set_apart(task(number), now_s=0.0)
    first = queue.next(1.0, in_order=True, is_probe=False)
    assert first is not None
    assert -1 == take(queue, 2.0)
    queue.responded(first, 2.0)  # the request took a second
    assert -1 == take(queue, 10.9)
    assert 1 == take(queue, 11.0)


def test_a_culprit_that_only_finds_its_destination_busy_is_surplus_among_very_many() -> None:
    """Status 429 may be true, so it does not prove that the event is bad."""
    culprit = task(0, is_culprit=True, failures=100)
    queue = Queue(Timings())
    for _ in range(25_599):
        queue.add(culprit)
    culprit.outcome = Retry("status 429", status=429)
    assert not queue.is_surplus(culprit)
    queue.add(culprit)
    assert queue.is_surplus(culprit)
    culprit.outcome = Retry("status 500", status=500)
    queue = Queue(Timings())
    for _ in range(256):
        assert not queue.is_surplus(culprit)
        queue.add(culprit)
    assert queue.is_surplus(culprit)
