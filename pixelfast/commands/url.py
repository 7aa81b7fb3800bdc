"""`pixelfast url`: build the URL of a pixel."""

from __future__ import annotations

import html
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import click

from pixelfast.commands.demo import demo_key_path
from pixelfast.commands.options import with_sources
from pixelfast.config import Config, is_base_url, parse_address
from pixelfast.errors import ConfigError, RequestError
from pixelfast.event import EventWriter, Rules

__all__ = ["img_tag", "pixel_url", "url"]

# Merge tags, which mailers, templates and AMP pages replace; they must not be encoded. They contain
# no control characters and no bytes that are not UTF-8.
_INNER = r"[^\x00-\x1f\x7f\ud800-\udfff]+?"
_MERGE_TAG = re.compile(
    "|".join(
        [
            rf"\{{\{{{_INNER}\}}\}}\}}?",  # {{…}} and {{{…}}}: Liquid, Handlebars, Jinja
            rf"\{{%{_INNER}%\}}",
            rf"<%{_INNER}%>",
            rf"\$\{{{_INNER}\}}",
            rf"\*\|{_INNER}\|\*",  # Mailchimp
            rf"\[\[{_INNER}\]\]+",
            r"%%[A-Za-z_][\w .-]*%%",  # Salesforce Marketing Cloud, but not "100%% of 50%%"
            rf"%%={_INNER}=%%",
            r"[A-Z][A-Z0-9_]+\([\w.,:$~/-]*\)",  # AMP: CLIENT_ID(name)
            r"\b(?:PAGE_VIEW_ID(?:_64)?|SESSION_ID)\b",
        ]
    )
)
_TIMES = frozenset({"originalTimestamp", "sentAt", "timestamp"})
_SOME_TIME = "2026-01-01T00:00:00Z"


@click.command()
@click.argument("call", type=click.Choice(["track", "page"]))
@click.option("--event", metavar="NAME", help="Name of the event; required for track.")
@click.option("--name", metavar="NAME", help="Name of the page.")
@click.option("--user-id", metavar="ID", help="Id of the user, if known.")
@click.option(
    "--anonymous-id",
    metavar="ID",
    help="Id of an anonymous user. Default without --user-id: a random id.",
)
@click.option(
    "-p",
    "--property",
    "properties",
    multiple=True,
    metavar="NAME=VALUE",
    help="Property of the event; may be repeated.",
)
@click.option(
    "--set",
    "fields",
    multiple=True,
    metavar="NAME=VALUE",
    help="Any other field, such as context.ip=192.0.2.1; may be repeated.",
)
@click.option(
    "--write-key", metavar="KEY", help="Write key. Default: the first active key of the settings."
)
@click.option(
    "--base",
    metavar="URL",
    help="Public URL of the server. Default: the first TCP address of the settings.",
)
@click.option("--img", is_flag=True, help="Print an <img> tag instead of the URL.")
@with_sources
def url(img: bool, settings: Config, **parts: Any) -> None:
    """Build the URL of a pixel, or an <img> tag.

    \b
    Example:
      pixelfast url track --event "Email Opened" --user-id 42 -p campaign=may --img
      pixelfast url track --event "Email Opened" --user-id '{{user.id}}'

    Merge tags in values are not encoded, so that mailers and templates can replace them: {{…}},
    {%…%}, <%…%>, ${…}, *|…|*, [[…]], %%…%%, and AMP variables such as CLIENT_ID(…).
    """
    if not (parts["user_id"] or parts["anonymous_id"]):
        click.echo("no --user-id or --anonymous-id: using a random anonymousId", err=True)
    built = pixel_url(settings, **parts)
    key = parts["write_key"]
    if key and settings.sources and key not in _active_write_keys(settings):
        click.echo(
            "--write-key: not an active key of the settings; the pixel would be rejected",
            err=True,
        )
    click.echo(img_tag(built) if img else built)


