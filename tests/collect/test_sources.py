"""Write keys and sources: rotation, expiry and rate limits. Only the tests move the clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pixelfast.collect.budgets import RateBudgets
from pixelfast.collect.sources import Sources
from pixelfast.config import Source, WriteKey
from pixelfast.errors import RequestError
from tests.collect.wire import GIF, PIXEL_HEADERS, TRACK, ask, events, http, read_responses
from tests.fakes import DEMO, FakeCollector

NOW_MS = 1_700_000_000_000  # the initial time of FakeCollector's clock
NOW = datetime.fromtimestamp(NOW_MS / 1000, UTC)


def with_key(key: bytes) -> bytes:
    return http(TRACK.replace(b"wk-demo", key))


def limited(rate: float, name: str = "slow") -> Source:
    return Source(name=name, write_keys=(WriteKey(key=f"wk-{name}"),), rate_limit=rate)


def test_every_key_of_a_source_names_it_and_no_key_is_in_the_event() -> None:
    shop = Source(name="shop", write_keys=(WriteKey(key="wk-new"), WriteKey(key="wk-old")))
    fake = FakeCollector((DEMO, shop))
    for key in (b"wk-demo", b"wk-new", b"wk-old"):
        assert 200 == ask(fake, with_key(key)).status
    assert ["demo", "shop", "shop"] == [source for source, _ in fake.disk.events()]
    assert all(b"wk-" not in event for _, event in fake.disk.events())
    assert [1, 2] == [source.accepted for source in fake.collector.sources.all]


def test_a_key_is_decoded_before_it_is_looked_up() -> None:
    odd = Source(name="odd", write_keys=(WriteKey(key="wk é+&"),))
    fake = FakeCollector((odd,))
    assert 200 == ask(fake, with_key(b"wk+%C3%A9%2B%26")).status


def test_a_key_expires_on_time_and_the_other_key_stays_valid() -> None:
    old = WriteKey(key="wk-old", expires=NOW + timedelta(seconds=60))
    fake = FakeCollector((Source(name="shop", write_keys=(WriteKey(key="wk-new"), old)),))
    fake.clock.advance(59.999)
    assert 200 == ask(fake, with_key(b"wk-old")).status
    fake.clock.advance(0.001)
    response = ask(fake, with_key(b"wk-old"))
    assert (401, "expired-write-key", GIF) == (response.status, response.reason, response.body)
    assert 200 == ask(fake, with_key(b"wk-new")).status
    assert 2 == len(events(fake))


def test_the_expiry_respects_its_time_zone() -> None:
    there = NOW.astimezone(tz=datetime.fromisoformat("2023-01-01T00:00:00-08:00").tzinfo)
    key = WriteKey(key="wk-old", expires=there + timedelta(seconds=1))
    sources = Sources([Source(name="shop", write_keys=(key,))])
    assert "shop" == sources.check("wk-old", NOW_MS + 999).name
    with pytest.raises(RequestError, match="expired") as caught:
        sources.check("wk-old", NOW_MS + 1000)
    assert 401 == caught.value.status


def test_a_disabled_source_gets_404() -> None:
    off = Source(name="off", write_keys=(WriteKey(key="wk-off"),), enabled=False)
    fake = FakeCollector((DEMO, off))
    response = ask(fake, with_key(b"wk-off"))
    assert (404, "source-disabled", GIF) == (response.status, response.reason, response.body)
    assert PIXEL_HEADERS.items() <= response.headers.items()
    assert 200 == ask(fake, with_key(b"wk-demo")).status
    assert ["demo"] == [source for source, _ in fake.disk.events()]


def test_a_source_over_its_rate_gets_429_until_enough_time_has_passed() -> None:
    fake = FakeCollector((limited(2.0),))
    first, second, third = read_responses(fake.exchange(with_key(b"wk-slow") * 3))
    assert [200, 200, 429] == [first.status, second.status, third.status]
    assert ("rate-limited", GIF, "1") == (third.reason, third.body, third.headers["Retry-After"])
    fake.clock.advance(0.499)
    assert 429 == ask(fake, with_key(b"wk-slow")).status
    fake.clock.advance(0.002)
    assert 200 == ask(fake, with_key(b"wk-slow")).status
    assert 429 == ask(fake, with_key(b"wk-slow")).status
    assert 3 == len(events(fake))
    assert {"rate-limited": 3} == fake.collector.sources.all[0].rejected


def test_a_429_has_the_cors_headers_with_an_origin() -> None:
    fake = FakeCollector((limited(1.0),))
    request = http(TRACK.replace(b"demo", b"slow"), headers=[b"Origin: https://a.example"])
    _, response = read_responses(fake.exchange(request * 2))
    assert (429, "https://a.example") == (
        response.status,
        response.headers["Access-Control-Allow-Origin"],
    )


def test_a_request_after_retry_after_is_accepted() -> None:
    for rate in (0.01, 0.3, 0.5, 1.0, 3.0, 7.0):
        fake = FakeCollector((limited(rate),))
        while (response := ask(fake, with_key(b"wk-slow"))).status == 200:
            pass
        wait = response.headers["Retry-After"]
        assert wait.isdigit()
        assert int(wait) >= 1
        fake.clock.advance(float(wait))
        assert 200 == ask(fake, with_key(b"wk-slow")).status, f"rate {rate}, waited {wait} s"


def test_a_rate_below_one_per_second_allows_one_event() -> None:
    fake = FakeCollector((limited(0.1),))
    assert 200 == ask(fake, with_key(b"wk-slow")).status
    response = ask(fake, with_key(b"wk-slow"))
    assert (429, "10") == (response.status, response.headers["Retry-After"])


def test_a_long_pause_saves_up_at_most_one_second_of_events() -> None:
    fake = FakeCollector((limited(3.0),))
    for _ in range(2):  # the first hour passes before the first request
        fake.clock.advance(3600.0)
        responses = read_responses(fake.exchange(with_key(b"wk-slow") * 10))
        assert [200] * 3 + [429] * 7 == [response.status for response in responses]


def test_the_rate_over_a_minute_is_the_rate_that_was_set() -> None:
    fake = FakeCollector((limited(5.0),))
    for _ in range(600):  # 10 attempts per second
        fake.exchange(with_key(b"wk-slow"))
        fake.clock.advance(0.1)
    assert 5 * 60 <= fake.collector.sources.all[0].accepted <= 5 * 61


def test_collectors_share_a_rate() -> None:
    budgets = RateBudgets.private(["slow"])
    one, other = (FakeCollector((limited(8.0),), budgets=budgets) for _ in range(2))
    responses = read_responses(one.exchange(with_key(b"wk-slow") * 6))
    responses += read_responses(other.exchange(with_key(b"wk-slow") * 6))
    assert [200] * 8 + [429] * 4 == [response.status for response in responses]


def test_a_rejected_pixel_does_not_use_up_the_rate() -> None:
    fake = FakeCollector((limited(1.0),), writer={"max_waiting_bytes": 600})
    for bad in (b"&a=1" * 257, b"&" + b"a." * 40 + b"a=1", b"&properties.a=" + b'"' * 20_000):
        target = TRACK.replace(b"demo", b"slow") + bad
        assert ask(fake, http(target)).status in {400, 413}
    assert 400 == ask(fake, http(b"/pixel/v1/track?writeKey=wk-slow&event=E")).status
    assert [200, 429] == [ask(fake, with_key(b"wk-slow")).status for _ in range(2)]


def test_a_pixel_that_cannot_be_stored_does_not_use_up_the_rate() -> None:
    fake = FakeCollector((limited(1.0),))
    fake.disk.other_bytes = 2**40
    fake.loop.advance(1.5)
    assert 503 == ask(fake, with_key(b"wk-slow")).status
    fake.disk.other_bytes = 0
    fake.loop.advance(1.5)
    assert [200, 429] == [ask(fake, with_key(b"wk-slow")).status for _ in range(2)]


def test_a_pixel_rejected_by_an_internal_error_does_not_use_up_the_rate() -> None:
    fake = FakeCollector((limited(1.0),))

    def fail() -> float:
        raise RuntimeError("a bug")

    fake.loop.time = fail  # type: ignore[method-assign] # the spool writer calls it
    assert 500 == ask(fake, with_key(b"wk-slow")).status
    del fake.loop.time
    assert [200, 429] == [ask(fake, with_key(b"wk-slow")).status for _ in range(2)]


def test_a_source_over_its_rate_does_not_limit_another() -> None:
    fake = FakeCollector((limited(1.0, "slow"), limited(1.0, "other"), DEMO))
    keys = [b"wk-slow", b"wk-slow", b"wk-other", b"wk-demo", b"wk-demo", b"wk-other"]
    responses = read_responses(fake.exchange(b"".join(map(with_key, keys))))
    assert [200, 429, 200, 200, 200, 429] == [response.status for response in responses]


def test_a_source_without_a_rate_has_no_limit() -> None:
    fake = FakeCollector((DEMO,))
    responses = read_responses(fake.exchange(with_key(b"wk-demo") * 1000))
    assert [200] * 1000 == [response.status for response in responses]


def test_events_of_several_sources_in_one_commit_keep_their_sources() -> None:
    names = ("a", "b", "c")
    fake = FakeCollector([Source(name=n, write_keys=(WriteKey(key=f"wk-{n}"),)) for n in names])
    keys = [b"wk-b", b"wk-a", b"wk-b", b"wk-c", b"wk-a"]
    requests = [
        with_key(key).replace(b"Opened", b"%b-%d" % (key, number))
        for number, key in enumerate(keys)
    ]
    responses = read_responses(fake.exchange(b"".join(requests)))
    assert [200] * 5 == [response.status for response in responses]
    for source, event in fake.disk.events():
        assert b'"event":"wk-%b-' % source.encode() in event
    assert sorted(["a", "a", "b", "b", "c"]) == sorted(source for source, _ in fake.disk.events())
    assert 1 == fake.collector.writer.commits


def test_the_rules_of_one_source_do_not_affect_another() -> None:
    text = Source(name="text", write_keys=(WriteKey(key="wk-text"),), numbers=False, booleans=True)
    fake = FakeCollector((DEMO, text))
    for key in (b"wk-demo", b"wk-text"):
        target = TRACK.replace(b"wk-demo", key) + b"&properties.n=1&properties.b=true"
        assert 200 == ask(fake, http(target)).status
    assert [{"n": 1, "b": "true"}, {"n": "1", "b": True}] == [
        event["properties"] for event in events(fake)
    ]
