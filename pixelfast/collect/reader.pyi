__all__ = ["Reader", "Request", "scan"]

class Request:
    """What is kept of one request; for compiled code."""

class Reader:
    """Reads the requests that are not plain GETs; for compiled code, and for httptools to call."""

    def on_header(self, name: bytes, value: bytes) -> None: ...
    def on_headers_complete(self) -> None: ...
    def on_body(self, body: bytes) -> None: ...
    def on_message_complete(self) -> None: ...

def scan(data: bytes, message_id_header: bytes = b"") -> tuple[int, dict[str, bytes]] | None:
    """Return the length of the plain GET that `data` begins with, and what is kept of it.

    None if it does not begin with a whole one: the reader has it parsed. The value of
    `message_id_header` is kept as `message-id`.
    """
