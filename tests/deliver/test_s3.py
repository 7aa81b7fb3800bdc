"""Objects in a scripted store: names, headers, and what each failure means."""

from __future__ import annotations

import asyncio
import base64
import gc
import hashlib
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog

from pixelfast.config import Config, Redactor
from pixelfast.deliver.destinations.s3 import S3Sender
from pixelfast.deliver.objects.uploads import (
    Bucket,
    Credentials,
    UploadsNotAborted,
    abort_uploads,
    signed_headers,
)
from pixelfast.deliver.outcomes import Accepted, Held, Outcome, Retry
from pixelfast.errors import DestinationError
from pixelfast.spool import DataDir
from tests.deliver.certificates import Certificates, tls_server
from tests.deliver.runners import FakeSender, make_runner, running
from tests.deliver.running import run
from tests.deliver.spools import fill
from tests.deliver.stores import FakeBucket, batch_for, destination, received
from tests.fake_destination import FakeDestination, FakeResponse, Request
from tests.leaks import open_fds
from tests.spools import Feed
from tests.waiting import until, wait_until

TWO = [("web", received(1)), ("mail", received(2))]
ERROR = "<?xml version='1.0'?><Error><Code>{}</Code><Message>Words &amp; {}</Message></Error>"


@pytest.fixture(scope="session")
def _first_request(_first_loop: None) -> None:
    """Send a request, because the first one of a process starts threads that stay."""

    async def main() -> None:
        sender = S3Sender(destination(1))
        await sender.open({})
        await sender.send(batch_for(TWO))
        await sender.close()

    run(main())


@pytest.fixture(autouse=True)
def leaves_nothing_open(_first_request: None) -> Iterator[None]:
    """Fail if a test leaves descriptors open; threads of the library close connections later."""
    before = open_fds()
    yield

    def is_closed() -> bool:
        gc.collect()
        return open_fds().keys() <= before.keys()

    wait_until(is_closed, "all descriptors are closed")


@asynccontextmanager
async def store_and_sender(**more: Any) -> AsyncIterator[tuple[FakeDestination, S3Sender]]:
    """A store that follows `bucket` (a FakeBucket by default), and its sender."""
    script = more.pop("bucket", None) or FakeBucket()
    async with FakeDestination(script) as store:
        sender = S3Sender(destination(store.port, **more))
        await sender.open({})
        try:
            yield store, sender
        finally:
            await sender.close()


def sending(use: Callable[[FakeDestination, S3Sender], Awaitable[Any]], **more: Any) -> Any:
    """Run a coroutine with a store and its sender."""

    async def main() -> Any:
        async with store_and_sender(**more) as both:
            return await use(*both)

    return run(main())


def test_a_batch_is_one_object_for_each_partition_and_repeats_itself() -> None:
    bucket = FakeBucket()

    async def use(_: FakeDestination, sender: S3Sender) -> None:
        assert Accepted() == await sender.send(batch_for(TWO))
        first = dict(bucket.objects)
        assert Accepted() == await sender.send(batch_for(TWO))
        assert first == bucket.objects
        assert {"stored_objects": 4, "stored_object_bytes": 4 * len(TWO[0][1] + b"\n")} == (
            sender.figures()
        )

    sending(use, bucket=bucket, prefix="sites/px=1")
    where = "sites/px=1/source={}/date=2026-11-27/hour=08/b1.ndjson"
    expected = {where.format(source): event + b"\n" for source, event in TWO}
    assert expected == bucket.objects


