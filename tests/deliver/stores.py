"""A scripted object store, and batches for it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from itertools import groupby
from typing import Any
from urllib.parse import unquote

import zstandard

from pixelfast.config import S3Destination
from pixelfast.deliver.batches import Batch, Run
from tests.fake_destination import FakeResponse, Request

__all__ = ["FakeBucket", "batch_for", "destination", "received", "unpacked"]

_STORED = b'HTTP/1.1 200 OK\r\nETag: "%d"\r\nLast-Modified: Fri, 27 Nov 2026 08:00:00 GMT\r\n'
_XML = b"<Result of='%s'>%s</Result>"
_SHORT = {"max_age_s": 0.02, "retry_first_s": 0.01, "retry_most_s": 0.02, "start": "earliest"}


class FakeBucket:
    """The script of a `FakeDestination` that stores objects.

    Attributes:
        objects: the contents of the objects by name, without the bucket.
        failures: responses to the next requests, by a part of the object's name.
        lost_bytes: how many bytes fewer than it received the store reports.
        parts: the parts of the upload that is in progress; the list of uploads is not accessible.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.failures: list[tuple[str, FakeResponse]] = []
        self.lost_bytes = 0
        self.parts: list[bytes] = []

    def __call__(self, request: Request) -> FakeResponse:
        path, _, query = request.path.partition("?")
        name = unquote(path).removeprefix("/events/")
        for failure in self.failures:
            if failure[0] in name:
                self.failures.remove(failure)
                return failure[1]
        if query:
            return self._upload(request, name, query)
        if request.method == "PUT":
            self.objects[name] = request.body
            return FakeResponse(raw=_STORED % 1 + b"Content-Length: 0\r\n\r\n")
        size = len(self.objects[name]) - self.lost_bytes
        return FakeResponse(raw=_STORED % 1 + b"Content-Length: %d\r\n\r\n" % size)

    def _upload(self, request: Request, name: str, query: str) -> FakeResponse:
        """Respond to a request about an upload in parts."""
        if request.method == "GET":
            return FakeResponse(403)
        if request.method == "PUT":
            self.parts.append(request.body)
            return FakeResponse(raw=_STORED % len(self.parts) + b"Content-Length: 0\r\n\r\n")
        if "uploadId" not in query:
            self.parts = []
            return FakeResponse(body=_XML % (b"InitiateMultipartUpload", b"<UploadId>u</UploadId>"))
        self.objects[name] = b"".join(self.parts)
        return FakeResponse(body=_XML % (b"CompleteMultipartUpload", b"<ETag>e</ETag>"))


def destination(port: int, **more: Any) -> S3Destination:
    """Return the settings of a destination in a store on this port."""
    settings: dict[str, Any] = {
        "name": "lake",
        "bucket": "events",
        "endpoint": f"http://127.0.0.1:{port}",
        "region": "eu-west-1",
        "allow_http": True,
        "access_key_id": "PIXELKEY",
        "secret_access_key": "pixel-secret-key",
        "compression": "none",
    }
    return S3Destination(**{**settings, **_SHORT, **more})


def received(number: int, at: str = "2026-11-27T08:00:00.000Z", /, **more: Any) -> bytes:
    """Return an event that was received at this time."""
    event = {"event": "Email Opened", "messageId": f"m{number}", "receivedAt": at, **more}
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()


def batch_for(events: Iterable[tuple[str, bytes]], identity: str = "b1") -> Batch:
    """Return a batch of events with their sources."""
    pairs = list(events)
    grouped = groupby(source for source, _ in pairs)
    runs = tuple(Run(source, len(list(own))) for source, own in grouped)
    body = b"".join(event + b"\n" for _, event in pairs)
    return Batch(id=identity, body=body, events=len(pairs), runs=runs)


def unpacked(contents: bytes, compression: str) -> bytes:
    """Return the decompressed contents of an object of NDJSON."""
    if compression == "gzip":
        return gzip.decompress(contents)
    if compression == "zstd":
        return zstandard.ZstdDecompressor().decompressobj().decompress(contents)
    return contents