def pixel_url(
    config: Config,
    *,
    call: str,
    event: str | None = None,
    name: str | None = None,
    user_id: str | None = None,
    anonymous_id: str | None = None,
    properties: Iterable[str] = (),
    fields: Iterable[str] = (),
    write_key: str | None = None,
    base: str | None = None,
) -> str:
    """Return the URL of a pixel.

    >>> pixel_url(Config(), call="track", event="Email Opened", user_id="42",
    ...           properties=["campaign=may"], write_key="wk_1", base="https://example.com")
    'https://example.com/pixel/v1/track?writeKey=wk_1&userId=42&event=Email%20Opened&properties.campaign=may'

    Merge tags in values are kept, and the text around them is encoded:

    >>> pixel_url(Config(), call="page", user_id="{{ user.id }}", name="Hi *|FNAME|*!",
    ...           write_key="wk_1", base="https://example.com")
    'https://example.com/pixel/v1/page?writeKey=wk_1&userId={{ user.id }}&name=Hi%20*|FNAME|*%21'

    Raises:
        ConfigError: an argument is missing or not valid, or the pixel would be rejected or lose a
            parameter.
    """
    if call == "track" and not (event or "").strip():
        raise ConfigError("--event", None, "required for a track call")
    if base is not None and not is_base_url(base):
        raise ConfigError(
            "--base",
            f'"{_readable(base)}"',
            'expected an http or https URL without a query, such as "https://example.com"',
        )
    pairs = [("writeKey", write_key or _first_write_key(config))]
    if user_id:
        pairs.append(("userId", user_id))
    if anonymous_id or not user_id:
        pairs.append(("anonymousId", anonymous_id or f"anon-{secrets.token_hex(8)}"))
    if event is not None:
        pairs.append(("event", event))
    if name is not None:
        pairs.append(("name", name))
    pairs += [(f"properties.{key}", value) for key, value in _pairs("-p", properties)]
    pairs += _pairs("--set", fields)
    _check_names(pairs)
    target = f"/pixel/v1/{call}?"
    _check_target((target + _query(_filled_in(pairs))).encode("ascii"))
    return (base or _base(config)).rstrip("/") + target + _query(pairs)


def img_tag(url: str) -> str:
    """Return an <img> tag of an invisible image.

    >>> img_tag("https://px.test/pixel/v1/page?userId=1&name=x")
    '<img src="https://px.test/pixel/v1/page?userId=1&amp;name=x" width="1" height="1" alt="">'

    Merge tags are kept here as well, because they are replaced in the HTML source:

    >>> img_tag("https://px.test/pixel/v1/page?userId=<%= id %>&n=x")
    '<img src="https://px.test/pixel/v1/page?userId=<%= id %>&amp;n=x" width="1" height="1" alt="">'
    """
    return f'<img src="{_outside_tags(url, html.escape)}" width="1" height="1" alt="">'


def _query(pairs: list[tuple[str, str]]) -> str:
    return "&".join(f"{_quoted(key)}={_outside_tags(value, _quoted)}" for key, value in pairs)


def _outside_tags(text: str, escape: Callable[[str], str]) -> str:
    """Escape a string except for its merge tags."""
    parts = []
    start = 0
    for tag in _MERGE_TAG.finditer(text):
        parts += [escape(text[start : tag.start()]), tag[0]]
        start = tag.end()
    return "".join([*parts, escape(text[start:])])


def _filled_in(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Replace merge tags by sample values, so that the pairs can be checked."""
    return [
        (name, _SOME_TIME if name in _TIMES and _MERGE_TAG.search(value) else filled)
        for name, value in pairs
        for filled in [_MERGE_TAG.sub("x", value)]
    ]


def _quoted(text: str) -> str:
    """Encode the bytes of a command-line argument, which may not be UTF-8."""
    return quote(os.fsencode(text), safe="")


def _readable(text: str) -> str:
    return os.fsencode(text).decode("utf-8", "replace")


def _check_names(pairs: list[tuple[str, str]]) -> None:
    """Reject duplicate names, of which only the first counts; `-1` appends to an array instead."""
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen and "-1" not in name.split("."):
            raise ConfigError(
                _readable(name), None, "is duplicated; the second value would be lost"
            )
        seen.add(name)


def _check_target(target: bytes) -> None:
    """Check a target like a collector, but without the settings of its source."""
    events = EventWriter()
    try:
        events.open(target)
        _, warnings = events.write(Rules(), 0)
    except RequestError as error:
        what = f"the pixel would be rejected with {error.status} {error.reason}: {error}"
        raise ConfigError("url", None, what) from None
    for reason, key in warnings:
        raise ConfigError(
            key.decode("ascii"), None, f"the parameter would be omitted from the event: {reason}"
        )


def _pairs(option: str, strings: Iterable[str]) -> list[tuple[str, str]]:
    pairs = []
    for each in strings:
        key, equals, value = each.partition("=")
        if not equals or not key:
            raise ConfigError(option, f'"{_readable(each)}"', "expected NAME=VALUE")
        pairs.append((key, value))
    return pairs


def _active_write_keys(config: Config) -> Iterator[str]:
    now = datetime.now(UTC)
    for source in config.sources:
        for key in source.write_keys if source.enabled else ():
            if key.expires is None or key.expires > now:
                yield key.key


def _first_write_key(config: Config) -> str:
    if config.sources:
        for key in _active_write_keys(config):
            return key
        raise ConfigError(
            "--write-key", None, "required, because the settings have no active write key"
        )
    try:
        return demo_key_path(config.data_dir).read_text().strip()
    except OSError:
        raise ConfigError(
            "--write-key",
            None,
            "required, because there is no demo source yet; `pixelfast serve` creates it",
        ) from None


def _base(config: Config) -> str:
    for text in config.server.listen:
        address = parse_address(text)
        if not address.path:
            return f"http://{address}"
    raise ConfigError("--base", None, "required, because the settings listen only on Unix sockets")
