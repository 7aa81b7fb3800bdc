"""The real products; the first test that needs one starts it for the session."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deliver.products.real.kafka_broker import KafkaBroker
from tests.deliver.products.real.postgres_server import PostgresServer, postgres_server
from tests.deliver.products.real.processes import Absent, background
from tests.deliver.products.real.search_node import PRODUCTS, search_node
from tests.deliver.products.topics import Topics

_CLICKHOUSE = Path(__file__).parent / "real" / "clickhouse_server.py"


@pytest.fixture(scope="session", params=sorted(PRODUCTS))
def search(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The URL of a real Elasticsearch or OpenSearch."""
    folder = tmp_path_factory.mktemp(request.param)
    try:
        with search_node(request.param, folder) as port:
            yield f"http://127.0.0.1:{port}"
    except Absent as why:
        pytest.skip(str(why))


@pytest.fixture(scope="session")
def clickhouse_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the real ClickHouse engine."""
    if importlib.util.find_spec("chdb") is None:
        pytest.skip("chdb is not installed: make products")
    folder = tmp_path_factory.mktemp("clickhouse")
    command = [sys.executable, str(_CLICKHOUSE), str(folder / "data")]
    announces = re.compile(r"^port (\d+)$", re.MULTILINE)
    with background(command, folder, announces, start_s=60.0) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="session")
def kafka_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    try:
        broker = KafkaBroker(tmp_path_factory.mktemp("kafka"))
    except Absent as why:
        pytest.skip(str(why))
    with broker:
        yield broker


@pytest.fixture
def kafka(kafka_session: KafkaBroker) -> Iterator[KafkaBroker]:
    """A real Kafka broker, which a test may kill or freeze."""
    yield kafka_session
    kafka_session.thaw()
    kafka_session.start()


@pytest.fixture
def topics(kafka: KafkaBroker) -> Iterator[Topics]:
    """Creates, changes and reads topics of the broker."""
    found = Topics(kafka.address)
    yield found
    found.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real PostgreSQL server."""
    try:
        with postgres_server() as server:
            yield server
    except Absent as why:
        pytest.skip(str(why))
