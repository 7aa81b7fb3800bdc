"""Run a real nginx with the files of deploy/nginx, installed in a folder instead of /etc/nginx.

Only addresses, ports, paths and the user are replaced, which a test machine cannot provide.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trustme

from tests.waiting import wait_until

__all__ = ["DEPLOY", "NGINX", "SITES", "UPSTREAMS", "Nginx", "free_port", "running_nginx"]

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
DEPLOY = Path(__file__).parents[1] / "deploy" / "nginx"
SITES = ("pixelfast.conf", "pixelfast-tls.conf", "rudderstack.conf")
UPSTREAMS = {  # {file: number of its servers}
    "one-tcp.conf": 1,
    "one-unix.conf": 1,
    "two-tcp.conf": 2,
    "two-unix.conf": 2,
    "backup.conf": 2,
}
_OPTIONAL = ("limits.conf", "cdn.conf")
_TEMPORARY = "".join(
    f"    {name}_temp_path {{folder}}/{name};\n"
    for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Nginx:
    """One installation.

    `servers` are the addresses of pixelfast in nginx's notation, `options` the optional files to
    enable, and `changes` pairs of strings to replace in all files.
    """

    folder: Path
    servers: Sequence[str]
    site: str = "pixelfast.conf"
    upstream: str = "one-tcp.conf"
    options: Sequence[str] = ()
    rudderstack: str = "127.0.0.1:1"
    changes: Sequence[tuple[str, str]] = ()
    port: int = field(default_factory=free_port)
    tls_port: int = field(default_factory=free_port)

    def install(self) -> None:
        """Write the files."""
        self.folder.mkdir(parents=True, exist_ok=True)
        shutil.copytree(DEPLOY / "pixelfast", self.folder / "pixelfast")
        (self.folder / "conf.d").mkdir()
        (self.folder / "modules-enabled").mkdir()
        self._write_certificate()
        main = (DEPLOY / "nginx.conf").read_text()
        user = "user root;" if os.geteuid() == 0 else ""
        main = _replaced(main, "user www-data;", user)
        main = _replaced(main, "/run/nginx.pid", f"{self.folder}/nginx.pid")
        main = _replaced(main, "/var/log/nginx", str(self.folder))
        main = _replaced(main, "/etc/nginx/mime.types", "/dev/null")
        main = main.replace("/etc/nginx", str(self.folder))
        main = _replaced(main, "worker_processes auto", "worker_processes 2")
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard != resource.RLIM_INFINITY:  # root may not raise it in a container
            main = _replaced(main, "nofile 65536;", f"nofile {min(hard, 65536)};")
            main = _replaced(main, "connections 32768;", f"connections {min(hard, 65536) // 2};")
        main = _replaced(main, "http {\n", "http {\n" + _TEMPORARY.format(folder=self.folder))
        (self.folder / "nginx.conf").write_text(main)
        (self.folder / "conf.d" / self.site).write_text(self._site())
        upstream = self.folder / "pixelfast" / self.upstream
        servers = iter(self.servers)
        configured = re.sub(
            r"(?m)^( +server )[^ ;]+", lambda found: found[1] + next(servers), upstream.read_text()
        )
        assert list(servers) == [], f"{self.upstream} has fewer servers"
        upstream.write_text(configured)
        server = self.folder / "pixelfast" / "server.conf"
        server.write_text(server.read_text().replace("/var/log/nginx", str(self.folder)))
        for old, new in self.changes:
            self._change(old, new)

    def check(self) -> str:
        """Run `nginx -t` and return its output."""
        done = subprocess.run(self._command("-t"), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stderr

    def start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(self._command(), stderr=subprocess.DEVNULL)

        def listens() -> bool:
            assert process.poll() is None, (self.folder / "error.log").read_text()
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        wait_until(listens, "nginx listens")
        return process

    def _command(self, *more: str) -> list[str]:
        """Return the command, which also logs to the folder before the settings are read."""
        assert NGINX is not None
        paths = ["-p", str(self.folder), "-c", str(self.folder / "nginx.conf")]
        log = ["-e", str(self.folder / "error.log")]
        return [NGINX, *paths, *log, "-g", "daemon off;", *more]

    def _site(self) -> str:
        site = (DEPLOY / self.site).read_text()
        site = re.sub(r"(?m)^ +listen \[::\].*\n", "", site)
        site = _replaced(site, "listen 80;", f"listen 127.0.0.1:{self.port};")
        site = site.replace("listen 443 ", f"listen 127.0.0.1:{self.tls_port} ")
        site = re.sub(r"/etc/ssl/[^/;]+/", f"{self.folder}/", site)
        site = site.replace("server 127.0.0.1:8080;", f"server {self.rudderstack};")
        for name in UPSTREAMS:
            hash_mark = "" if name == self.upstream else "#"
            site, count = re.subn(
                rf"(?m)^#?include pixelfast/{name};", f"{hash_mark}include pixelfast/{name};", site
            )
            assert count == 1, f"{self.site} does not offer {name}"
        for name in self.options:
            site = _replaced(site, f"#include pixelfast/{name};", f"include pixelfast/{name};")
        return site

    def _change(self, old: str, new: str) -> None:
        count = 0
        for path in self.folder.rglob("*.conf"):
            text = path.read_text()
            count += text.count(old)
            path.write_text(text.replace(old, new))
        assert count, f"not found in any file: {old}"

    def _write_certificate(self) -> None:
        authority = trustme.CA()
        issued = authority.issue_cert("pixel.example.com", "data.example.com")
        authority.cert_pem.write_to_path(self.folder / "ca.pem")
        issued.private_key_pem.write_to_path(self.folder / "privkey.pem")
        for blob in issued.cert_chain_pems:
            blob.write_to_path(self.folder / "fullchain.pem", append=True)


@contextmanager
def running_nginx(nginx: Nginx) -> Iterator[Nginx]:
    """Install nginx and run it until the `with` block ends."""
    nginx.install()
    process = nginx.start()
    try:
        yield nginx
    finally:
        process.terminate()
        process.wait(20)


def _replaced(text: str, old: str, new: str) -> str:
    assert old in text, old
    return text.replace(old, new)
