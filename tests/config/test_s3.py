"""The settings of `type = "s3"`: each fault is reported with its remedy."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from pixelfast.config import S3Destination
from pixelfast.config.reader import config_from_table
from pixelfast.errors import ConfigErrors


def read(**more: Any) -> S3Destination:
    table = {"name": "lake", "type": "s3", "bucket": "events", **more}
    (found,) = config_from_table({"destinations": [table]}).destinations
    assert isinstance(found, S3Destination)
    return found


def problems(**more: Any) -> list[str]:
    with pytest.raises(ConfigErrors) as caught:
        read(**more)
    return [str(each).removeprefix("destinations[lake].") for each in caught.value.problems]


def test_a_bucket_is_enough() -> None:
    found = read()
    assert ("ndjson", "gzip", "sha256") == (found.format, found.compression, found.checksum)
    assert (64 * 2**20, 1_000_000, 300.0) == (found.max_bytes, found.max_events, found.max_age_s)


@pytest.mark.parametrize("prefix", ["a", "sites/px=1", "a.b/.c/...", "a-_!*'()="])
def test_a_prefix_consists_of_safe_segments(prefix: str) -> None:
    assert prefix == read(prefix=prefix).prefix


@pytest.mark.parametrize(
    "prefix", ["/a", "a/", "a//b", ".", "a/../b", "..", "a b", "é", "a%20", "a\n", "a" * 600]
)
def test_other_prefixes_are_errors(prefix: str) -> None:
    (problem,) = problems(prefix=prefix)
    assert problem.endswith("expected at most 512 letters, digits or !_.*'()=- between slashes")


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "a bucket with a slash": (
        {"bucket": "a/b"},
        'bucket = "a/b": expected 2 to 255 letters, digits, . _ or -, beginning with a letter or'
        " digit",
    ),
    "an endpoint with a query": (
        {"endpoint": "https://example.com/?a=1"},
        'endpoint = "https://example.com/?…": expected an http or https URL without a query, such'
        ' as "https://example.com", or ""',
    ),
    "an endpoint without TLS": (
        {"endpoint": "http://127.0.0.1:9000"},
        'endpoint = "http://127.0.0.1:9000": requires allow_http = true, because events would be'
        " sent unencrypted",
    ),
    "authorities without TLS": (
        {"endpoint": "http://127.0.0.1:9000", "allow_http": True, "tls_ca": "ca.pem"},
        "tls_ca: requires an endpoint that begins with https:",
    ),
    "an address to which no bucket can be added": (
        {"endpoint": "https://192.0.2.1", "addressing": "virtual"},
        'addressing = "virtual": requires an endpoint with a host name, to which the bucket is'
        " added",
    ),
    "a client certificate": (
        {"tls_cert": "cert.pem"},
        'tls_cert: type = "s3" does not support it',
    ),
    "an id without its secret": (
        {"access_key_id": "PIXELKEY"},
        "access_key_id: requires secret_access_key",
    ),
    "a secret without its id": (
        {"secret_access_key": "pixel-secret-key"},
        "secret_access_key: requires access_key_id",
    ),
    "a token without an id": (
        {"session_token": "token"},
        "session_token: requires access_key_id",
    ),
    "a KMS key without KMS": (
        {"kms_key_id": "key-1", "encryption": "AES256"},
        'kms_key_id: requires encryption = "aws:kms" or "aws:kms:dsse"',
    ),
    "a form that is unknown": (
        {"format": "csv"},
        'format = "csv": expected one of "ndjson", "parquet"',
    ),
    "parts that are too small": (
        {"multipart_bytes": "1MiB"},
        'multipart_bytes = "1MiB": expected a number of bytes or a string such as "64MiB" (units'
        " B kB MB GB TB KiB MiB GiB TiB) from 5MiB to 4GiB",
    ),
}


@pytest.mark.parametrize(("more", "problem"), FAULTS.values(), ids=list(FAULTS))
def test_each_fault_is_reported(more: dict[str, Any], problem: str) -> None:
    assert [problem] == problems(**more)


@pytest.mark.parametrize(
    ("more", "missing", "problem"),
    [
        ({}, "obstore", "type = \"s3\": requires the package obstore: pip install 'pixelfast[s3]'"),
        (
            {"format": "parquet"},
            "arro3.core",
            'format = "parquet": requires the package arro3-core: pip install'
            " 'pixelfast[parquet]'",
        ),
        (
            {"compression": "zstd"},
            "zstandard",
            "compression = \"zstd\": requires the package zstandard: pip install 'pixelfast[zstd]'",
        ),
    ],
)
def test_a_package_that_is_missing_is_named(
    more: dict[str, Any], missing: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == missing else found(name)
    )
    assert [problem] == problems(**more)


def test_parquet_needs_no_other_package_for_zstd(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "zstandard" else found(name)
    )
    assert "zstd" == read(format="parquet", compression="zstd").compression
