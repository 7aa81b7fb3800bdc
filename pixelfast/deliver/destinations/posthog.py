"""PostHog, which requires events in its own format."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any
from urllib.parse import urlsplit

import msgspec
import orjson

from pixelfast import __version__
from pixelfast.config import PosthogDestination
from pixelfast.deliver.batches import Batch
from pixelfast.deliver.http.responses import Response, classify
from pixelfast.deliver.http.sender import HttpSender, shared_options
from pixelfast.deliver.outcomes import Accepted, Held, Outcome

__all__ = ["PosthogSender", "posthog_event"]

_LIBRARY = {"$lib": "pixelfast", "$lib_version": __version__}
_UTM = {"source", "medium", "content", "term"}

# Names that begin with $ are instructions to PostHog: `$merge_dangerously` and `$create_alias`
# merge persons, `$set` and `$unset` change them, and a wrong value of `$cookieless_mode` makes
# PostHog reject the whole batch. Write keys are public, so only descriptive names are passed on.
_KNOWN_EVENTS = frozenset({"$pageview", "$pageleave", "$screen"})
_KNOWN_PROPERTIES = frozenset(
    """
    $app_build $app_name $app_namespace $app_version $browser $browser_language $browser_version
    $current_url $device $device_id $device_manufacturer $device_model $device_name $device_type
    $host $initial_referrer $initial_referring_domain $ip $lib $lib_version $locale $network_carrier
    $os $os_name $os_version $pathname $raw_user_agent $referrer $referring_domain $screen_height
    $screen_name $screen_width $search_engine $timezone $title $user_agent $viewport_height
    $viewport_width
    """.split()  # noqa: SIM905 - words read better as words
)
_MAX_ID_BYTES = 200
# Source: PostHog's documentation, "Ingestion warnings", "illegal distinct ID", and the list in its
# ingestion service: ids that identify no user, with or without quotes.
_ILLEGAL_IDS = frozenset(
    """
    anonymous guest distinctid distinct_id id not_authenticated email undefined true false nan none
    null 0
    """.split()  # noqa: SIM905 - words read better as words
) | {"[object object]"}


class PosthogSender(HttpSender):
    """Send `{"api_key":…,"batch":[…]}` to `{url}/batch/`.

    Source: PostHog's documentation, "Capture and batch API endpoints": a body may have
    20 MB. Its capture service responds 400 to a body that it cannot read, 401 or 403 to a wrong
    key, 413, 429, and 503 while its queue is unavailable. It accepts a batch as a whole or not at
    all. For a project over its quota it responds 200 with `quota_limited` and drops the events; the
    destination is then held.
    """

    is_body_costly = True

    def __init__(self, settings: PosthogDestination) -> None:
        before = b'{"api_key":' + orjson.dumps(settings.api_key) + b',"batch":['
        super().__init__(
            settings.url.rstrip("/") + "/batch/",
            "json_array",
            wrap=(before, b"]}"),
            **shared_options(settings),
        )

    def body_of(self, batch: Batch) -> bytes:
        before, behind = self._wrap
        events = (orjson.dumps(posthog_event(orjson.loads(line))) for line in batch.lines())
        return before + b",".join(events) + behind

    def judge(self, response: Response, batch: Batch) -> Outcome:  # noqa: ARG002 - it applies to the whole batch
        outcome = classify(response)
        if isinstance(outcome, Accepted) and _is_over_quota(response.body):
            return Held("the project is over its quota", response.status, response.body[:1024])
        return outcome


class _Taken(msgspec.Struct):
    quota_limited: list[str] = []


_decode_taken = msgspec.json.Decoder(
    _Taken
).decode  # by type, because decoding arbitrary JSON could take long


def _is_over_quota(body: bytes) -> bool:
    if b"quota_limited" not in body:
        return False
    try:
        return "events" in _decode_taken(body).quota_limited
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return False


def posthog_event(event: dict[str, Any]) -> dict[str, Any]:
    """Rewrite an event in PostHog's format; docs/destinations.md has the table.

    >>> made = posthog_event({"type": "track", "event": "Opened", "userId": "u1",
    ...     "messageId": "m1", "timestamp": "2026-01-31T00:00:00.000Z", "properties": {"a": 1}})
    >>> made["event"], made["distinct_id"], made["properties"]["a"]
    ('Opened', 'u1', 1)

    The event's own properties take precedence over those derived from its context.
    """
    message_id = str(event.get("messageId", ""))
    user_id = _identity(event.get("userId"))
    name = "$pageview" if event.get("type") == "page" else event.get("event")
    if isinstance(name, str) and name.startswith("$") and name not in _KNOWN_EVENTS:
        name = "_" + name
    return {
        "uuid": _uuid_of(message_id),  # PostHog drops repeated events by it
        "event": name,
        "distinct_id": user_id or _identity(event.get("anonymousId")) or _uuid_of(message_id),
        "timestamp": event.get("timestamp"),
        "properties": _derived(event, user_id) | _described(_dict(event.get("properties"))),
    }


def _identity(given: object) -> str:
    """Return the id to send, or "" for an id that PostHog would ignore.

    PostHog truncates ids to 200 bytes, which could merge two persons. Longer ids are hashed.
    """
    identity = str(given or "")
    if identity.strip().strip("'\"").lower() in _ILLEGAL_IDS:
        return ""
    encoded = identity.encode()
    return identity if len(encoded) <= _MAX_ID_BYTES else hashlib.sha256(encoded).hexdigest()


def _described(properties: dict[str, Any]) -> dict[str, Any]:
    """Return the properties, with a `_` before names that are instructions."""
    if not any(name.startswith("$") for name in properties):
        return properties
    return {
        f"_{name}" if name.startswith("$") and name not in _KNOWN_PROPERTIES else name: value
        for name, value in properties.items()
    }


def _derived(event: dict[str, Any], user_id: str) -> dict[str, Any]:
    """Return the properties that PostHog has special names for, and its instructions."""
    context, own = _dict(event.get("context")), _dict(event.get("properties"))
    page, screen, campaign = (_dict(context.get(n)) for n in ("page", "screen", "campaign"))
    url = page.get("url") or own.get("url")
    split = _split(url)
    ip = context.get("ip") or event.get("request_ip")
    traits = _dict(context.get("traits")) | _dict(event.get("traits"))
    found = {
        "$current_url": url,
        "$host": split[0],
        "$pathname": page.get("path") or own.get("path") or split[1],
        "$referrer": page.get("referrer") or own.get("referrer"),
        "title": page.get("title"),
        "name": event.get("name"),
        "category": event.get("category"),
        "$ip": ip,
        "$raw_user_agent": context.get("userAgent"),
        "$locale": context.get("locale"),
        "$timezone": context.get("timezone"),
        "$os": _dict(context.get("os")).get("name"),
        "$screen_width": screen.get("width"),
        "$screen_height": screen.get("height"),
        "utm_campaign": campaign.get("name"),
        **{f"utm_{name}": campaign.get(name) for name in sorted(_UTM)},
        "anonymousId": event.get("anonymousId"),
        "$set": traits or None,
        # Otherwise PostHog would use the server's address as the visitor's.
        "$geoip_disable": None if ip else True,
        # Profiles cost money, and events without a user need none.
        "$process_person_profile": None if user_id or traits else False,
    }
    return _LIBRARY | {name: value for name, value in found.items() if value not in (None, "")}


def _uuid_of(message_id: str) -> str:
    """Return the id as a UUID, because PostHog drops events with other ids."""
    try:
        return str(uuid.UUID(message_id))
    except ValueError:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, message_id))


def _split(url: object) -> tuple[str, str]:
    """Return the host and path of a URL, or empty strings if it is invalid."""
    try:
        parts = urlsplit(str(url or ""))
    except ValueError:
        return "", ""
    return parts.netloc.rpartition("@")[2], parts.path


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
