"""Turn the request target of a pixel into an event and its JSON.

`EventWriter` is the only entry point, for compiled code and for Python; `Rules` configure how the
pixels of a source are read. The package does no input or output, takes the clock as an argument and
keeps every cache in a writer.

Compiled modules:

`writer`    the entry point: server-side additions and JSON output
`template`  the JSON of a frequent query shape, with slots for the values
`decoder`   the nested event: numbers, identities, times and ignored parameters
`keys`      the place in the event that each key names, and the shapes of frequent queries

Leaves, compiled into the modules that use them:

`slices`        bytes in a buffer that another object owns
`limits`        the size limits of a pixel
`target`        the route and the query of a request target
`paths`         paths compared regardless of how they are written
`query`         the positions of the parameters in a query
`numbers`       the strings that are numbers
`strings`       percent-encoded strings as a str or as JSON; trimming
`placeholders`  ids that a template should have replaced
`times`         times in all accepted formats
`message_ids`   UUIDs that sort by time
`additions`     values of headers that become members of the context
"""

from __future__ import annotations

from pixelfast.errors import missing_module

try:
    from pixelfast.event.decoder import Rules
    from pixelfast.event.writer import EventWriter
except ModuleNotFoundError as error:
    raise missing_module(error) from error

__all__ = ["EventWriter", "Rules"]
