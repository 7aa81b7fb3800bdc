class KeyPath:
    """The place in an event that a parameter's key names.

    `raw` is the key as it stands in the query, percent-encoded. It is split at dots after decoding;
    a backslash makes the next character literal, a leading colon makes a segment a plain name. A
    segment `0` to `63` is an index of an array, `-1` appends.

    Attributes:
        names: the segments as texts, 1 to 32 of them; empty where there are more.
        indexes: beside them, the index where the segment is one (-1: append), else None.
        dotted: the names joined with dots: what settings call the place, unless a segment of it
            turns out to be an index of an array.
        depth: how many segments.
        warning: why the parameter is left out, or None.

    >>> path = KeyPath(b"properties.products.0.price")
    >>> path.names, path.indexes
    (('properties', 'products', '0', 'price'), (None, None, 0, None))
    >>> path.dotted
    'properties.products.0.price'
    >>> KeyPath(b"properties.a%5C.b").names, KeyPath(b"properties..a").warning
    (('properties', 'a.b'), 'empty-segment')
    """

    raw: bytes
    names: tuple[str, ...]
    dotted: str
    warning: str | None
    kind: int
    root: int
    depth: int

    def __init__(self, raw: bytes) -> None: ...
    @property
    def indexes(self) -> tuple[int | None, ...]: ...
