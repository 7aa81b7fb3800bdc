"""What a pixel means: from a request target to an event and its JSON.

`EventWriter` is the one entry, for compiled code and for Python; `Rules` say how a source's pixels
are read. Pure: no input or output, the clock is an argument, and every cache belongs to a writer.

Compiled modules:

`writer`    the entry; the server's additions, the JSON
`template`  the JSON of a shape that comes again and again, with slots for the values
`decoder`   the nested event: numbers as numbers, identities, times, what is left out
`keys`      the places that keys name, and the shapes of queries that come again

Leaves, compiled into those that use them:

`slices`        bytes in a buffer of somebody else
`limits`        every size limit of a pixel
`target`        which route a request target names, and its query
`query`         where the parameters of a query stand
`numbers`       which strings are numbers
`strings`       percent-encoded strings, as a str or as JSON; trimming
`placeholders`  ids that a template should have replaced
`times`         times in all forms that people send
`message_ids`   UUIDs that sort by time
"""

from __future__ import annotations

from pixelfast.errors import NOT_COMPILED

try:
    from pixelfast.event.decoder import Rules
    from pixelfast.event.writer import EventWriter
except ModuleNotFoundError as error:
    raise ImportError(NOT_COMPILED.format(error.name)) from error

__all__ = ["EventWriter", "Rules"]