def test_requests_have_the_checksum_and_the_options_of_the_settings() -> None:
    async def use(store: FakeDestination, sender: S3Sender) -> list[Request]:
        await sender.send(batch_for(TWO[:1]))
        return store.requests

    put, head = sending(use, encryption="aws:kms", kms_key_id="key-1", storage_class="STANDARD_IA")
    digest = base64.b64encode(hashlib.sha256(put.body).digest()).decode()
    expected = {
        "x-amz-checksum-sha256": digest,
        "x-amz-server-side-encryption": "aws:kms",
        "x-amz-server-side-encryption-aws-kms-key-id": "key-1",
        "x-amz-storage-class": "STANDARD_IA",
        "content-type": "application/x-ndjson",
        "x-amz-security-token": None,
    }
    assert expected == {name: put.value(name) for name in expected}
    signed = put.value("Authorization") or ""
    assert "Credential=PIXELKEY/" in signed
    assert "/eu-west-1/s3/" in signed
    assert ("PUT", "HEAD", put.path) == (put.method, head.method, head.path)
    assert (put.value("User-Agent") or "").startswith("pixelfast/")


@pytest.mark.parametrize("checksum", ["none", "crc64nvme"])
def test_other_checksums_can_be_chosen(checksum: str) -> None:
    async def use(store: FakeDestination, sender: S3Sender) -> Request:
        await sender.send(batch_for(TWO[:1]))
        return store.requests[0]

    put = sending(use, checksum=checksum)
    found = [name.lower() for name, _ in put.headers if "x-amz-checksum-" in name.lower()]
    assert ([] if checksum == "none" else [f"x-amz-checksum-{checksum}"]) == found


def test_no_variable_of_the_environment_changes_the_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "OTHER",
        "AWS_SECRET_ACCESS_KEY": "other",
        "AWS_SESSION_TOKEN": "other",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
        "AWS_SKIP_SIGNATURE": "true",
        "AWS_REGION": "us-west-2",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true",
        "AWS_UNSIGNED_PAYLOAD": "true",
    }.items():
        monkeypatch.setenv(name, value)

    async def use(store: FakeDestination, sender: S3Sender) -> Request:
        assert Accepted() == await sender.send(batch_for(TWO[:1]))
        return store.requests[0]

    put = sending(use)
    assert "Credential=PIXELKEY/" in (put.value("Authorization") or "")
    assert "/eu-west-1/s3/" in (put.value("Authorization") or "")
    assert put.value("x-amz-security-token") is None
    assert put.path.startswith("/events/source")


@pytest.mark.parametrize("variable", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_credentials_and_region_of_the_environment_are_used_without_settings(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "OTHER")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "other")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    monkeypatch.setenv(variable, "us-west-2")

    async def use(store: FakeDestination, sender: S3Sender) -> Request:
        assert Accepted() == await sender.send(batch_for(TWO[:1]))
        return store.requests[0]

    put = sending(use, access_key_id="", secret_access_key=None, region="")
    assert "Credential=OTHER/" in (put.value("Authorization") or "")
    assert "/us-west-2/s3/" in (put.value("Authorization") or "")
    assert "token" == put.value("x-amz-security-token")


def test_a_destination_without_credentials_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1")

    async def use(_: FakeDestination, sender: S3Sender) -> Outcome:
        return await sender.send(batch_for(TWO[:1]))

    outcome = sending(use, access_key_id="", secret_access_key=None)
    expected = "no credentials: 127.0.0.1:1: cannot connect: Connection refused"
    assert Held(expected) == outcome


STATUSES = {
    "a missing bucket": (404, "NoSuchBucket", Held),
    "no permission": (403, "AccessDenied", Held),
    "an unknown key": (403, "InvalidAccessKeyId", Held),
    "a wrong key": (403, "SignatureDoesNotMatch", Held),
    "a clock that is wrong": (403, "RequestTimeTooSkewed", Held),
    "an expired token": (400, "ExpiredToken", Held),
    "a wrong region": (400, "AuthorizationHeaderMalformed", Held),
    "an unknown storage class": (400, "InvalidStorageClass", Held),
    "an object that is too large": (413, "EntityTooLarge", Held),
    "no such method": (405, "MethodNotAllowed", Held),
    "not implemented": (501, "NotImplemented", Held),
    "a damaged body": (400, "BadDigest", Retry),
    "a checksum that differs": (400, "XAmzContentChecksumMismatch", Retry),
    "an incomplete body": (400, "IncompleteBody", Retry),
    "a body that took too long": (400, "RequestTimeout", Retry),
    "a concurrent change": (409, "OperationAborted", Retry),
    "too many requests": (429, "TooManyRequests", Retry),
    "a request for patience": (503, "SlowDown", Retry),
    "an internal error": (500, "InternalError", Retry),
    "a proxy without a server": (502, "BadGateway", Retry),
    "a full disk": (507, "InsufficientStorage", Retry),
}


