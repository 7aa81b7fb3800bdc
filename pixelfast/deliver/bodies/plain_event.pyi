__all__ = ["MAX_ID_BYTES", "plain_message_id"]

MAX_ID_BYTES: int
"""Longest `_id` of a document."""

def plain_message_id(line: bytes) -> bytes | None:
    """Return the messageId of an event that is a document as it is, or None for a closer look.

    >>> plain_message_id(b'{"messageId":"m1","properties":{"price":5}}')
    b'"m1"'
    >>> plain_message_id(b'{"messageId":"m1","properties":{"a.b":5}}') is None
    True

    The result is JSON, a string of 1 to 512 bytes that needs no escape. None says only that a name
    or the depth could be one that `documents.mend` changes, or that there is no such messageId. It
    takes a tenth of the time of parsing; `line` is the collector's JSON, without white space around
    its colons.
    """
