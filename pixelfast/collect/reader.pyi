__all__ = ["Reader", "Request", "scan"]

class Request:
    """Hold the parts of one request that are used later; used only by compiled code."""

class Reader:
    """Read requests that are not plain GETs; used by compiled code, and called by httptools."""

    def on_header(self, name: bytes, value: bytes) -> None: ...
    def on_headers_complete(self) -> None: ...
    def on_body(self, body: bytes) -> None: ...
    def on_message_complete(self) -> None: ...

def scan(data: bytes, message_id_header: bytes = b"") -> tuple[int, dict[str, bytes]] | None:
    """Return the length of the plain GET at the start of `data`, and its headers and target.

    The result is None if `data` does not start with a complete plain GET; the reader parses such
    requests. The value of `message_id_header` is returned as `message-id`.

    >>> scan(b"GET /pixel/v1/page HTTP/1.1\\r\\nHost: example.com\\r\\n\\r\\n")
    (50, {'target': b'/pixel/v1/page'})
    """
