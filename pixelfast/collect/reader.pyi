class Reader:
    """Reads requests that are no plain GETs, for compiled code."""
