"""Metrics, alerts, the dashboard and the documentation use the same names."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.servers import Server, serving
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy/prometheus"
DASHBOARD = json.loads((ROOT / "deploy/grafana/pixelfast.json").read_text())
ALERTS = (PROMETHEUS / "alerts.yml").read_text()
RULE_TESTS = (PROMETHEUS / "alerts_test.yml").read_text()
SETTINGS = """
[[sources]]
name = "web"
write_keys = ["wk"]
[[destinations]]
name = "archive"
type = "file"
[[destinations]]
name = "down"
type = "http"
url = "http://127.0.0.1:9/"
"""
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is missing")


def promtool(*arguments: str, given: str = "") -> str:
    """Return the output of promtool, which must not report an error."""
    result = subprocess.run(
        ["promtool", *arguments], input=given, capture_output=True, text=True, cwd=PROMETHEUS
    )
    assert 0 == result.returncode, result.stdout + result.stderr
    return result.stdout + result.stderr


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a destination that accepts events and one that cannot be reached."""
    folder = tmp_path_factory.mktemp("monitoring")
    with serving(folder / "data", "--workers", "2", settings=SETTINGS) as running:
        for number in range(20):
            assert 200 == running.track(f"E{number}", "&bad..name=1")
        running.get("/pixel/v1/track?writeKey=who&userId=u&event=E")
        wait_until(lambda: has_settled(running), "the figures of what was sent", 60.0)
        yield running


def has_settled(server: Server) -> bool:
    figures = server.metrics()
    return (
        figures.get("pixelfast_responses_total") == 21
        and figures.get("pixelfast_commit_events_sum") == 20
        and figures.get("pixelfast_delivered_events_total") == 20
        and figures.get("pixelfast_pending_events") == 20
        and figures.get("pixelfast_pending_bytes", 0) > 0
        and server.metrics_of("pixelfast_delivery_attempts_total", destination="down") > 0
        and "pixelfast_disk_free_bytes" in figures
    )


@pytest.fixture(scope="module")
def families(server: Server) -> dict[str, Metric]:
    """Return the families of a running server by the names of their samples."""
    found = text_string_to_metric_families(server.admin("/metrics"))
    return {
        f"{family.name}_total" if family.type == "counter" else family.name: family
        for family in found
    }


@pytest.fixture(scope="module")
def documented() -> dict[str, tuple[str, set[str], str]]:
    """Return the type, labels and meaning of each metric in the documentation."""
    rows = re.findall(
        r"^\| `(\w+)` \| (\w+) \|([^|]*)\| (.+) \|$",
        (ROOT / "docs/metrics.md").read_text(),
        re.MULTILINE,
    )
    return {
        name: (kind, set(re.findall(r"`(\w+)`", labels)), text) for name, kind, labels, text in rows
    }


def names_in(expression: str) -> set[str]:
    """Return the names of the metrics in a PromQL expression."""
    without_labels = re.sub(r"\{[^}]*\}", "", expression)
    return set(re.findall(r"\b(?:pixelfast|process)_\w+", without_labels))


def unknown_names(expressions: list[str], families: dict[str, Metric]) -> set[str]:
    """Return the names in expressions that a running server does not have."""
    samples = set(families)
    for name, family in families.items():
        if family.type == "histogram":
            samples |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"}
    found = set().union(*map(names_in, expressions))
    assert len(found) > 10
    return found - samples


def expressions_of(panels: list[dict[str, Any]]) -> list[str]:
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


def test_every_metric_is_documented_and_no_other(
    families: dict[str, Metric], documented: dict[str, tuple[str, set[str], str]]
) -> None:
    assert set(families) == set(documented)
    for name, family in families.items():
        kind, labels, text = documented[name]
        assert (name, family.type, family.documentation) == (name, kind, text)
        for sample in family.samples:
            assert labels == sample.labels.keys() - {"le"}, name


def test_figures_add_up(server: Server, families: dict[str, Metric]) -> None:
    def value(sample: str, **labels: str) -> float:
        return server.metrics_of(sample, **labels)

    assert 20 == value("pixelfast_commit_events_sum")
    assert 20 == value("pixelfast_stored_events_total")
    assert 1 == value("pixelfast_responses_total", status="401")
    # One in sixteen of each collector, the first one included.
    measured = value("pixelfast_response_duration_seconds_count")
    assert 2 <= measured <= 4
    commits = value("pixelfast_commit_duration_seconds_count")
    assert commits == value("pixelfast_fsync_duration_seconds_count")
    assert 1 <= value("pixelfast_delivery_attempts_total", destination="archive", result="accepted")
    assert 1 <= value("pixelfast_delivery_attempts_total", destination="down", result="retry")
    for name in ("supervisor", "delivery", "collector-0", "collector-1"):
        assert 1 <= value("pixelfast_event_loop_lag_seconds_count", process=name)
        assert 0 < value("process_cpu_seconds_total", process=name)
    succeeded = families["pixelfast_last_delivery_timestamp_seconds"].samples
    assert ["archive"] == [sample.labels["destination"] for sample in succeeded]
    sizes = families["pixelfast_disk_free_bytes"], families["pixelfast_disk_size_bytes"]
    free, size = (family.samples[0].value for family in sizes)
    assert 0 < free < size


def test_alerts_name_metrics_that_exist(families: dict[str, Metric]) -> None:
    expressions = re.findall(r"^ +expr: (?:>-\n)?((?:.+\n)(?:^ +/.*\n)?)", ALERTS, re.MULTILINE)
    assert ALERTS.count("- alert:") == len(expressions)
    assert set() == unknown_names(expressions, families)


def test_the_dashboard_names_metrics_that_exist(families: dict[str, Metric]) -> None:
    assert set() == unknown_names(expressions_of(DASHBOARD["panels"]), families)


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    assert len(panels) == len({panel["id"] for panel in panels})
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert 24 > max(x for x, _ in cells)


def test_every_alert_has_a_test() -> None:
    alerts = set(re.findall(r"- alert: (\w+)", ALERTS))
    assert alerts == set(re.findall(r'alertname="(\w+)"', RULE_TESTS))


@needs_promtool
def test_promtool_finds_the_metrics_well_named(server: Server) -> None:
    assert "" == promtool("check", "metrics", given=server.admin("/metrics"))


@needs_promtool
def test_promtool_finds_the_alerts_correct() -> None:
    assert "rules found" in promtool("check", "rules", "alerts.yml")


@needs_promtool
def test_each_alert_fires_when_it_should_and_not_otherwise() -> None:
    assert "SUCCESS" in promtool("test", "rules", "alerts_test.yml")


@needs_promtool
def test_the_dashboard_has_expressions_that_prometheus_understands(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "5m")}
        for number, expression in enumerate(expressions_of(DASHBOARD["panels"]))
    ]
    path = tmp_path / "dashboard.yml"  # JSON is YAML
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", str(path))
