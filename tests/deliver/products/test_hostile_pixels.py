"""Hostile pixels cost no other event, and forge no instructions for a destination."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from pixelfast.commands.decode import Explainer
from pixelfast.config import (
    FileDestination,
    HttpDestination,
    PosthogDestination,
    RudderstackDestination,
)
from pixelfast.deliver.batches import Batch
from pixelfast.deliver.destinations import make_sender
from pixelfast.deliver.destinations.posthog import posthog_event
from pixelfast.deliver.outcomes import Accepted, Outcome, Partial, Rejected, Retry
from tests.deliver.products.events import message_id, tracked
from tests.deliver.products.posthog import Posthog
from tests.deliver.products.segment import BatchApi
from tests.deliver.running import run
from tests.deliver.senders import batch
from tests.fake_destination import FakeDestination, FakeResponse, Request, Script
from tests.spools import open_data

LINE_ENDS = ["\u0085", "\u2028", "\u2029"]
INVISIBLE = ["\u3164", "\u2800\u2800", "\u115f\u1160", "\uffa0", "\u034f", "\ue000", "\ufff9\u3164"]


def pixel(query: str) -> bytes:
    """Return the event of a pixel, as a collector stores it."""
    target = f"/pixel/v1/track?writeKey=k&event=e&{query}".encode()
    found = Explainer(full=True).explain(target)
    assert 200 == found["status"], found
    return json.dumps(found["event"], separators=(",", ":"), ensure_ascii=False).encode()


def outcomes(kind: str, server: Script, *batches: Batch, **settings: Any) -> list[Outcome]:
    async def main() -> list[Outcome]:
        async with FakeDestination(server) as destination:
            url = f"http://127.0.0.1:{destination.port}"
            made: Any
            if kind == "posthog":
                made = PosthogDestination(name="d", url=url, api_key="phc_1", **settings)
            elif kind == "rudderstack":
                made = RudderstackDestination(name="d", url=url, write_key="wk_1", **settings)
            else:
                made = HttpDestination(name="d", url=url, **settings)
            sender = make_sender(made, None)  # type: ignore[arg-type]
            await sender.open({})
            try:
                return [await sender.send(each) for each in batches]
            finally:
                await sender.close()

    return run(main())


# --- lines ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", LINE_ENDS)
@pytest.mark.parametrize("gzip", [False, True])
def test_every_parser_of_lines_sees_the_same_lines(end: str, gzip: bool) -> None:
    text = quote(f"a{end}b")
    sent = batch([pixel(f"userId=u&properties.a={text}&properties.{text}=1"), tracked(2)])
    requests: list[Request] = []

    def keep(request: Request) -> FakeResponse:
        requests.append(request)
        return FakeResponse()

    assert [Accepted()] * 2 == outcomes("http", keep, sent, sent, format="ndjson", gzip=gzip)
    first, again = (each.plain_body.decode() for each in requests)
    assert first == again
    assert [json.loads(line) for line in sent.lines()] == [
        json.loads(line) for line in first.splitlines()
    ]


@pytest.mark.parametrize("end", LINE_ENDS)
def test_every_parser_of_files_sees_the_same_lines(end: str, tmp_path: Path) -> None:
    async def main() -> None:
        sender = make_sender(
            FileDestination(name="f", path=str(tmp_path / "f")), open_data(tmp_path)
        )
        await sender.open({})
        assert isinstance(await sender.send(sent), Accepted)
        await sender.close()

    sent = batch([tracked(1, p=f"a{end}b", **{f"k{end}": f"ü{end * 3}"}), tracked(2)])
    run(main())
    (path,) = (tmp_path / "f").glob("*.ndjson")
    assert [json.loads(line) for line in sent.lines()] == [
        json.loads(line) for line in path.read_text().splitlines()
    ]


@pytest.mark.parametrize("format", ["json_array", "ndjson", "single"])
def test_a_pixel_with_unusual_characters_stays_one_event(format: str) -> None:  # noqa: A002
    """Control bytes, brackets, `__proto__`, very long numbers, incomplete characters."""
    query = (
        "userId=u&properties.a=%01%1b%7f%0d%0a%00x&properties.%0a=%22%7d%0a%7b%22&"
        "properties.__proto__.admin=1&properties.constructor.prototype.x=1&"
        "properties.n=99999999999999999999999999&properties.m=1e999&properties.s=%ED%A0%80%ff&"
        "properties.a=twice&properties.b=%5d%2c%5b&messageId=" + "x" * 5000
    )
    sent = batch([pixel(query), tracked(2)])
    bodies: list[Any] = []

    def keep(request: Request) -> FakeResponse:
        assert b"\n" not in request.body.rstrip(b"\n").replace(b"\n{", b"{")
        bodies.extend(request.events())
        return FakeResponse()

    assert [Accepted()] == outcomes("http", keep, sent, format=format)
    first = next(each for each in bodies if each["event"] == "e")
    assert 2 == len(bodies)
    assert "\x01\x1b\x7f\r\nx" == first["properties"]["a"]
    assert "99999999999999999999999999" == first["properties"]["n"]
    assert "1e999" == first["properties"]["m"]
    assert "\ud800" not in first["properties"]["s"]
    assert {"admin": 1} == first["properties"]["__proto__"]


# --- PostHog -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "event=x&userId=victim&properties.alias=thief",
        "userId=thief&properties.%24anon_distinct_id=victim",
        "userId=victim&properties.%24set.email=thief%40example.com",
        "userId=victim&properties.%24set_once.email=x&properties.%24unset.0=plan",
        "userId=victim&properties.%24process_person_profile=true&properties.%24set.a=1",
        "anonymousId=a&properties.%24cookieless_mode=yes",
        "anonymousId=a&properties.%24groups.company=victim&properties.%24group_set.a=1",
        "anonymousId=a&properties.%24ignore_sent_at=true&properties.%24heatmap_data.a=1",
    ],
)
@pytest.mark.parametrize(
    "name",
    ["$create_alias", "$merge_dangerously", "$identify", "$set", "$groupidentify", "$$heatmap"],
)
def test_a_pixel_cannot_give_instructions_to_posthog(query: str, name: str) -> None:
    server = Posthog()
    server.persons["victim"] = {"plan": "paid"}
    hostile = json.loads(pixel(query)) | {"event": name}
    assert [Accepted()] == outcomes(
        "posthog", server, batch([json.dumps(hostile).encode(), tracked(2)])
    )
    assert 2 == len(server.events)
    assert [] == server.merged
    assert {"plan": "paid"} == server.persons["victim"]
    (event, _) = server.events.values()
    assert "_" + name == event["event"]
    given = {each for each in event["properties"] if each.startswith("_$")}
    assert len(given) == query.count(".%24")


@pytest.mark.parametrize("name", ["$pageview", "$screen"])
def test_descriptive_names_are_passed_on(name: str) -> None:
    properties = {"$current_url": "https://example.com/", "$browser": "x", "a$b": 1, "$": 2}
    made = posthog_event(json.loads(tracked(1, event=name, properties=properties)))
    assert name == made["event"]
    assert properties | {"_$": 2} == {
        each: made["properties"].get(each, 2) for each in [*properties, "_$"]
    }


@pytest.mark.parametrize(
    "given",
    [
        "anonymous",
        "GUEST",
        "distinct_id",
        "NaN",
        "[object Object]",
        "0",
        "'null'",
        '"undefined"',
        " id ",
    ],
)
def test_an_id_that_identifies_no_user_merges_no_visitors(given: str) -> None:
    def made_of(**more: Any) -> Any:
        return posthog_event(json.loads(tracked(1, **more)))

    assert "a1" == made_of(userId=given)["distinct_id"]
    assert made_of(userId=given)["properties"]["$process_person_profile"] is False
    assert message_id(1) == made_of(userId=given, anonymousId=given)["distinct_id"]


def test_long_ids_stay_different_persons() -> None:
    server = Posthog()
    sent = batch([tracked(n, userId="é" * 150 + str(n)) for n in range(3)])
    assert [Accepted()] == outcomes("posthog", server, sent)
    assert 3 == len(server.persons)
    made = posthog_event(json.loads(tracked(1, userId="x" * 200)))
    assert "x" * 200 == made["distinct_id"]


# --- RudderStack ---------------------------------------------------------------------------------


@pytest.mark.parametrize("identity", INVISIBLE)
@pytest.mark.parametrize("gzip", [False, True])
def test_an_invisible_id_is_rejected_alone(identity: str, gzip: bool) -> None:
    """The gateway would respond 400 for the whole batch."""
    hostile = pixel(f"userId={quote(identity)}&anonymousId={quote(identity)}")
    sent = batch([tracked(1), hostile, tracked(3, userId="é"), tracked(4)])
    api = BatchApi(max_bytes=4_000_000, is_rudderstack=True)
    (outcome,) = outcomes("rudderstack", api, sent, gzip=gzip)
    assert isinstance(outcome, Partial)
    ((index, rejected),) = outcome.failed.items()
    assert (1, Rejected, 0) == (index, type(rejected), rejected.status)
    assert "visible" in rejected.reason
    assert [message_id(n) for n in (1, 3, 4)] == list(api.events)


def test_a_batch_with_only_invisible_ids_is_not_sent() -> None:
    sent = batch([tracked(n, anonymousId="\u3164") for n in range(3)])
    (outcome,) = outcomes("rudderstack", lambda _: FakeResponse(500), sent)
    assert isinstance(outcome, Partial)
    assert [0, 1, 2] == list(outcome.failed)


def test_no_event_is_rejected_before_the_rest_is_accepted() -> None:
    sent = batch([tracked(1), tracked(2, anonymousId="\u3164")])
    (outcome,) = outcomes("rudderstack", [FakeResponse(503)], sent)
    assert isinstance(outcome, Retry)


@pytest.mark.parametrize("more", [{"userId": "u"}, {"userId": "é"}, {"anonymousId": "\u3164x"}])
def test_one_visible_character_is_enough(more: dict[str, str]) -> None:
    api = BatchApi(max_bytes=4_000_000, is_rudderstack=True)
    sent = batch([tracked(1, **{"anonymousId": "\u3164", **more}), tracked(2, p="ü")])
    assert [Accepted()] == outcomes("rudderstack", api, sent)
    assert 2 == len(api.events)


def test_the_first_pixel_assigns_no_batch_to_a_job_run() -> None:
    api = BatchApi(max_bytes=4_000_000, is_rudderstack=True)
    first = pixel(
        "userId=u&context.sources.job_run_id=7&context.sources.task_run_id=8&"
        "context.sources.version=v&properties.a=job_run_id"
    )
    sent = batch([first, tracked(2)])
    assert [Accepted()] * 2 == outcomes("rudderstack", api, sent, sent)
    assert [""] * 4 == api.job_runs
    (event, _) = api.events.values()
    assert {"version": "v"} == event["context"]["sources"]
