"""What a pixel means: from a request target to an event and its JSON.

Pure: no input or output, the clock is an argument. In the order the data takes:

`target`    which route a request target names, and its query
`query`     where its parameters stand
`shape`     its keys in their order, and what follows from them
`keypath`   one parameter's key: the place it names
`decoder`   the query's parameters, nested and with numbers as numbers
`identity`  identifiers without invisible characters
`stamps`    times and message identifiers
`encoder`   the server's additions, and the JSON
`template`  the JSON of a shape that comes again and again, with slots for the values
`numbers`   which texts are numbers
`text`      percent-encoded texts, as a str or as JSON
"""

from __future__ import annotations

from pixelfast.errors import NOT_COMPILED

try:
    from pixelfast.event.decoder import Decoder, Event, Rules
    from pixelfast.event.encoder import complete_event, encode_event, fill_template
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
    "fill_template",
    "message_id",
    "route_of",
    "utc_text",
]
