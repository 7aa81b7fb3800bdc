"""Without `[cluster]`, nothing of it is loaded."""

from __future__ import annotations

from tests.spool.tools import run_python

PROGRAM = """
import sys
import pixelfast.collect, pixelfast.config, pixelfast.operate, pixelfast.spool
loaded = [name for name in sys.modules if name.startswith(("pixelfast.cluster", "confluent_kafka"))]
print(len(loaded))
"""


def test_a_collector_without_a_cluster_loads_nothing_of_it() -> None:
    assert ["0"] == run_python(PROGRAM)
