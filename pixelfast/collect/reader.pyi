class Request:
    """What is kept of one request; for compiled code."""

class Reader:
    """Reads the requests that are not plain GETs; for compiled code."""

def scan(data: bytes) -> tuple[int, dict[str, bytes]] | None:
    """Return the length of the plain GET that `data` begins with, and what is kept of it.

    None if it does not begin with a whole one: the reader has it parsed.
    """
