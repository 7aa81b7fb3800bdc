"""The settings of destinations in object stores."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Annotated, Literal
from urllib.parse import urlsplit

from msgspec import Meta

from pixelfast.config.delivery import MaxAge, MaxBytes, Remote, Timeout
from pixelfast.config.fields import Secret
from pixelfast.config.packages import missing_package
from pixelfast.config.tables import Table
from pixelfast.config.words import shown
from pixelfast.errors import ConfigError

__all__ = ["S3Destination", "s3_clashes", "s3_packages"]

# More than Amazon S3 allows, because other stores have other rules.
_Bucket = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{1,254}\Z",
        extra={
            "allowed": "2 to 255 letters, digits, . _ or -, beginning with a letter or digit",
        },
    ),
]
# The safe characters of Amazon S3's "Naming Amazon S3 objects", and `=`, in path segments that no
# client resolves as relative ones.
_Prefix = Annotated[
    str,
    Meta(
        pattern=r"^(|(?!\.{1,2}(/|\Z))[A-Za-z0-9!_.*'()=-]+"
        r"(/(?!\.{1,2}(/|\Z))[A-Za-z0-9!_.*'()=-]+)*)\Z",
        max_length=512,
        extra={"allowed": "at most 512 letters, digits or !_.*'()=- between slashes"},
    ),
]
_Region = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9_-]{0,64}\Z",
        extra={"allowed": "at most 64 letters, digits, _ or -"},
    ),
]
_StorageClass = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9_-]{0,64}\Z",
        extra={"allowed": "at most 64 letters, digits, _ or -"},
    ),
]


class S3Destination(Remote, frozen=True, kw_only=True, tag_field="type", tag="s3"):
    """Objects in a bucket of Amazon S3 or of another store with its API."""

    bucket: Annotated[_Bucket, Meta(description="bucket that receives the objects")]
    prefix: Annotated[
        _Prefix, Meta(description='beginning of the names of all objects; `""`: none')
    ] = ""
    endpoint: Annotated[
        str,
        Meta(
            description='URL of the store, without the bucket; `""`: Amazon S3 in `region`',
            extra={"kind": "base url?"},
        ),
    ] = ""
    region: Annotated[
        _Region,
        Meta(
            description='region of the bucket; `""`: the environment variable `AWS_REGION` or '
            "`AWS_DEFAULT_REGION`, otherwise `us-east-1`"
        ),
    ] = ""
    addressing: Annotated[
        Literal["path", "virtual"],
        Meta(
            description="place of the bucket in URLs: in the path (`path`), or in the host name "
            "(`virtual`)"
        ),
    ] = "path"
    allow_http: Annotated[
        bool,
        Meta(description="allow an `endpoint` without TLS, to which events are sent unencrypted"),
    ] = False
    access_key_id: Annotated[
        str,
        Meta(
            description='access key id; `""`: credentials from the environment variables '
            "`AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, a web identity, the container or the "
            "instance",
            extra={"kind": "token?"},
        ),
    ] = ""
    secret_access_key: Annotated[
        Secret | None, Meta(description="secret access key of `access_key_id`")
    ] = None
    session_token: Annotated[
        Secret | None, Meta(description="session token, if `access_key_id` is temporary")
    ] = None
    format: Annotated[
        Literal["ndjson", "parquet"],
        Meta(
            description="contents of the objects: one event per line, or Parquet; `parquet` "
            "requires the extra `pixelfast[parquet]`"
        ),
    ] = "ndjson"
    compression: Annotated[
        Literal["none", "gzip", "zstd"],
        Meta(
            description="compression of the objects; for `ndjson`, `zstd` requires the extra "
            "`pixelfast[zstd]`"
        ),
    ] = "gzip"
    storage_class: Annotated[
        _StorageClass,
        Meta(
            description='storage class of the objects, such as `STANDARD_IA`; `""`: the default of '
            "the bucket"
        ),
    ] = ""
    encryption: Annotated[
        Literal["", "AES256", "aws:kms", "aws:kms:dsse"],
        Meta(description='server-side encryption of the objects; `""`: the default of the bucket'),
    ] = ""
    kms_key_id: Annotated[
        str,
        Meta(
            description='key of AWS KMS for `encryption`; `""`: the default key of the account',
            extra={"kind": "token?"},
        ),
    ] = ""
    checksum: Annotated[
        Literal["sha256", "crc64nvme", "none"],
        Meta(
            description="checksum that the store verifies and keeps with an object; `none` for "
            "stores that do not support any"
        ),
    ] = "sha256"
    verify_size: Annotated[
        bool,
        Meta(
            description="request the size of each object after it is stored; requires the "
            "permission `s3:GetObject`"
        ),
    ] = True
    multipart_bytes: Annotated[
        int,
        Meta(
            ge=5 * 2**20,
            le=4 * 2**30,
            description="size above which an object is uploaded in parts",
            extra={"unit": "B"},
        ),
    ] = 100 * 2**20
    max_events: Annotated[
        int, Meta(ge=1, le=10_000_000, description="maximum number of events in a batch")
    ] = 1_000_000
    max_bytes: MaxBytes = 64 * 2**20
    max_age_s: MaxAge = 300.0
    timeout_s: Timeout = 120.0
    concurrency: Annotated[
        int,
        Meta(ge=1, le=64, description="maximum number of concurrent batches, and of objects"),
    ] = 4
    tls_ca: Annotated[
        str,
        Meta(
            description="PEM file with certificate authorities that are trusted in addition to "
            'those of the system; `""`: none',
            extra={"kind": "path"},
        ),
    ] = ""


def s3_clashes(store: Table) -> Iterator[ConfigError]:
    """Yield the conflicts between the settings of a destination."""
    endpoint = store.get("endpoint") or ""
    is_plain = endpoint.startswith("http:")
    if is_plain and store.get("allow_http") is False:
        what = "requires allow_http = true, because events would be sent unencrypted"
        yield ConfigError(f"{store.path}.endpoint", shown(endpoint), what)
    if is_plain and store.get("tls_ca"):
        what = "requires an endpoint that begins with https:"
        yield ConfigError(f"{store.path}.tls_ca", None, what)
    if store.get("addressing") == "virtual" and _is_ip_address(urlsplit(endpoint).hostname):
        what = "requires an endpoint with a host name, to which the bucket is added"
        yield ConfigError(f"{store.path}.addressing", shown("virtual"), what)
    for name in ("tls_cert", "tls_key"):
        if store.get(name):
            yield ConfigError(f"{store.path}.{name}", None, 'type = "s3" does not support it')
    for name, other in (
        ("access_key_id", "secret_access_key"),
        ("secret_access_key", "access_key_id"),
        ("session_token", "access_key_id"),
    ):
        if store.get(name) and not store.values.get(other):
            yield ConfigError(f"{store.path}.{name}", None, f"requires {other}")
    if store.get("kms_key_id") and store.get("encryption") in {"", "AES256"}:
        what = 'requires encryption = "aws:kms" or "aws:kms:dsse"'
        yield ConfigError(f"{store.path}.kms_key_id", None, what)


def s3_packages(store: Table) -> Iterator[ConfigError]:
    """Yield the settings that require packages that are not installed."""
    needed = [("type", "s3", missing_package("s3", "obstore"))]
    if store.get("format") == "parquet":
        missing = missing_package("parquet", "arro3.core", "arro3.io")
        needed.append(("format", "parquet", missing))
    elif store.get("compression") == "zstd":
        needed.append(("compression", "zstd", missing_package("zstd", "zstandard")))
    for name, value, missing in needed:
        if missing:
            yield ConfigError(f"{store.path}.{name}", shown(value), missing)


def _is_ip_address(host: str | None) -> bool:
    try:
        ipaddress.ip_address(host or "")
    except ValueError:
        return False
    return True