@pytest.mark.parametrize(("status", "code", "kind"), STATUSES.values(), ids=list(STATUSES))
def test_what_a_status_means(status: int, code: str, kind: type[Held | Retry]) -> None:
    bucket = FakeBucket()
    body = ERROR.format(code, code)
    bucket.failures = [("", FakeResponse(status, body=body.encode()))]

    async def use(_: FakeDestination, sender: S3Sender) -> list[Outcome]:
        return [await sender.send(batch_for(TWO[:1])) for _ in range(2)]

    first, second = sending(use, bucket=bucket)
    reason = f"status {status}, {code}: Words & {code}"
    assert (kind, reason, status) == (type(first), first.reason, first.status)
    assert body.encode() == first.response
    assert Accepted() == second


@pytest.mark.parametrize(
    ("response", "kind", "reason"),
    [
        (FakeResponse(first="reset"), Retry, "127.0.0.1:{}: the connection was lost"),
        (FakeResponse(first="never"), Retry, "127.0.0.1:{}: no response within 0.3 s"),
        (FakeResponse(200), Retry, "the response is not one of an object store: it has no ETag"),
        (FakeResponse(404, body=b"<html>"), Held, "status 404"),
        (FakeResponse(301), Held, "127.0.0.1:{}: Received redirect without LOCATION"),
        (FakeResponse(307, (("Location", "http://127.0.0.1:1/"),)), Held, "status 307"),
        (FakeResponse(raw=b"SSH-2.0\r\n\r\n", then="close"), Retry, "127.0.0.1:{}: "),
    ],
)
def test_what_other_responses_mean(
    response: FakeResponse, kind: type[Held | Retry], reason: str
) -> None:
    bucket = FakeBucket()
    bucket.failures = [("", response)]

    async def use(store: FakeDestination, sender: S3Sender) -> tuple[Outcome, int]:
        return await sender.send(batch_for(TWO[:1])), store.port

    outcome, port = sending(use, bucket=bucket, timeout_s=0.3)
    assert kind is type(outcome)
    assert outcome.reason.startswith(reason.format(port)), outcome.reason
    assert "events" not in outcome.reason, "reasons contain no URL"


def test_a_store_that_is_down_or_unknown_is_retried() -> None:
    async def main() -> list[Outcome]:
        outcomes = []
        for endpoint in ("http://127.0.0.1:1", "http://unknown.invalid"):
            sender = S3Sender(destination(1, endpoint=endpoint))
            await sender.open({})
            outcomes.append(await sender.send(batch_for(TWO[:1])))
            await sender.close()
        return outcomes

    down, unknown = run(main())
    assert Retry("127.0.0.1:1: cannot connect: Connection refused") == down
    assert isinstance(unknown, Retry)
    assert unknown.reason.startswith("unknown.invalid: cannot connect: ")


def test_a_batch_is_accepted_only_when_all_its_objects_are_stored() -> None:
    bucket = FakeBucket()
    bucket.failures = [
        ("source=mail", FakeResponse(503)),
        ("source=mail", FakeResponse(403)),
        ("source=web", FakeResponse(503)),
    ]

    async def use(_: FakeDestination, sender: S3Sender) -> list[Outcome]:
        return [await sender.send(batch_for(TWO)) for _ in range(3)]

    first, second, third = sending(use, bucket=bucket, concurrency=2)
    assert isinstance(first, Retry)
    assert (Held, 403) == (type(second), second.status), "a hold matters more than a retry"
    assert Accepted() == third
    assert 2 == len(bucket.objects)


