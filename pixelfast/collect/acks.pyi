class Waiter:
    """Who waits for events to be stored, and answers then; for compiled code."""
