"""The log contains no secret of the settings and no control characters."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys

import pytest

PROGRAM = r"""
import asyncio, logging, sys
import structlog
from pixelfast.config import Log, Redactor
from pixelfast.config.reader import config_from_table
from pixelfast.operate.logging import set_up_logging

hook = {"name": "h", "type": "http", "url": "http://h/", "bearer_token": "bear3r-token"}
redactor = Redactor(config_from_table({"destinations": [hook]}))
set_up_logging(Log(format=sys.argv[1]), "delivery", redactor)
log = structlog.get_logger("x")
bad = "a\x1b[31m\x9b2J\u202e bear3r-token"
log.error("told", plain="good", spaced="two words", bad=bad, short="\x1b[2J", items=[bad, 1],
    table={bad: bad}, code=7, nothing=None, error=ValueError(bad))
try:
    raise ValueError(bad)
except ValueError:
    log.exception("failed")
    logging.getLogger("asyncio").exception("of a library: %s", bad)
for _ in range(3):
    log.error("again", error="disk full")
    try:
        open("/none/" + bad)
    except OSError:
        log.exception("not_opened")
async def lost():
    raise ValueError(bad)
async def main():
    task = asyncio.ensure_future(lost())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del task
asyncio.run(main())
raise RuntimeError(bad)
"""


def logged(log_format: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, log_format],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (1, b"") == (result.returncode, result.stdout)
    return result.stderr.decode()


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_neither_secrets_nor_control_characters_are_logged(log_format: str) -> None:
    text = logged(log_format)
    assert "bear3r-token" not in text
    assert [] == [char for char in text if char != "\n" and not char.isprintable()]
    assert 4 == text.count("Traceback")  # two caught, one of a lost task, one uncaught
    assert "process_failed" in text


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_an_error_that_an_operator_can_fix_is_one_line_and_not_repeated(log_format: str) -> None:
    lines = logged(log_format).splitlines()
    assert 1 == len([line for line in lines if "again" in line])
    (line,) = (line for line in lines if "not_opened" in line)
    assert "…: No such file or directory" in line
    assert "Traceback" not in line


def test_values_are_unchanged_in_json() -> None:
    first = json.loads(logged("json").splitlines()[0])
    bad = "a\x1b[31m\x9b2J\u202e …"
    assert (bad, [bad, 1], {bad: bad}) == (first["bad"], first["items"], first["table"])
    assert ("good", 7, None, "delivery") == tuple(
        first[name] for name in ("plain", "code", "nothing", "process")
    )


def test_a_json_line_begins_with_the_fields_that_every_line_has() -> None:
    names = list(json.loads(logged("json").splitlines()[0]))
    assert ["time", "level", "event", "process"] == names[:4]


def test_escapes_are_shown_once_and_in_quotes_on_a_terminal() -> None:
    first = logged("console").splitlines()[0]
    assert r'bad="a\x1b[31m\x9b2J\u202e …"' in first
    assert r'short="\x1b[2J"' in first
    assert "plain=good" in first
    assert "spaced='two words'" in first


@pytest.mark.parametrize(
    ("environment", "has_colors"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
    ],
)
def test_the_log_has_colors_only_where_they_are_wanted(
    environment: dict[str, str], has_colors: bool
) -> None:
    ours, theirs = pty.openpty()
    inherited = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "console"], stderr=theirs, env=inherited | environment
    )
    os.close(theirs)
    printed = b""
    with contextlib.suppress(OSError):  # EIO: the process closed its end
        while chunk := os.read(ours, 65536):
            printed += chunk
    os.close(ours)
    assert 1 == process.wait(60)
    assert has_colors is (b"\x1b[" in printed)
