"""Objects in Amazon S3, or in another store with its API: one for each source and hour of a batch.

The name of an object follows from the id of its batch, which is on the disk before the batch is
first sent. Each attempt, also after a crash, overwrites the objects of the previous one with the
same events. A batch is accepted when all its objects are stored. A batch that fails is retried as a
whole and never divided, because its parts would have other ids and thus other objects.

obstore sends the requests, in threads without the GIL.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp
import structlog

from pixelfast import __version__
from pixelfast.config import S3Destination
from pixelfast.config.packages import missing_package
from pixelfast.deliver.batches import Batch, BatchLimits
from pixelfast.deliver.dead_keeper import LogThrottle
from pixelfast.deliver.objects.encodings import encoding_of
from pixelfast.deliver.objects.failures import most_serious, outcome_of_error
from pixelfast.deliver.objects.partitions import Piece, partitions
from pixelfast.deliver.objects.uploads import (
    Bucket,
    Credentials,
    UploadsNotAborted,
    abort_uploads,
    amazon_url,
)
from pixelfast.deliver.outcomes import Accepted, Held, Outcome, Retry
from pixelfast.deliver.sender import RemoteSender
from pixelfast.deliver.timing import DeliveryClock, Timings
from pixelfast.errors import DestinationError
from pixelfast.tls import Tls, TlsFileError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config, S3Store

__all__ = ["S3Sender"]

_log = structlog.get_logger("deliver")
_PART_BYTES = 16 * 2**20  # a batch has at most 2 GiB, and a store accepts 10,000 parts
_PARTS_AT_ONCE = 2  # of one object
_PANIC_MODULE = "pyo3_runtime"  # of the exception that the library raises for its own bugs


class S3Sender(RemoteSender):
    """Store batches as objects; several objects and batches may be under way."""

    may_send_ahead = False  # copies of events would become objects of their own
    blames_events = False  # parts of a batch would become objects of their own, too

    def __init__(
        self,
        settings: S3Destination,
        clock: DeliveryClock = DeliveryClock(),  # noqa: B008 - only an engine's notices jumps
        timings: Timings = Timings(),  # noqa: B008 - frozen
    ) -> None:
        """Prepare for a bucket.

        Raises:
            DestinationError: a package that the settings require is not installed.
        """
        if missing := missing_package("s3", "obstore"):
            raise DestinationError(f'type = "s3" {missing}')
        import obstore

        self._library = obstore
        self._settings = settings
        self._encoding = encoding_of(settings.format, settings.compression)
        self.limits = BatchLimits(settings.max_events, settings.max_bytes, settings.max_age_s)
        self.concurrency = settings.concurrency
        self.retry_first_s, self.retry_most_s = settings.retry_first_s, settings.retry_most_s
        self._places = asyncio.Semaphore(settings.concurrency)
        self._store: S3Store | None = None
        self._context: ssl.SSLContext | None = None
        self._objects = self._object_bytes = 0
        self._not_aborted = LogThrottle(timings, clock)

    async def open(self, memory: dict[str, object]) -> None:  # noqa: ARG002 - nothing to remember
        self._store = await self.in_thread(self._make_store)

    async def close(self) -> None:
        self._store = None  # its connections close when the last request ends

    def figures(self) -> dict[str, float]:
        return {"stored_objects": self._objects, "stored_object_bytes": self._object_bytes}

    async def attempt(self, batch: Batch) -> Outcome:
        failures: list[Retry | Held] = []

        async def store(name: str, pieces: Sequence[Piece]) -> None:
            async with self._places:
                if failures:
                    return
                data = await self.in_thread(self._encoding.encode, pieces)
                failure = await self._put(name, data)
                if failure is not None:
                    failures.append(failure)

        found = await self.in_thread(partitions, batch)
        async with asyncio.TaskGroup() as group:
            for partition, pieces in found.items():
                name = partition.object_name(batch.id, self._encoding.suffix)
                group.create_task(store(self._with_prefix(name), pieces))
        return most_serious(failures) if failures else Accepted()

    def _with_prefix(self, name: str) -> str:
        prefix = self._settings.prefix
        return f"{prefix}/{name}" if prefix else name

    # --- one object --------------------------------------------------------------------------

    async def _put(self, name: str, data: bytes) -> Retry | Held | None:
        """Store an object; return the failure if there was one."""
        settings = self._settings
        assert self._store is not None, "open() comes first"
        attributes = {"Content-Type": self._encoding.content_type}
        if settings.storage_class:
            attributes["Storage-Class"] = settings.storage_class
        is_large = len(data) > settings.multipart_bytes
        try:
            await self._library.put_async(
                self._store,
                name,
                data,
                attributes=attributes,
                use_multipart=is_large,
                chunk_size=_PART_BYTES,
                max_concurrency=_PARTS_AT_ONCE,
            )
            if settings.verify_size:
                size = (await self._library.head_async(self._store, name))["size"]
                if size != len(data):
                    return Retry(f"the store has {size} of {len(data)} bytes of an object")
        except BaseException as error:  # a panic is not an Exception
            is_from_library = isinstance(error, Exception) or (
                type(error).__module__ == _PANIC_MODULE
            )
            if not is_from_library:
                raise
            return outcome_of_error(error, name, settings.timeout_s)
        self._objects += 1
        self._object_bytes += len(data)
        if is_large:
            await self._abort_uploads(name)
        return None

    async def _abort_uploads(self, name: str) -> None:
        """Abort uploads of the same object that an earlier attempt left incomplete."""
        bucket = self._bucket()
        if bucket is None:
            return
        try:
            uploads = await abort_uploads(bucket, name, self._settings.timeout_s, self._context)
        except (UploadsNotAborted, OSError, aiohttp.ClientError) as error:
            if self._not_aborted.add(1):
                reason = str(error) or type(error).__name__
                _log.warning("uploads_not_aborted", object=name, reason=reason)
        else:
            if uploads:
                _log.info("uploads_aborted", object=name, uploads=uploads)

    # --- the store ---------------------------------------------------------------------------

    @property
    def _region(self) -> str:
        names = ("AWS_REGION", "AWS_DEFAULT_REGION")
        given = (os.environ.get(name) for name in names)
        return self._settings.region or next(filter(None, given), "us-east-1")

    @property
    def _endpoint(self) -> str:
        """The URL of the store; with `addressing = "virtual"`, that of the bucket."""
        settings = self._settings
        url = (settings.endpoint or amazon_url(self._region)).rstrip("/")
        if settings.addressing == "path":
            return url
        parts = urlsplit(url)
        return parts._replace(netloc=f"{settings.bucket}.{parts.netloc}").geturl()

    def _credentials(self) -> Credentials | None:
        """Return static credentials, or None if the library must request temporary ones."""
        settings = self._settings
        if not settings.access_key_id:
            return Credentials.of_environment()
        return Credentials(
            settings.access_key_id, settings.secret_access_key or "", settings.session_token or ""
        )

    def _bucket(self) -> Bucket | None:
        credentials = self._credentials()
        if credentials is None:
            return None
        url = self._endpoint
        if self._settings.addressing == "path":
            url += f"/{self._settings.bucket}"
        return Bucket(url, self._region, credentials)

    def _make_store(self) -> S3Store:
        """Return the client of the bucket. Blocks for the disk.

        Raises:
            DestinationError: `tls_ca` cannot be used.
        """
        from obstore.store import S3Store

        settings = self._settings
        client: ClientConfig = {
            "allow_http": settings.allow_http,
            "timeout": timedelta(seconds=settings.timeout_s),
            "connect_timeout": timedelta(seconds=settings.connect_timeout_s),
            "user_agent": f"pixelfast/{__version__}",
        }
        if settings.tls_ca:
            client["root_certificate"] = self._read_ca(settings.tls_ca)
        # Given in full, because environment variables set what is missing.
        config: S3Config = {
            "aws_endpoint_url_s3": self._endpoint,
            "region": self._region,
            "virtual_hosted_style_request": settings.addressing == "virtual",
            "skip_signature": False,
            "unsigned_payload": False,
        }
        if settings.checksum != "none":
            config["checksum_algorithm"] = settings.checksum.upper()
        if settings.encryption:
            config["server_side_encryption"] = settings.encryption
        if settings.kms_key_id:
            config["sse_kms_key_id"] = settings.kms_key_id
        options: dict[str, Any] = {}
        if settings.access_key_id:
            options["credential_provider"] = self._provide
        try:
            return S3Store(
                settings.bucket,
                config=config,
                client_options=client,
                retry_config={"max_retries": 0},  # retries are those of the engine
                **options,
            )
        except Exception as error:  # noqa: BLE001 - the library's errors have no common class
            reason = str(error).partition("\n\nDebug source:")[0]
            raise DestinationError(f"the client cannot be created: {reason}") from None

    def _provide(self) -> dict[str, Any]:
        """Return the credentials of the settings, without those of the environment."""
        settings = self._settings
        return {
            "access_key_id": settings.access_key_id,
            "secret_access_key": settings.secret_access_key,
            "token": settings.session_token,
            "expires_at": None,
        }

    def _read_ca(self, path: str) -> bytes:
        self._context = ssl.create_default_context()
        try:
            Tls(path).read_into(self._context)
            return Path(path).read_bytes()
        except TlsFileError as error:
            raise DestinationError(str(error)) from None
