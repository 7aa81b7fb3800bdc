"""A node of Elasticsearch or OpenSearch on loopback, from jars that Maven downloads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.deliver.products.real.maven import class_path
from tests.deliver.products.real.processes import background

__all__ = ["PRODUCTS", "search_jars", "search_node"]

PRODUCTS = {
    "elasticsearch": "7.10.2",  # the last one under the Apache licence
    "opensearch": "2.19.3",  # the last version that runs on Java 17; supports data streams
}
_LOG4J = "2.17.2"
_START_S = 60.0
_SOURCE = Path(__file__).with_name("SearchNode.java")


def search_jars(product: str) -> str:
    """Return the class path of a product.

    Raises:
        Absent: it cannot be resolved here.
    """
    version = PRODUCTS[product]
    dependencies = [
        (f"org.{product}", product, version),
        (f"org.{product}.plugin", "transport-netty4-client", version),
        ("org.apache.logging.log4j", "log4j-api", _LOG4J),
        ("org.apache.logging.log4j", "log4j-core", _LOG4J),
    ]
    return class_path(f"{product}-{version}", dependencies)


@contextmanager
def search_node(product: str, folder: Path) -> Iterator[int]:
    """Start a node with its data in `folder`; yield the port of its HTTP interface.

    Raises:
        Absent: it cannot be started here.
    """
    jars = search_jars(product)
    for each in ("config", "logs"):
        (folder / each).mkdir()
    source = folder / _SOURCE.name
    source.write_text(_SOURCE.read_text().replace("org.elasticsearch", f"org.{product}"))
    options = ["-Xms512m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    command = ["java", *options, "-cp", jars, str(source), str(folder)]
    with background(command, folder, re.compile(r"^port (\d+)$", re.MULTILINE), _START_S) as port:
        yield port