def test_an_object_of_another_size_is_not_accepted() -> None:
    bucket = FakeBucket()
    bucket.lost_bytes = 1

    async def use(_: FakeDestination, sender: S3Sender) -> Outcome:
        return await sender.send(batch_for(TWO[:1]))

    size = len(TWO[0][1]) + 1
    reason = f"the store has {size - 1} of {size} bytes of an object"
    assert Retry(reason) == sending(use, bucket=bucket)
    assert Accepted() == sending(use, bucket=bucket, verify_size=False)


def test_secrets_that_a_store_returns_are_masked() -> None:
    bucket = FakeBucket()
    words = "pixel-secret-key is not the secret of PIXELKEY"
    body = ERROR.format("SignatureDoesNotMatch", words).encode()
    bucket.failures = [("", FakeResponse(403, body=body))]

    async def use(_: FakeDestination, sender: S3Sender) -> Outcome:
        sender.redactor = Redactor(Config(destinations=(destination(1),)))
        return await sender.deliver(batch_for(TWO[:1]))

    outcome = sending(use, bucket=bucket)
    assert "status 403, SignatureDoesNotMatch: Words & … is not the secret of PIXELKEY" == (
        outcome.reason
    )
    assert b"pixel-secret-key" not in outcome.response


def test_the_bucket_can_be_in_the_host_name(monkeypatch: pytest.MonkeyPatch) -> None:
    async def use(store: FakeDestination, _: S3Sender) -> Request:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{store.port}")
        sender = S3Sender(
            destination(1, endpoint="http://s3.example.com", addressing="virtual", bucket="b")
        )
        await sender.open({})
        await sender.send(batch_for(TWO[:1]))
        await sender.close()
        return store.requests[0]

    put = sending(use)
    assert put.value("Host") == "b.s3.example.com"
    assert put.path.startswith("http://b.s3.example.com/source"), "it is sent to the proxy"


def test_certificates_are_verified(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)

    async def outcome(port: int, **more: str) -> Outcome:
        settings = destination(1, endpoint=f"https://127.0.0.1:{port}", allow_http=False, **more)
        sender = S3Sender(settings)
        await sender.open({})
        try:
            return await sender.send(batch_for(TWO[:1]))
        finally:
            await sender.close()

    with tls_server(certificates.server()) as server:
        unknown = run(outcome(server.port))
        assert Held("the server's certificate is not accepted: UnknownIssuer") == unknown
        known = run(outcome(server.port, tls_ca=certificates.ca))
        assert isinstance(known, Retry)
        assert "it has no ETag" in known.reason


def test_a_certificate_file_that_cannot_be_used_fails_the_start(tmp_path: Path) -> None:
    for contents, reason in ((None, "No such file"), ("nonsense", "")):
        path = tmp_path / "ca.pem"
        if contents is not None:
            path.write_text(contents)
        sender = S3Sender(destination(1, endpoint="https://127.0.0.1:1", tls_ca=str(path)))
        with pytest.raises(DestinationError, match=f"tls_ca .*ca.pem: {reason}"):
            run(sender.open({}))


@pytest.mark.parametrize(
    ("missing", "more", "extra"),
    [
        ("obstore", {}, "s3"),
        ("arro3.core", {"format": "parquet"}, "parquet"),
        ("arro3.io", {"format": "parquet"}, "parquet"),
        ("zstandard", {"compression": "zstd"}, "zstd"),
    ],
)
def test_an_extra_that_is_not_installed_is_named(
    missing: str, more: dict[str, str], extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, "pixelfast.deliver.objects.parquet", raising=False)
    with pytest.raises(DestinationError, match=rf"pip install 'pixelfast\[{extra}\]'"):
        S3Sender(destination(1, **more))


# --- batches are not divided ---------------------------------------------------------------------


