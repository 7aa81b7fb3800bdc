"""The events of a batch as the input of COPY, in its CSV format.

JSON contains no control characters, so three of them serve as delimiter, quote and null, and
nothing has to be escaped.
"""

from __future__ import annotations

from pixelfast.deliver.batches import Batch, Run, after_events

__all__ = ["DELIMITER", "NULL", "QUOTE", "numbered_rows", "plain_rows"]

QUOTE, DELIMITER, NULL = "\x01", "\x02", "\x03"


def plain_rows(batch: Batch) -> bytes:
    r"""Return a row for each event: its source and its JSON.

    >>> plain_rows(Batch(body=b'{"n":0}\n{"n":1}\n', events=2, runs=(Run("web", 2),)))
    b'web\x02{"n":0}\nweb\x02{"n":1}\n'
    """
    body = batch.body
    parts: list[bytes] = []
    start = 0
    for run in batch.runs or (Run("", batch.events),):
        stop = after_events(memoryview(body), start, run.events)
        before = _of_source(run.source)
        parts += [before, body[start : stop - 1].replace(b"\n", b"\n" + before), b"\n"]
        start = stop
    return b"".join(parts)


def numbered_rows(batch: Batch) -> bytes:
    """Return a row for each event: its index in the batch, its source and its JSON."""
    sources, lines = batch.sources(), batch.lines()
    return b"".join(
        b"%d\x02%s%s\n" % (n, _of_source(sources[n]), line) for n, line in enumerate(lines)
    )


def _of_source(source: str) -> bytes:
    """Return the column of a source, which is null if the source is not known."""
    return f"{source or NULL}{DELIMITER}".encode()
