"""The figures that processes report become metrics."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pixelfast.config import Config
from pixelfast.operate.delivery_metrics import delivery_metrics, known_destinations
from pixelfast.operate.disk_space import DiskSampler, DiskSpace, FullForecast
from pixelfast.operate.metrics import exposition
from pixelfast.operate.reload import ReloadState
from pixelfast.operate.totals import Totals
from pixelfast.spool.histograms import BUCKETS

NO_LAG = {"counts": [0] * BUCKETS, "sum": 0.0}


def child(name: str, figures: dict[str, Any], *names: str, is_silent: bool = False) -> Any:
    """A process that has reported; `names` are the destinations that it should have."""
    totals = Totals()
    totals.follow(figures.get("totals", {}))
    return SimpleNamespace(
        name=name,
        orders=SimpleNamespace(destinations=list(names)),
        starts=1,
        reported_at_s=999.0,
        figures=figures,
        totals=totals,
        is_silent=is_silent,
        pid=None,
    )


def exposed_of(
    children: list[Any], *, disk: DiskSpace | None = None, full_in_s: float | None = None
) -> list[str]:
    """Return the lines of /metrics of collectors and delivery processes."""
    deliveries = [each for each in children if each.name.startswith("delivery")]
    server = SimpleNamespace(
        name="supervisor",
        config=Config(),
        processes=SimpleNamespace(
            collectors=[each for each in children if each not in deliveries],
            deliveries=deliveries,
            children=children,
        ),
        uptime_s=5.0,
        is_ready=True,
        reload_state=ReloadState(),
    )
    machine = SimpleNamespace(disk=disk, full_in_s=full_in_s, lag_figures=lambda: NO_LAG)
    return exposition(server, machine).decode().splitlines()


def labels_of(labels: dict[str, str]) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"


def exposed(destinations: dict[str, Any], *, is_silent: bool = False) -> list[str]:
    return exposed_of([child("delivery", {"destinations": destinations}, is_silent=is_silent)])


def test_dead_letters_are_reported_by_destination_and_source() -> None:
    letters = {
        "web": {"letters": 3, "size_bytes": 700, "dropped": 20, "oldest_ms": 990_000},
        "shop": {"letters": 0, "size_bytes": 0, "dropped": 1, "oldest_ms": 0},
    }
    destinations = {"hook": {"dead": 24, "dead_letters": letters}, "other": {"state": "unusable"}}
    delivery = child("delivery", {"destinations": destinations})
    families = delivery_metrics([delivery], clock=lambda: 1000.0)
    lines = [
        f"{sample.name}{labels_of(sample.labels)} {sample.value}"
        for family in families
        for sample in family.samples
    ]
    found = {line for line in lines if "dead" in line}
    assert {
        'pixelfast_dead_events{destination="hook"} 24',
        'pixelfast_dead_letters{destination="hook",source="web"} 3',
        'pixelfast_dead_letters{destination="hook",source="shop"} 0',
        'pixelfast_dead_letter_bytes{destination="hook",source="web"} 700',
        'pixelfast_dead_letter_bytes{destination="hook",source="shop"} 0',
        'pixelfast_oldest_dead_letter_seconds{destination="hook",source="web"} 10.0',
        'pixelfast_oldest_dead_letter_seconds{destination="hook",source="shop"} 0.0',
        'pixelfast_dropped_dead_letters_total{destination="hook",source="web"} 20',
        'pixelfast_dropped_dead_letters_total{destination="hook",source="shop"} 1',
    } == found


def test_unknown_figures_are_absent() -> None:
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


def test_totals_of_a_cluster_are_those_of_the_partitions_that_the_process_owns() -> None:
    partitions = {"0": {"delivered": 7, "dead": -2}, "3": {"delivered": 5, "dead": 4}}
    for own in partitions.values():
        for name in ("stored", "filtered", "expired", "missing", "repeated", "batches", "failures"):
            own[name] = 0
        own |= {"duplicate_frames": 1, "invalid_messages": 2}
    figures = {"delivered": 12, "dead": 2, "pending": 3, "unread": 40, "by_partition": partitions}
    lines = exposed({"hook": figures, "retired": {"delivered": 9}})
    found = {
        line for line in lines if line.startswith(("pixelfast_delivered", "pixelfast_dead_events"))
    }
    assert {
        'pixelfast_delivered_events_total{destination="hook",partition="0"} 7.0',
        'pixelfast_delivered_events_total{destination="hook",partition="3"} 5.0',
        'pixelfast_delivered_events_total{destination="retired"} 9.0',
        'pixelfast_dead_events{destination="hook",partition="0"} -2.0',
        'pixelfast_dead_events{destination="hook",partition="3"} 4.0',
    } == found
    assert 'pixelfast_unread_events{destination="hook"} 40.0' in lines
    assert 'pixelfast_invalid_messages_total{destination="hook",partition="3"} 2.0' in lines
    silent = exposed({"hook": figures}, is_silent=True)
    assert not [line for line in silent if "pixelfast_delivered" in line and "hook" in line]


def test_only_totals_of_a_silent_delivery_process_are_reported() -> None:
    figures = {"state": "healthy", "delivered": 7, "pending": 3, "lag_s": 0.2}
    lines = exposed({"hook": figures}, is_silent=True)
    assert 'pixelfast_delivered_events_total{destination="hook"} 7.0' in lines
    assert not [
        line
        for line in lines
        if line.startswith(("pixelfast_pending", "pixelfast_deliv")) and "total" not in line
    ]
    states = [line for line in lines if line.startswith("pixelfast_destination_state{")]
    assert states
    assert not [line for line in states if line.endswith(" 1.0")]


def test_health_reports_no_lag_of_a_silent_process() -> None:
    letters = {"web": {"letters": 3}}
    figures = {"state": "healthy", "delivered": 7, "lag_s": 0.2, "dead_letters": letters}
    reported = {"destinations": {"hook": figures}}
    expected: dict[str, Any] = {**figures, "process": "delivery-1"}
    assert {"hook": expected} == known_destinations([child("delivery-1", reported)])
    del expected["lag_s"]
    expected["state"] = "unknown"
    silent = child("delivery-1", reported, is_silent=True)
    assert {"hook": expected} == known_destinations([silent])


def test_the_figures_of_several_delivery_processes_are_joined_and_their_totals_summed() -> None:
    def figures(name: str, removed: int, attempts: int) -> dict[str, Any]:
        durations = {"counts": [attempts] + [0] * (BUCKETS - 1), "sum": 0.5 * attempts}
        own = {"results": {"accepted": attempts}, "durations": durations}
        return {
            "destinations": {name: {"state": "healthy", "delivered": attempts}},
            "totals": {
                "attempts": {name: own, "moved": own},
                "removed_segments": removed,
                "loop_lag": NO_LAG,
            },
        }

    lines = exposed_of(
        [
            child("delivery", figures("one", 3, 7), "one"),
            child("delivery-1", figures("two", 2, 9), "two"),
            child("delivery-2", {}, "dead"),
        ]
    )
    for line in (
        'pixelfast_delivered_events_total{destination="one"} 7.0',
        'pixelfast_delivered_events_total{destination="two"} 9.0',
        'pixelfast_delivery_attempts_total{destination="one",result="accepted"} 7.0',
        'pixelfast_delivery_attempts_total{destination="moved",result="accepted"} 16.0',
        'pixelfast_delivery_attempt_duration_seconds_count{destination="two"} 9.0',
        'pixelfast_delivery_attempt_duration_seconds_sum{destination="moved"} 8.0',
        "pixelfast_removed_segments_total 5.0",
        'pixelfast_process_starts_total{process="delivery-1"} 1.0',
        'pixelfast_destination_state{destination="two",state="healthy"} 1.0',
        'pixelfast_destination_state{destination="dead",state="healthy"} 0.0',
    ):
        assert 1 == lines.count(line), line


def test_the_brokers_of_a_kafka_destination_have_metrics_of_their_own() -> None:
    brokers = {
        "kafka-1:9092": {"queued_messages": 5, "round_trip_s": 0.0015},
        "kafka-2:9092": {"queued_messages": 0},
    }
    figures = {"state": "healthy", "kafka_queued_messages": 7, "kafka_queued_bytes": 900}
    own = {
        "results": {"accepted": 1},
        "durations": {"counts": [1] + [0] * (BUCKETS - 1), "sum": 0.5},
        "broker_retries": {"kafka-1:9092": 3},
    }
    reported = {
        "destinations": {"stream": {**figures, "kafka_brokers": brokers}},
        "totals": {"attempts": {"stream": own}, "loop_lag": NO_LAG},
    }
    lines = exposed_of([child("delivery", reported, "stream")])
    first, second = 'broker="kafka-1:9092",destination', 'broker="kafka-2:9092",destination'
    for line in (
        'pixelfast_kafka_queued_messages{destination="stream"} 7.0',
        'pixelfast_kafka_queued_bytes{destination="stream"} 900.0',
        f'pixelfast_kafka_round_trip_seconds{{{first}="stream"}} 0.0015',
        f'pixelfast_kafka_broker_messages{{{first}="stream"}} 5.0',
        f'pixelfast_kafka_broker_messages{{{second}="stream"}} 0.0',
        f'pixelfast_kafka_retries_total{{{first}="stream"}} 3.0',
    ):
        assert 1 == lines.count(line), (line, [each for each in lines if "kafka" in each])
    assert not [
        each for each in lines if each.startswith("pixelfast_kafka_round") and second in each
    ]


def test_the_brokers_of_a_cluster_have_metrics_by_slot_and_by_destination() -> None:
    def brokers(round_trip_s: float) -> dict[str, Any]:
        own = {"queued_messages": 2, "round_trip_s": round_trip_s}
        return {"cluster_brokers": {"kafka-1:9092": own, "kafka-2:9092": {"queued_messages": 0}}}

    totals = {"cluster_retries": {"kafka-1:9092": 3}}
    collecting = child("collector-4", {**brokers(0.001), "totals": totals})
    delivering = child(
        "delivery",
        {
            "destinations": {"hook": {"state": "healthy", **brokers(0.5)}},
            "totals": {"cluster_retries": {"hook": {"kafka-2:9092": 7}}},
        },
        "hook",
    )
    lines = [each for each in exposed_of([collecting, delivering]) if "cluster_" in each]
    first, second = 'broker="kafka-1:9092"', 'broker="kafka-2:9092"'
    slot, hook = 'destination="",slot="4"', 'destination="hook",slot=""'
    assert {
        f"pixelfast_cluster_round_trip_seconds{{{first},{slot}}} 0.001",
        f"pixelfast_cluster_round_trip_seconds{{{first},{hook}}} 0.5",
        f"pixelfast_cluster_broker_requests{{{first},{slot}}} 2.0",
        f"pixelfast_cluster_broker_requests{{{second},{slot}}} 0.0",
        f"pixelfast_cluster_broker_requests{{{first},{hook}}} 2.0",
        f"pixelfast_cluster_broker_requests{{{second},{hook}}} 0.0",
        f"pixelfast_cluster_retries_total{{{first},{slot}}} 3.0",
        f"pixelfast_cluster_retries_total{{{second},{hook}}} 7.0",
    } == {each for each in lines if not each.startswith("#")}


def collector(commits: int, *, is_silent: bool = False) -> Any:
    durations = {"counts": [commits] + [0] * (BUCKETS - 1), "sum": 0.5 * commits}
    totals = {
        "stored_events": 3 * commits,
        "responses": {"200": 3 * commits},
        "rejected_requests": {"web": {"bad-name": commits}},
        "untemplated_events": {"new-shape": commits},
        "commit_durations": durations,
    }
    figures = {"spool_bytes": 700, "totals": totals}
    return child("collector-0", figures, is_silent=is_silent)


def test_totals_continue_when_a_process_is_restarted() -> None:
    restarted = collector(4)
    restarted.totals.end()
    delivery = child("delivery", {})
    counted = [
        'pixelfast_stored_events_total{slot="0"} 12.0',
        'pixelfast_responses_total{slot="0",status="200"} 12.0',
        'pixelfast_rejected_requests_total{reason="bad-name",slot="0",source="web"} 4.0',
        'pixelfast_untemplated_events_total{reason="new-shape",slot="0"} 4.0',
        'pixelfast_commit_duration_seconds_bucket{le="6.4e-05",slot="0"} 4.0',
        'pixelfast_commit_duration_seconds_bucket{le="+Inf",slot="0"} 4.0',
        'pixelfast_commit_duration_seconds_count{slot="0"} 4.0',
        'pixelfast_commit_duration_seconds_sum{slot="0"} 2.0',
    ]
    restarted.figures = {}
    lines = exposed_of([restarted, delivery])
    assert [] == [line for line in counted if line not in lines]
    assert not [line for line in lines if line.startswith("pixelfast_spool_bytes{")]
    restarted.totals.follow({"stored_events": 1})
    assert 'pixelfast_stored_events_total{slot="0"} 13.0' in exposed_of([restarted, delivery])


def test_only_totals_of_a_silent_collector_are_reported() -> None:
    lines = exposed_of([collector(1, is_silent=True), child("delivery", {})])
    assert 'pixelfast_stored_events_total{slot="0"} 3.0' in lines
    assert not [line for line in lines if line.startswith("pixelfast_spool_bytes{")]


def test_the_figures_of_an_unknown_disk_are_absent() -> None:
    def found(**machine: Any) -> list[str]:
        lines = exposed_of([child("delivery", {})], **machine)
        names = ("pixelfast_disk", "pixelfast_spool_full")
        return [line for line in lines if line.startswith(names)]

    assert [] == found()
    assert [
        "pixelfast_disk_free_bytes 7.0",
        "pixelfast_disk_size_bytes 9.0",
        "pixelfast_spool_full_in_seconds 60.0",
    ] == found(disk=DiskSpace(7, 9), full_in_s=60.0)


def test_process_metrics_are_reported_for_every_process() -> None:
    running = child("collector-0", {})
    running.pid = os.getppid()
    lines = exposed_of([running, child("delivery", {})])
    for name in ("cpu_seconds_total", "resident_memory_bytes", "open_fds", "start_time_seconds"):
        found = [line.partition("{")[2] for line in lines if line.startswith(f"process_{name}{{")]
        assert ['process="supervisor"', 'process="collector-0"'] == [
            line.partition("}")[0] for line in found
        ]


def test_the_forecast_is_that_of_the_space_that_is_used_up_first() -> None:
    forecast = FullForecast()
    assert forecast.seconds is None
    for at_s in range(0, 601, 5):  # 1 byte/s, then 10 bytes/s for five minutes
        left = 10_000 - at_s if at_s < 300 else 9700 - 10 * (at_s - 300)
        forecast.add(at_s, {"slot": left, "disk": 20_000 - at_s, "other": 5.0})
    assert 670.0 == forecast.seconds


def test_there_is_no_forecast_for_less_than_a_minute_or_growing_space() -> None:
    forecast = FullForecast()
    for at_s in (0, 59):
        forecast.add(at_s, {"slot": 1000 - at_s})
    assert forecast.seconds is None
    forecast.add(60, {"slot": 1000})
    assert forecast.seconds is None
    forecast.add(61, {"slot": 0})
    assert 0.0 == forecast.seconds


def test_a_disk_that_fails_or_hangs_is_unknown() -> None:
    now_s = 0.0
    error: list[OSError] = []

    def measure(_: Path) -> DiskSpace:
        if error:
            raise error[0]
        return DiskSpace(100, 200)

    sampler = DiskSampler(
        Path(), lambda: 100, lambda: {"slot": 5.0}, clock=lambda: now_s, measure=measure
    )
    assert (None, None) == (sampler.disk, sampler.full_in_s)
    asyncio.run(sampler.look())
    assert (DiskSpace(100, 200), 0.0) == (sampler.disk, sampler.full_in_s)  # min_free is reached
    now_s = 31.0  # and no look has come to its end since
    assert (None, None) == (sampler.disk, sampler.full_in_s)
    error.append(OSError("a disk that fails"))
    asyncio.run(sampler.look())
    assert (None, None) == (sampler.disk, sampler.full_in_s)
