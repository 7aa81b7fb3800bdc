"""Building pixel URLs, for people who paste them into pages and mails."""

from __future__ import annotations

import html
import secrets
from collections.abc import Iterable
from urllib.parse import quote

from pixelfast.config import Config, parse_address
from pixelfast.errors import ConfigError
from pixelfast.operate.demo import demo_key_path

__all__ = ["img_tag", "pixel_url"]


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
    """The URL of one pixel.

    >>> pixel_url(Config(), call="track", event="Email Opened", user_id="42",
    ...           properties=["campaign=may"], write_key="wk_1", base="https://example.com")
    'https://example.com/pixel/v1/track?writeKey=wk_1&userId=42&event=Email%20Opened&properties.campaign=may'

    Raises:
        ConfigError: something is missing, or a pair has no "=".
    """
    if call == "track" and not (event or "").strip():
        raise ConfigError("--event", None, "is missing: a track call needs it")
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
    query = "&".join(f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in pairs)
    return f"{(base or _base(config)).rstrip('/')}/pixel/v1/{call}?{query}"


def img_tag(url: str) -> str:
    """An <img> of one invisible pixel.

    >>> img_tag("https://px.test/pixel/v1/page?userId=1&name=x")
    '<img src="https://px.test/pixel/v1/page?userId=1&amp;name=x" width="1" height="1" alt="">'
    """
    return f'<img src="{html.escape(url)}" width="1" height="1" alt="">'


def _pairs(option: str, texts: Iterable[str]) -> list[tuple[str, str]]:
    pairs = []
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(option, f'"{text}"', "NAME=VALUE")
        pairs.append((key, value))
    return pairs


def _first_write_key(config: Config) -> str:
    if config.sources:
        return config.sources[0].write_keys[0].key
    try:
        return demo_key_path(config.data_dir).read_text().strip()
    except OSError:
        raise ConfigError(
            "--write-key",
            None,
            "is missing, and there is no demo source yet: `pixelfast serve` first",
        ) from None


def _base(config: Config) -> str:
    for text in config.server.listen:
        address = parse_address(text)
        if not address.path:
            return f"http://{address}"
    raise ConfigError("--base", None, "is missing: the settings listen at Unix sockets only")
