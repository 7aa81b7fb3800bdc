__all__ = ["items_with_errors"]

def items_with_errors(body: bytes, items: int) -> list[tuple[int, int, bytes]] | None:
    """Return the index, status and error of each item of a bulk response with an error, or None.

    >>> accepted = b'{"create":{"status":201}}'
    >>> rejected = b'{"create":{"status":400,"error":{"type":"x"}}}'
    >>> items_with_errors(b'{"errors":true,"items":[%b,%b]}' % (accepted, rejected), 2)
    [(1, 400, b'{"type":"x"}')]

    `items` is their number. None means that the response has another form than Elasticsearch and
    OpenSearch give it, so it is to be parsed. An error has balanced braces and quotes but may be
    invalid JSON in other ways.
    """
