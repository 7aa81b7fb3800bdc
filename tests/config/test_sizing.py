"""How long the spool lasts, what can fill it, and the tables of these in the documentation."""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pixelfast.config import Config, parse_bytes
from pixelfast.config.reader import config_from_table
from pixelfast.config.sizing import EVENT_BYTES, lasting_s, size_warnings, time_in_words
from pixelfast.event import EventWriter, Rules
from pixelfast.spool.format import SegmentId
from tests.spools import seal

SIZING = (
    Path(__file__)
    .parents[2]
    .joinpath("docs/production.md")
    .read_text()
    .split("## Capacity planning")[1]
)
GIB = 2**30
AGENT = (
    b"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko)"
    b" Chrome/142.0.0.0 Safari/537.36"
)
ID = "0197b5a2-7c1e-7000-8000-000000000001"
OPENED = f"track?writeKey=k&anonymousId={ID}&event=Email+Opened&properties.campaign=may"
SEEN = (
    f"page?writeKey=k&anonymousId={ID}&name=Pricing&properties.url=https://example.com/pricing"
    "&properties.path=/pricing&properties.title=Pricing&properties.referrer=https://www.example.org/"
)


@pytest.fixture
def _large_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    set_disk(monkeypatch, size_gib=10_000, free_gib=10_000)


def set_disk(monkeypatch: pytest.MonkeyPatch, size_gib: int, free_gib: int) -> None:
    disk = SimpleNamespace(f_frsize=GIB, f_blocks=size_gib, f_bavail=free_gib)
    monkeypatch.setattr(os, "statvfs", lambda _: disk)


def warnings(table: dict[str, Any], **options: float) -> list[str]:
    return list(size_warnings(config_from_table(table), **options))


def file(name: str, **settings: Any) -> dict[str, Any]:
    return {"name": name, "type": "file", **settings}


# --- required destinations -----------------------------------------------------------------------


@pytest.mark.usefixtures("_large_disk")
def test_required_destinations_without_a_limit_are_named_with_the_time_to_fill_the_spool() -> None:
    destinations = [
        file("archive"),
        file("lagging", max_lag_bytes="1GiB"),
        file("optional", required=False),
        {"name": "hook", "type": "http", "url": "https://example.com/"},
    ]
    (warning,) = warnings({"destinations": destinations})
    assert warning.startswith('required destinations without max_lag_bytes: "archive", "hook". ')
    assert "(20GiB) within 17 minutes at 50,000 pixels/s and 420 bytes per event" in warning
    (warning,) = warnings({"destinations": destinations}, pixels_per_s=500, event_bytes=570)
    assert "(20GiB) within 21 hours at 500 pixels/s and 570 bytes per event" in warning


@pytest.mark.usefixtures("_large_disk")
@pytest.mark.parametrize(
    "table",
    [
        {"destinations": [file("a", max_lag_bytes=1), file("b", required=False)]},
        {"spool": {"on_full": "drop_oldest"}},
    ],
)
def test_there_is_no_warning_if_nothing_can_fill_the_spool(table: dict[str, Any]) -> None:
    assert [] == warnings(table)


@pytest.mark.usefixtures("_large_disk")
def test_brokers_that_do_not_respond_fill_the_spool_of_a_cluster() -> None:
    cluster = {"brokers": ["kafka-1:9092"]}
    (warning,) = warnings({"cluster": cluster, "destinations": [file("archive")]})
    assert warning.startswith("cluster.when_unavailable: if no broker responds, ")
    assert "(20GiB) within 17 minutes at 50,000 pixels/s on this machine and 420 bytes" in warning
    assert [] == warnings({"cluster": {**cluster, "when_unavailable": "reject"}})


def test_a_duration_is_shown_in_the_largest_unit_of_which_it_has_two() -> None:
    times = [0, 1.9, 2, 119, 120, 7199, 7200, 172_799, 172_800]
    expected = ["less than 2 seconds", "less than 2 seconds", "2 seconds", "119 seconds"]
    expected += ["2 minutes", "120 minutes", "2 hours", "48 hours", "2 days"]
    assert expected == [time_in_words(each) for each in times]


