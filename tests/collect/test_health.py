"""The health check for load balancers, on the listeners of pixels."""

from __future__ import annotations

import pytest

from tests.collect.wire import TO_READER, ask, events, http
from tests.fakes import FakeCollector


def make_collector(health_path: str = "/health", **options: object) -> FakeCollector:
    return FakeCollector(health_path=health_path, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize("more", [[], [TO_READER]], ids=["scan", "reader"])
def test_the_health_check_is_200_while_events_can_be_stored(
    method: bytes, more: list[bytes]
) -> None:
    response = ask(make_collector(), http(b"/health", method, more))
    assert (200, None, b"" if method == b"HEAD" else b"ok") == (
        response.status,
        response.reason,
        response.body,
    )
    assert ("2", "no-store") == (
        response.headers["Content-Length"],
        response.headers["Cache-Control"],
    )


def test_the_health_check_stores_no_event_and_counts_no_rejection() -> None:
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
def test_equivalent_spellings_of_the_health_path_are_accepted(target: bytes) -> None:
    assert 200 == ask(make_collector(), http(target)).status


@pytest.mark.parametrize(
    "target",
    [b"/", b"/healthy", b"/healt", b"/health//x", b"/health.gi", b"/health.gifs", b"/Health"],
)
def test_another_path_is_not_the_health_check(target: bytes) -> None:
    assert 404 == ask(make_collector(), http(target)).status


@pytest.mark.parametrize("method", [b"POST", b"OPTIONS", b"PUT"])
def test_the_health_check_accepts_only_get_and_head(method: bytes) -> None:
    assert 404 == ask(make_collector(), http(b"/health", method)).status


def test_the_path_of_the_health_check_is_a_setting() -> None:
    fake = make_collector("/a/b")
    assert [200, 404] == [ask(fake, http(path)).status for path in (b"/a/b", b"/health")]
    assert 200 == ask(make_collector("/"), http(b"/")).status


def test_an_empty_path_disables_the_health_check() -> None:
    fake = make_collector("")
    assert [404, 404] == [ask(fake, http(path)).status for path in (b"/health", b"/")]


@pytest.mark.parametrize("always_200", [False, True])
def test_the_health_check_is_503_while_events_cannot_be_stored(always_200: bool) -> None:
    fake = make_collector(writer={"max_bytes": 2**20}, always_200=always_200)
    fake.disk.other_bytes = 2**21
    fake.loop.advance(1.0)
    response = ask(fake, http(b"/health"))
    assert (503, "spool-full", b"unavailable") == (response.status, response.reason, response.body)
    assert "1" == response.headers["Retry-After"]
    fake.disk.other_bytes = 0
    fake.loop.advance(1.0)
    assert 200 == ask(fake, http(b"/health")).status


def test_the_health_check_is_503_during_a_stop_while_pixels_are_accepted() -> None:
    fake = make_collector()
    fake.collector.fails_health_checks = True
    response = ask(fake, http(b"/health"))
    assert (503, "shutting-down") == (response.status, response.reason)
    assert 200 == ask(fake, http()).status
