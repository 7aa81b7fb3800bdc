"""Jumps of the wall clock make no event too old, and ages stay right."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from pixelfast.config import Config, HttpDestination
from pixelfast.deliver.clock_record import (
    ClockRecord,
    read_clock_record,
    this_boot,
    write_clock_record,
)
from pixelfast.deliver.outcomes import Retry
from pixelfast.spool import DataDir
from tests.deliver.clocks import HandClock
from tests.deliver.runners import FakeSender, make_engine, running
from tests.deliver.running import run
from tests.deliver.spools import event
from tests.modes import mode
from tests.spools import Feed
from tests.waiting import until

DAY_S = 86_400.0
JUMPS_S = [5 * DAY_S, -5 * DAY_S, 60.0, -60.0]


def ms(seconds: float) -> int:
    return round(seconds * 1000)


@pytest.mark.parametrize("jump_s", JUMPS_S)
def test_ages_are_those_of_the_steady_clock(jump_s: float) -> None:
    hand = HandClock()
    before_ms = ms(hand.clock.wall_s())
    hand.advance(10.0)
    hand.ahead_s += jump_s
    assert pytest.approx(jump_s) == hand.clock.look()
    after_ms = ms(hand.clock.wall_s())
    hand.advance(5.0)
    assert pytest.approx(5.0) == hand.clock.age_s(after_ms)
    assert pytest.approx(15.0) == hand.clock.age_s(before_ms)
    assert 0.0 == hand.clock.look(), "a jump is noticed once"


@pytest.mark.parametrize("jump_s", JUMPS_S)
def test_a_jump_makes_no_time_certainly_old(jump_s: float) -> None:
    hand = HandClock()
    before_ms = ms(hand.clock.wall_s())
    hand.advance(10.0)
    hand.ahead_s += jump_s
    hand.clock.look()
    assert hand.clock.surely_before_ms(100.0) < before_ms
    hand.advance(101.0 + abs(jump_s))
    assert hand.clock.surely_before_ms(100.0) > before_ms


def test_slewing_is_not_a_jump() -> None:
    hand = HandClock()
    for _ in range(100):
        hand.ahead_s += 0.1
        hand.advance(1.0)
        assert 0.0 == hand.clock.look()


@pytest.mark.parametrize("jump_s", JUMPS_S)
def test_a_jump_makes_no_event_of_a_destination_that_is_down_too_old(
    data: DataDir, feed: Feed, jump_s: float
) -> None:
    hand = HandClock()
    hook = HttpDestination(name="hook", url="http://127.0.0.1:1/", retry_for_s=2 * DAY_S)

    async def main() -> None:
        down = FakeSender(judge=lambda _: Retry("down"))
        config = Config(destinations=(hook,))
        engine = make_engine(data, {"hook": down}, config=config, clock=hand.clock)
        runner = engine.runners[0]
        with capture_logs() as logs:
            async with running(engine):
                for n in range(5):
                    feed.write(event(n), received_ms=ms(hand.clock.wall_s()))
                await until(lambda: down.sent)
                hand.ahead_s += jump_s
                await until(lambda: [x for x in logs if x["event"] == "clock_jumped"])
                for n in range(5, 10):  # collectors use the changed clock
                    feed.write(event(n), received_ms=ms(hand.clock.wall_s()))
                attempts = len(down.sent)

                def is_tried() -> bool:
                    hand.advance(0.5)
                    return len(down.sent) > attempts + 20

                await until(is_tried)
                told = engine.stats()["destinations"]["hook"]
                assert 0 == told["dead"]
                assert told["lag_s"] < 3600
                down.judge = FakeSender().judge
                await until(lambda: hand.advance(0.5) or len(set(down.numbers)) == 10)
        assert [round(jump_s, 1)] == [x["seconds"] for x in logs if x["event"] == "clock_jumped"]
        assert 0 == runner.counted.get("dead", 0)

    run(main())


def test_a_jump_between_two_runs_is_detected(data: DataDir, feed: Feed) -> None:
    hand = HandClock(a_look_s=0.01)
    hook = HttpDestination(name="hook", url="http://127.0.0.1:1/", retry_for_s=2 * DAY_S)

    async def once() -> list[str]:
        sender = FakeSender(judge=lambda _: Retry("down"))
        config = Config(destinations=(hook,))
        clock = type(hand.clock)(hand.clock.monotonic_s, hand.clock.wall_s, hand.clock.steady_s)
        engine = make_engine(data, {"hook": sender}, config=config, clock=clock)
        with capture_logs() as logs:
            async with running(engine):
                await until(lambda: len(sender.sent) > 3)
                assert 0 == engine.stats()["destinations"]["hook"]["dead"]
        return [x["event"] for x in logs if x["event"] == "clock_jumped"]

    feed.write(*map(event, range(5)), received_ms=ms(hand.clock.wall_s()))
    assert [] == run(once())
    assert "0600" == mode(data.path / "clock")
    hand.ahead_s += 5 * DAY_S
    assert ["clock_jumped"] == run(once())
    assert [] == run(once())


DAMAGES = [b"", b"{", b"[]", b'{"boot": 1}', b'{"boot": "a", "offset_s": {}}', b'{"jumps": [[1]]}']


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_record_that_cannot_be_read_is_empty(data: DataDir, damage: bytes) -> None:
    hand = HandClock()
    hand.ahead_s += DAY_S
    hand.clock.look()
    write_clock_record(data, hand.clock)
    known = ClockRecord(this_boot(), hand.clock.offset_s, hand.clock.jumps)
    assert (1, known) == (len(known.jumps), read_clock_record(data))
    (data.path / "clock").write_bytes(damage)
    assert ClockRecord() == read_clock_record(data)


def test_an_unknown_boot_id_is_not_an_error(tmp_path: Path, data: DataDir) -> None:
    write_clock_record(data, HandClock().clock, tmp_path / "missing")
    assert "" == this_boot(tmp_path / "missing") == read_clock_record(data).boot
