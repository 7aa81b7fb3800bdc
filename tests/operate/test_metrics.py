"""What the processes say of themselves becomes metrics."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from pixelfast.operate import metrics as metrics_module
from pixelfast.operate.metrics import exposition


def exposed(destinations: dict[str, Any], *, is_silent: bool = False) -> list[str]:
    delivery = SimpleNamespace(
        name="delivery",
        starts=1,
        reported_at_s=999.0,
        figures={"destinations": destinations},
        is_silent=is_silent,
    )
    processes = SimpleNamespace(
        collectors=[], delivery=delivery, children=[delivery], started_s=0.0
    )
    return exposition(processes).decode().splitlines()


def test_dead_letters_are_told_by_destination_and_source(monkeypatch: Any) -> None:
    monkeypatch.setattr(metrics_module, "time", SimpleNamespace(time=lambda: 1000.0))
    letters = {
        "web": {"letters": 3, "size_bytes": 700, "dropped": 20, "oldest_ms": 990_000},
        "shop": {"letters": 0, "size_bytes": 0, "dropped": 1, "oldest_ms": 0},
    }
    lines = exposed({"hook": {"dead": 24, "dead_letters": letters}, "other": {"state": "unusable"}})
    found = {line for line in lines if "dead" in line and not line.startswith("#")}
    assert {
        'pixelfast_dead_events{destination="hook"} 24.0',
        'pixelfast_dead_letters{destination="hook",source="web"} 3.0',
        'pixelfast_dead_letters{destination="hook",source="shop"} 0.0',
        'pixelfast_dead_letter_bytes{destination="hook",source="web"} 700.0',
        'pixelfast_dead_letter_bytes{destination="hook",source="shop"} 0.0',
        'pixelfast_oldest_dead_letter_seconds{destination="hook",source="web"} 10.0',
        'pixelfast_oldest_dead_letter_seconds{destination="hook",source="shop"} 0.0',
        'pixelfast_dropped_dead_letters_total{destination="hook",source="web"} 20.0',
        'pixelfast_dropped_dead_letters_total{destination="hook",source="shop"} 1.0',
    } == found


def test_what_is_not_known_is_absent() -> None:
    figures = {"delivered": 7, "pending": 3, "state": "failing"}
    lines = exposed({"known": figures, "unknown": {"state": "unusable"}})
    found = {line for line in lines if line.startswith("pixelfast_") and "nown" in line}
    told = {line for line in found if "destination_state" not in line}
    assert {
        'pixelfast_delivered_events_total{destination="known"} 7.0',
        'pixelfast_pending_events{destination="known"} 3.0',
    } == told
    assert 'pixelfast_destination_state{destination="known",state="failing"} 1.0' in found
    assert 'pixelfast_destination_state{destination="unknown",state="unusable"} 1.0' in found


def test_a_silent_process_tells_only_what_never_becomes_less() -> None:
    lines = exposed({"hook": {"delivered": 7, "pending": 3, "lag_s": 0.2}}, is_silent=True)
    assert 'pixelfast_delivered_events_total{destination="hook"} 7.0' in lines
    assert not [
        line
        for line in lines
        if line.startswith(("pixelfast_pending", "pixelfast_deliv")) and "total" not in line
    ]
