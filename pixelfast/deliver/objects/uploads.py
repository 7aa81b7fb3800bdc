"""Aborting multipart uploads that a killed process or a lost connection left incomplete.

A store keeps and charges for the parts of an incomplete upload, although no listing of objects
shows them. The client library cannot list the uploads of earlier processes, so the two requests are
made here.
"""

from __future__ import annotations

import hashlib
import hmac
import html
import os
import re
import ssl
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import quote, urlsplit

import aiohttp
from yarl import URL

__all__ = [
    "Bucket",
    "Credentials",
    "UploadsNotAborted",
    "abort_uploads",
    "amazon_url",
    "signed_headers",
]

_NO_BODY = hashlib.sha256(b"").hexdigest()
_UPLOAD = re.compile(r"<Upload>(.*?)</Upload>", re.DOTALL)
_KEY = re.compile(r"<Key>([^<]+)</Key>")
_UPLOAD_ID = re.compile(r"<UploadId>([^<]+)</UploadId>")
_MAX_RESPONSE_BYTES = 2**20
_MAX_ABORTED = 100  # of one object


class Credentials(NamedTuple):
    """Static credentials of a store."""

    access_key_id: str
    secret_access_key: str
    session_token: str = ""

    @classmethod
    def of_environment(cls) -> Credentials | None:
        """Return the credentials in environment variables, or None."""
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
        found = cls(*(os.environ.get(name, "") for name in names))
        return found if found.access_key_id and found.secret_access_key else None


class Bucket(NamedTuple):
    """Where a bucket is, and how to access it."""

    url: str  # without a slash at its end
    region: str
    credentials: Credentials


def amazon_url(region: str) -> str:
    """Return the URL of Amazon S3 in a region.

    >>> amazon_url("eu-central-1"), amazon_url("cn-north-1")
    ('https://s3.eu-central-1.amazonaws.com', 'https://s3.cn-north-1.amazonaws.com.cn')
    """
    suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return f"https://s3.{region}.{suffix}"


class UploadsNotAborted(Exception):
    """The store rejected a request about uploads."""


async def abort_uploads(
    bucket: Bucket, name: str, timeout_s: float, context: ssl.SSLContext | None = None
) -> int:
    """Abort all multipart uploads of one object; return how many there were.

    Raises:
        UploadsNotAborted: the store rejected a request.
        OSError, aiohttp.ClientError: there was no response.
    """
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    connector = aiohttp.TCPConnector(ssl=context if context is not None else True)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        listed = await _request(session, bucket, "GET", "", {"prefix": name, "uploads": ""})
        found = [upload for key, upload in _uploads(listed) if key == name]
        for upload in found[:_MAX_ABORTED]:
            await _request(session, bucket, "DELETE", name, {"uploadId": upload})
    return len(found[:_MAX_ABORTED])


async def _request(
    session: aiohttp.ClientSession, bucket: Bucket, method: str, name: str, query: dict[str, str]
) -> str:
    url = f"{bucket.url}/{quote(name, safe='/~')}"
    headers = signed_headers(bucket, method, url, query, datetime.now(UTC))
    whole = URL(f"{url}?{_encoded(query)}", encoded=True)
    async with session.request(method, whole, headers=headers, allow_redirects=False) as response:
        body = (await response.content.read(_MAX_RESPONSE_BYTES)).decode("utf-8", "replace")
        if response.status // 100 != 2 and response.status != 404:  # another one aborted it
            raise UploadsNotAborted(f"status {response.status}")
        return body


def _uploads(listed: str) -> Iterator[tuple[str, str]]:
    """Yield the object and the id of each upload; their order in the XML differs by store."""
    for upload in _UPLOAD.findall(listed):
        key, identity = _KEY.search(upload), _UPLOAD_ID.search(upload)
        if key is not None and identity is not None:
            yield html.unescape(key[1]), html.unescape(identity[1])


def signed_headers(
    bucket: Bucket, method: str, url: str, query: Mapping[str, str], now: datetime
) -> dict[str, str]:
    """Return the headers of a request without a body, by Signature Version 4 of AWS.

    Source: "Authenticating Requests: Using the Authorization Header (AWS Signature Version 4)" in
    the API reference of Amazon S3. `url` has an encoded path and no query.
    """
    keys = bucket.credentials
    time, parts = now.strftime("%Y%m%dT%H%M%SZ"), urlsplit(url)
    headers = {"host": parts.netloc, "x-amz-content-sha256": _NO_BODY, "x-amz-date": time}
    if keys.session_token:
        headers["x-amz-security-token"] = keys.session_token
    names = ";".join(sorted(headers))
    listed = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    request = "\n".join((method, parts.path or "/", _encoded(query), listed, names, _NO_BODY))
    scope = f"{time[:8]}/{bucket.region}/s3/aws4_request"
    digest = hashlib.sha256(request.encode()).hexdigest()
    key = f"AWS4{keys.secret_access_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.new(key, f"AWS4-HMAC-SHA256\n{time}\n{scope}\n{digest}".encode(), "sha256")
    headers["Authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={keys.access_key_id}/{scope}, SignedHeaders={names},"
        f" Signature={signature.hexdigest()}"
    )
    return headers


def _encoded(query: Mapping[str, str]) -> str:
    pairs = sorted((quote(name, safe="~"), quote(text, safe="~")) for name, text in query.items())
    return "&".join(f"{name}={text}" for name, text in pairs)
