"""A page with an <img> from `pixelfast url`, opened in a real browser."""

from __future__ import annotations

import functools
import http.server
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.program import run_pixelfast
from tests.servers import serving

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --disable-dev-shm-usage"
).split()

pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs chromium")


@contextmanager
def site(folder: Path) -> Iterator[int]:
    """A web site on a free port, of another origin than the pixel."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def end_headers(self) -> None:
            # The strictest page: images of other origins need Cross-Origin-Resource-Policy.
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
            super().end_headers()

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def open_page(url: str, profile: Path) -> str:
    """The page's DOM after it has loaded."""
    command = [str(BROWSER), *FLAGS, f"--user-data-dir={profile}", "--dump-dom", url]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return result.stdout


def test_an_img_of_a_page_becomes_an_event(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    with serving(tmp_path / "data") as server, site(tmp_path / "site") as port:
        done = run_pixelfast(
            *("url", "track", "--img", "--event", "Email Opened", "--anonymous-id", "me & you"),
            *("-p", "campaign=may", "-p", "revenue=29.99", "--data-dir", str(tmp_path / "data")),
            *("--base", f"http://127.0.0.1:{server.port}"),
        )
        assert 0 == done.returncode, done.stderr
        tag = done.stdout
        bad = f'<img src="http://127.0.0.1:{server.port}/pixel/v1/track?writeKey=wrong">'
        script = (
            "<script>onload = () => document.title = "
            "[...document.images].map(i => i.naturalWidth).join()</script>"
        )
        page = f"<!doctype html><title>no</title>{script}{tag}{bad}"
        (tmp_path / "site" / "index.html").write_text(page)
        dom = open_page(f"http://127.0.0.1:{port}/", tmp_path / "profile")
        # Both images are drawn, also that of the rejected pixel: browsers ignore its status.
        assert "<title>1,1</title>" in dom
        (event,) = server.wait_for_events(1)
    assert event["event"] == "Email Opened"
    assert event["anonymousId"] == "me & you"
    assert event["properties"] == {"campaign": "may", "revenue": 29.99}
    assert "Chrome" in event["context"]["userAgent"]