# --- disks ---------------------------------------------------------------------------------------

QUIET = {"spool": {"on_full": "drop_oldest"}}


def test_a_disk_that_is_too_small_for_the_spool_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = {**QUIET, "data_dir": str(tmp_path / "not" / "there")}
    set_disk(monkeypatch, 100, 21)
    assert [] == warnings(table)
    set_disk(monkeypatch, 100, 20)
    (warning,) = warnings(table)
    assert "the disk has 19.5 GiB for the spool, apart from spool.min_free" in warning
    assert "less than spool.max_bytes (20GiB)" in warning
    assert "disk-full" in warning


def test_the_segments_that_exist_already_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = tmp_path / "shards" / "0"
    slot.mkdir(parents=True)
    spool = {"on_full": "drop_oldest", "min_free": 0, "max_bytes": GIB + 4096}
    table = {"spool": spool, "data_dir": str(tmp_path)}
    set_disk(monkeypatch, 100, 1)
    assert 1 == len(warnings(table))
    (slot / "0000000000000001.seg").write_bytes(bytes(4096))
    assert [] == warnings(table)


def test_a_disk_that_is_smaller_than_keep_bytes_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = {**QUIET, "destinations": [file("archive", keep_bytes="50GiB")]}
    set_disk(monkeypatch, 51, 51)
    assert [] == warnings(table)
    set_disk(monkeypatch, 50, 50)
    (warning,) = warnings(table)
    assert warning.startswith("destinations[archive].keep_bytes: the disk has 49.5 GiB, apart")


def test_there_is_no_warning_about_a_disk_that_cannot_be_accessed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def forbid(_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "statvfs", forbid)
    assert [] == warnings(QUIET)


# --- the documentation ---------------------------------------------------------------------------


def event_bytes(target: str, agent: bytes) -> float:
    """Return the size of an event in the spool if a commit stores 65 events, as under load."""
    events = EventWriter()
    events.open(b"/pixel/v1/" + target.encode())
    event, _ = events.write(Rules(), 1_795_342_530_123, address="203.0.113.77", user_agent=agent)
    return len(seal([(0, event)] * 65, [b"web"], SegmentId(b"n" * 16, 0, 1), 0)) / 65


@pytest.mark.parametrize(
    ("name", "target", "agent"),
    [
        ("an e-mail open without a `User-Agent`", OPENED, b""),
        ("an e-mail open with a `User-Agent`", OPENED, AGENT),
        ("a page view with five properties", SEEN, AGENT),
    ],
)
def test_the_sizes_of_events_in_the_documentation_are_right(
    name: str, target: str, agent: bytes
) -> None:
    (documented,) = re.findall(rf"^\| {re.escape(name)} \| (\d+) bytes \|", SIZING, re.MULTILINE)
    assert float(documented) == pytest.approx(event_bytes(target, agent), rel=0.05)


def test_the_table_of_durations_in_the_documentation_is_right() -> None:
    (head,) = re.findall(r"^\| pixels/s \|(.*)\|$", SIZING, re.MULTILINE)
    sizes = [parse_bytes(each.strip()) for each in head.split("|")]
    rows = re.findall(r"^\| ([\d,]+) \|(.*)\|$", SIZING, re.MULTILINE)
    assert len(sizes) >= 3
    assert len(rows) >= 4
    for rate, cells in rows:
        computed = [time_in_words(lasting_s(size, int(rate.replace(",", "")))) for size in sizes]
        assert computed == [each.strip() for each in cells.split("|")]
    assert f"{EVENT_BYTES} bytes" in SIZING


def test_the_duration_with_default_settings_in_the_documentation_is_right() -> None:
    lasting = time_in_words(lasting_s(Config().spool.max_bytes, 50_000))
    assert f"lasts {lasting} at 50,000 pixels/s" in " ".join(SIZING.split())
