from pixelfast.deliver.excerpts import Excerpts

__all__ = ["scan_errors"]

def scan_errors(
    body: bytes, items: int, beginnings: tuple[bytes, ...], max_bytes: int
) -> tuple[list[tuple[int, bytes, bool, list[int], Excerpts]], list[tuple[int, int, bytes]]] | None:
    """Return the errors in a bulk response with `items` items, or None.

    >>> accepted = b'{"create":{"status":201}}'
    >>> rejected = b'{"create":{"status":400,"error":{"type":"x","reason":"y"}}}'
    >>> scan_errors(b'{"errors":true,"items":[%b,%b]}' % (accepted, rejected), 2, (b"y",), 1024)
    ([(400, b'x', True, [1], Excerpts.of([b'{"type":"x","reason":"y"}']))], [])

    Errors with the same meaning are grouped: the status, the type, whether the reason has one of
    the `beginnings`, the indexes of the items, and their errors as in the response. All others are
    returned separately with their index and status: those longer than `max_bytes`, those without a
    plain type, and those that contain an escape by a number, `@timestamp` or the beginning of a
    quoted request.

    The body must be valid UTF-8. None means that the response has another form than Elasticsearch
    and OpenSearch give it, or errors with other values than strings and objects, so it is to be
    parsed.
    """
