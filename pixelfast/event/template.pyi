class Slot:
    """Where the value of a parameter, or an addition of the server, goes; for compiled code."""

class Template:
    """The JSON of all events of one shape, with slots for what differs; for compiled code."""

    warnings: list[tuple[str, bytes]]
