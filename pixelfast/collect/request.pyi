class Request:
    """One request as it comes in, for compiled code: target, wanted headers, bounds."""
