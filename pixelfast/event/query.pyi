class Query:
    """Where keys and values stand in one query; for compiled code."""
