"""The limits of the system are compared with the settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from pixelfast.collect import connections_within, files_of_connections
from pixelfast.config import Config, FileDestination, Server
from pixelfast.config.schema import Deliver
from pixelfast.operate.limits import apply_limits, memory_limit


def own_group() -> str:
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    return next((line[3:] for line in lines if line.startswith("0::")), "/").lstrip("/")


@pytest.mark.parametrize(
    ("open_files", "connections"), [(20_065, 20_000), (20_064, 19_999), (100, 35), (65, 1), (1, 1)]
)
def test_the_limit_of_open_files_limits_connections(open_files: int, connections: int) -> None:
    assert connections == connections_within(Server(), open_files)


def test_each_listening_address_needs_a_descriptor_in_each_collector() -> None:
    one, two = Server(), Server(listen=("127.0.0.1:1", "127.0.0.1:2"))
    assert 1 == files_of_connections(two, 10) - files_of_connections(one, 10)


def test_the_memory_limit_is_the_lowest_of_the_cgroup_and_its_parents(tmp_path: Path) -> None:
    group = tmp_path / own_group()
    group.mkdir(parents=True, exist_ok=True)
    assert memory_limit(str(tmp_path)) is None
    (group / "memory.max").write_text("max\n")
    assert memory_limit(str(tmp_path)) is None
    (tmp_path / "memory.max").write_text("1000\n")
    assert 1000 == memory_limit(str(tmp_path))


def test_a_memory_limit_below_the_need_of_the_settings_is_logged(tmp_path: Path) -> None:
    (tmp_path / own_group()).mkdir(parents=True, exist_ok=True)
    (tmp_path / "memory.max").write_text(str(2**30))
    with capture_logs() as logged:
        apply_limits(Config(), 1, cgroup_root=str(tmp_path))
    assert [] == [line for line in logged if line["event"] == "memory_limit_low"]
    with capture_logs() as logged:
        apply_limits(Config(), 4, cgroup_root=str(tmp_path))
    (line,) = (line for line in logged if line["event"] == "memory_limit_low")
    assert ("1GiB", "1728MiB") == (line["limit"], line["needed"])


@pytest.mark.parametrize(("destinations", "needed"), [(2, "928MiB"), (3, "1184MiB")])
def test_each_delivery_process_needs_memory(tmp_path: Path, destinations: int, needed: str) -> None:
    (tmp_path / own_group()).mkdir(parents=True, exist_ok=True)
    (tmp_path / "memory.max").write_text(str(2**29))
    config = Config(
        deliver=Deliver(processes=5),
        destinations=tuple(FileDestination(name=f"file-{n}") for n in range(destinations)),
    )
    with capture_logs() as logged:
        apply_limits(config, 1, cgroup_root=str(tmp_path))
    assert [needed] == [line["needed"] for line in logged if line["event"] == "memory_limit_low"]