def test_a_batch_that_fails_while_others_are_accepted_is_not_divided(
    data: DataDir, feed: Feed
) -> None:
    """Its parts would be objects of their own, beside those of an attempt that was not lost."""
    fill(feed, 0, 20)
    failing = 12

    def judge(batch: Any) -> Outcome:
        nonlocal failing
        is_bad = any(json.loads(line)["n"] == 7 for line in batch.lines())
        if is_bad and failing:
            failing -= 1
            return Retry("status 500", status=500)
        return Accepted()

    sender = FakeSender(judge=judge, concurrency=4)
    sender.blames_events = S3Sender.blames_events
    sender.may_send_ahead = S3Sender.may_send_ahead

    async def main() -> None:
        runner = make_runner(data, sender)
        async with running(runner):
            await sender.has(15)
            for start in range(20, 400, 20):  # others are accepted all the time
                fill(feed, start, start + 20)
                await asyncio.sleep(0)
            await until(lambda: len(sender.accepted) == 400)

    run(main())
    assert 0 == failing
    batches = {tuple(json.loads(line)["n"] for line in each) for each in sender.sent}
    assert list(range(400)) == sorted(n for each in batches for n in each)
    assert len(sender.sent) == len(batches) + 12


# --- uploads that are incomplete -----------------------------------------------------------------

KEYS = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
UPLOADS = """<?xml version="1.0"?><ListMultipartUploadsResult>
<Upload><Key>a/b</Key><UploadId>one&amp;1</UploadId></Upload>
<Upload><UploadId>two</UploadId><Key>a/b</Key><Initiated>2026</Initiated></Upload>
<Upload><UploadId>other</UploadId><Key>a/b.gz</Key></Upload>
</ListMultipartUploadsResult>"""


@pytest.mark.parametrize(
    ("query", "signature"),
    [
        (
            {"max-keys": "2", "prefix": "J"},
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
        (
            {"lifecycle": ""},
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
    ],
)
def test_requests_are_signed_as_in_the_examples_of_amazon(
    query: dict[str, str], signature: str
) -> None:
    url = "https://examplebucket.s3.amazonaws.com"
    bucket = Bucket(url, "us-east-1", KEYS)
    now = datetime(2013, 5, 24, tzinfo=UTC)
    headers = signed_headers(bucket, "GET", f"{url}/", query, now)
    assert signature == headers["Authorization"].rpartition("Signature=")[2]


def test_only_uploads_of_the_same_object_are_aborted() -> None:
    async def main() -> tuple[int, list[tuple[str, str]]]:
        async with FakeDestination([FakeResponse(200, body=UPLOADS.encode())]) as store:
            bucket = Bucket(f"http://127.0.0.1:{store.port}/events", "eu-west-1", KEYS)
            found = await abort_uploads(bucket, "a/b", 5.0)
            return found, [(each.method, each.path) for each in store.requests]

    expected = [
        ("GET", "/events/?prefix=a%2Fb&uploads="),
        ("DELETE", "/events/a/b?uploadId=one%261"),
        ("DELETE", "/events/a/b?uploadId=two"),
    ]
    assert (2, expected) == run(main())


def test_an_object_is_accepted_even_if_old_uploads_cannot_be_aborted() -> None:
    bucket = FakeBucket()
    events = [("web", received(n, noise="x" * 2**20)) for n in range(6)]

    async def use(_: FakeDestination, sender: S3Sender) -> list[Outcome]:
        return [await sender.send(batch_for(events)) for _ in range(2)]

    with structlog.testing.capture_logs() as logs:
        outcomes = sending(use, bucket=bucket, multipart_bytes=5 * 2**20, concurrency=1)
    assert [Accepted(), Accepted()] == outcomes
    (contents,) = bucket.objects.values()
    assert b"".join(event + b"\n" for _, event in events) == contents
    (name,) = bucket.objects
    expected = {"event": "uploads_not_aborted", "log_level": "warning", "object": name}
    assert [expected | {"reason": "status 403"}] == logs, "at most one a minute"


def test_a_store_that_does_not_list_uploads_is_an_error() -> None:
    async def main() -> None:
        async with FakeDestination([FakeResponse(403)]) as store:
            bucket = Bucket(f"http://127.0.0.1:{store.port}/events", "eu-west-1", KEYS)
            await abort_uploads(bucket, "a/b", 5.0)

    with pytest.raises(UploadsNotAborted, match="status 403"):
        run(main())
