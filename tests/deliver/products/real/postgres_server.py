"""Debian's PostgreSQL on loopback, which tests kill and restart."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.deliver.products.real.processes import Absent, background
from tests.reliability.rig import is_gone
from tests.waiting import wait_until

__all__ = ["HOST", "PASSWORD", "USER", "PostgresServer", "postgres_server"]

USER, PASSWORD = "pixelfast", "pw-5f0c1e7a9d"
HOST = "localhost"  # the certificate is for this name, not for the address
_START_S = 30.0
_READY = re.compile(
    r'address "127\.0\.0\.1", port (\d+)\n(?:.*\n)*.*ready to accept connections', re.MULTILINE
)
# The server ends with its standard input, and thus with the process that started it.
_WRAPPER = '"$@" & cat; kill -INT $! 2>/dev/null; wait'
_ACCESS = """\
local all all trust
host all all 127.0.0.1/32 scram-sha-256
host all all ::1/128 scram-sha-256
"""
_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "off",  # a killed process leaves its writes to the kernel
    "shared_buffers": "32MB",
    "max_connections": "30",
    "superuser_reserved_connections": "3",
    "deadlock_timeout": "100ms",
    "ssl": "on",
    "logging_collector": "off",
    "lc_messages": "C",
}


class PostgresServer:
    """A server with its data in `folder`, which belongs to a user other than root."""

    def __init__(self, folder: Path, programs: Path, options: Mapping[str, str]) -> None:
        self.folder = folder
        self._options = {**_OPTIONS, **options}
        self.data = folder / "data"
        self.ca = str(folder / "ca.pem")
        self._programs = programs
        self._running = ExitStack()
        self._as_user: list[str] = []
        if os.geteuid() == 0:  # PostgreSQL does not run as root
            owner = _other_user()
            os.chown(folder, owner.pw_uid, owner.pw_gid)
            ids = f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}"
            self._as_user = ["setpriv", *ids, "--clear-groups"]
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])

    def create(self) -> None:
        """Create the data directory, the certificate and the user of the destination."""
        programs, data = self._programs, str(self.data)
        options = ["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync"]
        self._run([str(programs / "initdb"), "-D", data, *options])
        (self.data / "pg_hba.conf").write_text(_ACCESS)
        if self._options["ssl"] == "on":
            self._create_certificate()
        self.start()
        self.sql(f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'")

    def _create_certificate(self) -> None:
        import trustme  # here because benchmarks use this module without it

        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.ca)
        shown = authority.issue_cert(HOST)
        for name, content in (
            ("server.crt", shown.cert_chain_pems[0].bytes()),
            ("server.key", shown.private_key_pem.bytes()),
        ):
            path = self.data / name
            path.write_bytes(content)
            path.chmod(0o600)
            shutil.chown(path, self.data.owner(), self.data.group())

    def start(self) -> None:
        """Start the server and wait until it accepts connections."""
        program = str(self._programs / "postgres")
        options = [f"-c{name}={value}" for name, value in self._options.items()]
        command = [program, "-D", str(self.data), "-p", str(self.port), "-k", str(self.folder)]
        wrapped = [*self._as_user, "sh", "-c", _WRAPPER, "sh", *command, *options]
        self._running.enter_context(background(wrapped, self.folder, _READY, _START_S))

    def kill(self) -> None:
        """Kill the postmaster with SIGKILL, and wait until the other processes have noticed."""
        pid = int((self.data / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        os.kill(pid, signal.SIGKILL)
        self.stop()
        wait_until(lambda: all(is_gone(int(each)) for each in children), "the end of all backends")

    def stop(self) -> None:
        self._running.close()

    def sql(self, statements: str, database: str = "postgres") -> list[str]:
        """Run statements as superuser; return the rows, with `|` between the columns."""
        command = ["psql", "-h", str(self.folder), "-p", str(self.port), "-U", "postgres"]
        command += ["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", database]
        rows = self._run([str(self._programs / command[0]), *command[1:]], statements)
        return rows.split("\n")[:-1]

    def _run(self, command: list[str], text: str = "") -> str:
        done = subprocess.run(
            [*self._as_user, *command],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
        )
        assert 0 == done.returncode, done.stderr
        return done.stdout


def _other_user() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise Absent("PostgreSQL does not run as root, and there is no user postgres or nobody")


@contextmanager
def postgres_server(**options: str) -> Iterator[PostgresServer]:
    """Start a server with these settings; stop it and delete its data in the end.

    Raises:
        Absent: it cannot be started here.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=_version)
    if not found:
        raise Absent("PostgreSQL is not installed: apt-get install postgresql")
    # Not below pytest's folder, which only its owner can enter. Paths of sockets must be short.
    with tempfile.TemporaryDirectory(prefix="pixelfast-pg-") as folder:
        server = PostgresServer(Path(folder), found[-1].parent, options)
        try:
            server.create()
            yield server
        finally:
            server.stop()


def _version(program: Path) -> int:
    name = program.parents[1].name
    return int(name) if name.isdigit() else 0
