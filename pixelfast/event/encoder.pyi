from typing import Any

from pixelfast.event.decoder import Decoder, Event, Rules

def complete_event(
    event: Event,
    received_ms: int,
    request_ip: str = "",
    user_agent: str | None = None,
    fill: dict[str, str] | None = None,
) -> dict[str, Any]:
    """The event with the server's additions, as nested dicts and lists.

    Adds to `event.warnings` the times among its parameters that are none.

    Args:
        event: what `Decoder.decode` returned; its context may be added to.
        received_ms: when the request came, milliseconds since 1970.
        request_ip: the client's address; left out where empty.
        user_agent: the User-Agent header, for `context.userAgent` where that is absent.
        fill: `ip`, `referer`, `locale`: fill-ins that the source asks for.
    """

def encode_event(
    event: Event,
    received_ms: int,
    request_ip: str,
    user_agent: str | None,
    fill: dict[str, str] | None,
) -> bytes:
    """`complete_event` as JSON, UTF-8, without a line feed anywhere.

    Raises:
        RequestError: 413, the JSON is longer than 32,768 bytes.
    """

def fill_template(
    decoder: Decoder,
    rules: Rules,
    is_track: bool,
    received_ms: int,
    request_ip: str = "",
    user_agent: bytes = b"",
) -> tuple[bytes, list[tuple[str, bytes]]] | None:
    """The event of the decoder's query by its template: its JSON and its warnings.

    The same bytes as `encode_event` of `Decoder.decode`. None where the event must be built and
    encoded: the keys of the query have not come often enough, or a value is one that a template
    leaves to the encoder. `user_agent` is without white space around it.
    """
