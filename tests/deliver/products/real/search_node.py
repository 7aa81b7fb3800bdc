"""A node of Elasticsearch or OpenSearch on loopback, from jars that Maven downloads."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.deliver.products.real.processes import Absent, background

__all__ = ["PRODUCTS", "search_node"]

PRODUCTS = {
    "elasticsearch": "7.10.2",  # the last one under the Apache licence
    "opensearch": "2.19.3",  # the last version that runs on Java 17; supports data streams
}
_LOG4J = "2.17.2"
_RESOLVE_S = 150.0
_START_S = 60.0
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
_SOURCE = Path(__file__).with_name("SearchNode.java")


@contextmanager
def search_node(product: str, folder: Path, cache: Path) -> Iterator[int]:
    """Start a node with its data in `folder`; yield the port of its HTTP interface.

    `cache` stores the paths of the jars.

    Raises:
        Absent: it cannot be started here.
    """
    for program in ("javac", "mvn"):
        if shutil.which(program) is None:
            raise Absent(f"{program} is not installed")
    jars = _jars(product, folder, cache)
    for each in ("config", "logs"):
        (folder / each).mkdir()
    source = folder / _SOURCE.name
    source.write_text(_SOURCE.read_text().replace("org.elasticsearch", f"org.{product}"))
    options = ["-Xms512m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    command = ["java", *options, "-cp", jars, str(source), str(folder)]
    with background(command, folder, re.compile(r"^port (\d+)$", re.MULTILINE), _START_S) as port:
        yield port


def _jars(product: str, folder: Path, cache: Path) -> str:
    """Return the class path; Maven downloads jars that its cache lacks."""
    known = cache / f"{product}-{PRODUCTS[product]}"
    if known.exists():
        jars = known.read_text()
        if all(Path(jar).exists() for jar in jars.split(":")):
            return jars
    version = PRODUCTS[product]
    dependencies = [
        (f"org.{product}", product, version),
        (f"org.{product}.plugin", "transport-netty4-client", version),
        ("org.apache.logging.log4j", "log4j-api", _LOG4J),
        ("org.apache.logging.log4j", "log4j-core", _LOG4J),
    ]
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
        raise Absent(f"Maven did not resolve {product} within {_RESOLVE_S:.0f} s") from None
    except subprocess.CalledProcessError as error:
        said = error.stdout.decode(errors="replace").strip().splitlines() or ["nothing"]
        raise Absent(f"Maven cannot resolve {product}: {said[0][:200]}") from None
    jars = listed.read_text().strip()
    known.write_text(jars)
    return jars
