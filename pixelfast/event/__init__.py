"""What a pixel means: from a request target to an event and its JSON.

Pure: no input or output, the clock is an argument. In the order the data takes:

`target`    which route a request target names, and its query
`keypath`   one parameter's key: the place it names
`decoder`   the query's parameters, nested and with numbers as numbers
`identity`  identifiers without invisible characters
`stamps`    times and message identifiers
`encoder`   the server's additions, and the JSON
"""

from __future__ import annotations

from pixelfast.errors import NOT_COMPILED

try:
    from pixelfast.event.decoder import Decoder, Event, Rules
    from pixelfast.event.encoder import complete_event, encode_event
    from pixelfast.event.stamps import date_time_us, message_id, utc_text
    from pixelfast.event.target import route_of
except ModuleNotFoundError as error:
    raise ImportError(NOT_COMPILED.format(error.name)) from error

__all__ = [
    "Decoder",
    "Event",
    "Rules",
    "complete_event",
    "date_time_us",
    "encode_event",
    "message_id",
    "route_of",
    "utc_text",
]
