def scan(data: bytes) -> tuple[int, dict[str, bytes]] | None:
    """The plain GET that `data` begins with: its length in bytes, and what is kept of it.

    None where it does not begin with one, whole: the parser says what it is.
    """
