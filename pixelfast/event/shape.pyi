class Shape:
    """What the keys of a query say, whatever the values are; for compiled code."""
