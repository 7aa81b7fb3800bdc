"""The health check at the addresses of pixels, for load balancers."""

from __future__ import annotations

import pytest

from tests.collect.wire import ask, events, http
from tests.fakes import FakeCollector


def make_collector(health_path: str = "/health", **options: object) -> FakeCollector:
    return FakeCollector(health_path=health_path, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize("more", [[], [b"Connection: keep-alive"]], ids=["scan", "reader"])
def test_it_is_200_while_events_can_be_stored(method: bytes, more: list[bytes]) -> None:
    answer = ask(make_collector(), http(b"/health", method, more))
    assert (200, None, b"" if method == b"HEAD" else b"ok") == (
        answer.status,
        answer.reason,
        answer.body,
    )
    assert ("2", "no-store") == (answer.headers["Content-Length"], answer.headers["Cache-Control"])


def test_it_makes_no_event_and_is_no_rejected_pixel() -> None:
    fake = make_collector()
    ask(fake, http(b"/health?writeKey=wk-demo&userId=u1"))
    fake.collector.fails_health_checks = True
    ask(fake, http(b"/health?writeKey=wk-demo&userId=u1"))
    assert ([], {}) == (events(fake), fake.collector.sources.unknown.rejected)


@pytest.mark.parametrize(
    "target",
    [
        b"/health/",
        b"//health",
        b"/h%65alth",
        b"/health.gif",
        b"/health?x",
        b"http://a.example/health",
    ],
)
def test_its_path_is_compared_as_people_write_it(target: bytes) -> None:
    assert 200 == ask(make_collector(), http(target)).status


@pytest.mark.parametrize(
    "target",
    [b"/", b"/healthy", b"/healt", b"/health//x", b"/health.gi", b"/health.gifs", b"/Health"],
)
def test_another_path_is_not_it(target: bytes) -> None:
    assert 404 == ask(make_collector(), http(target)).status


@pytest.mark.parametrize("method", [b"POST", b"OPTIONS", b"PUT"])
def test_it_takes_only_get_and_head(method: bytes) -> None:
    assert 404 == ask(make_collector(), http(b"/health", method)).status


def test_its_path_is_a_setting() -> None:
    fake = make_collector("/a/b")
    assert [200, 404] == [ask(fake, http(path)).status for path in (b"/a/b", b"/health")]
    assert 200 == ask(make_collector("/"), http(b"/")).status


def test_without_a_path_there_is_none() -> None:
    fake = make_collector("")
    assert [404, 404] == [ask(fake, http(path)).status for path in (b"/health", b"/")]


@pytest.mark.parametrize("always_200", [False, True])
def test_it_is_503_while_events_cannot_be_stored(always_200: bool) -> None:
    fake = make_collector(writer={"max_bytes": 2**20}, always_200=always_200)
    fake.disk.other_bytes = 2**21
    fake.loop.advance(1.0)
    answer = ask(fake, http(b"/health"))
    assert (503, "spool-full", b"unavailable") == (answer.status, answer.reason, answer.body)
    assert "1" == answer.headers["Retry-After"]
    fake.disk.other_bytes = 0
    fake.loop.advance(1.0)
    assert 200 == ask(fake, http(b"/health")).status


def test_it_is_503_once_a_stop_has_begun_although_pixels_are_accepted() -> None:
    fake = make_collector()
    fake.collector.fails_health_checks = True
    answer = ask(fake, http(b"/health"))
    assert (503, "shutting-down") == (answer.status, answer.reason)
    assert 200 == ask(fake, http()).status
