"""Jars from Maven's repositories."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.deliver.products.real.processes import Absent

__all__ = ["class_path"]

# The paths of the jars that Maven has downloaded; a mutant has the tests of this checkout, too.
_PATHS = Path(__file__).resolve().parents[4] / "build" / "jars"
_RESOLVE_S = 150.0
_POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>test</groupId><artifactId>test</artifactId><version>1</version>
  <packaging>pom</packaging>
  <dependencies>{}</dependencies>
</project>
"""
_DEPENDENCY = (
    "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"
)


def class_path(name: str, dependencies: Iterable[tuple[str, str, str]]) -> str:
    """Return the class path of dependencies: groups, artifacts and versions.

    Maven downloads jars that its own cache lacks. Their paths are stored in `build/jars` under
    `name`, because Maven takes seconds to find them.

    Raises:
        Absent: Java or Maven is not installed, or cannot resolve the dependencies.
    """
    for program in ("javac", "mvn"):
        if shutil.which(program) is None:
            raise Absent(f"{program} is not installed")
    known = _PATHS / name
    if known.exists():
        jars = known.read_text()
        if all(Path(jar).exists() for jar in jars.split(":")):
            return jars
    with TemporaryDirectory() as folder:
        jars = _resolve(name, dependencies, Path(folder))
    _PATHS.mkdir(parents=True, exist_ok=True)
    new = _PATHS / f".{name}-{os.getpid()}"
    new.write_text(jars)
    new.replace(known)
    return jars


def _resolve(name: str, dependencies: Iterable[tuple[str, str, str]], folder: Path) -> str:
    pom = folder / "pom.xml"
    pom.write_text(_POM.format("".join(_DEPENDENCY.format(*each) for each in dependencies)))
    listed = folder / "jars"
    command = ["mvn", "-q", "-B", "-f", str(pom), "dependency:build-classpath"]
    try:
        subprocess.run(
            [*command, f"-Dmdep.outputFile={listed}"],
            check=True,
            capture_output=True,
            timeout=_RESOLVE_S,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise Absent(f"Maven did not resolve {name} within {_RESOLVE_S:.0f} s") from None
    except subprocess.CalledProcessError as error:
        said = error.stdout.decode(errors="replace").strip().splitlines() or ["nothing"]
        raise Absent(f"Maven cannot resolve {name}: {said[0][:200]}") from None
    return listed.read_text().strip()
