"""What a reload changes, keeps and reports."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from pixelfast.config import Config, HttpDestination, Server, Source, Spool, WriteKey, read_config
from pixelfast.config.schema import ServerTls
from pixelfast.errors import ConfigErrors
from pixelfast.operate.reload import Outcome, errors_in, merge

RUNNING = Config(
    sources=(Source(name="web", write_keys=(WriteKey(key="wk"),)),),
    server=Server(listen=("127.0.0.1:1",), idle_timeout_s=1.0),
)


def test_the_same_settings_change_nothing() -> None:
    assert (RUNNING, []) == merge(RUNNING, RUNNING)


def test_another_path_to_the_same_data_directory_is_not_a_change() -> None:
    running = Config(data_dir=str(Path("pixelfast-data").resolve()))
    assert (running, []) == merge(running, Config(data_dir="./pixelfast-data"))


def test_a_setting_that_requires_a_restart_is_kept_and_reported() -> None:
    wanted = Config(
        data_dir="/elsewhere",
        server=Server(listen=("127.0.0.1:2",), idle_timeout_s=2.0),
        spool=Spool(ack="written", max_bytes=2**30),
        destinations=(HttpDestination(name="hook", url="https://example.com"),),
    )
    merged, kept = merge(RUNNING, wanted)
    assert (RUNNING.data_dir, RUNNING.spool) == (merged.data_dir, merged.spool)
    assert Server(listen=("127.0.0.1:1",), idle_timeout_s=2.0) == merged.server
    assert (wanted.sources, wanted.destinations) == (merged.sources, merged.destinations)
    assert ["data_dir", "server.listen", "spool.ack", "spool.max_bytes"] == [
        each.name for each in kept
    ]
    assert str(kept[0]).endswith("requires a restart")
    assert str(kept[1]).endswith("requires a restart or `pixelfast upgrade`")


def test_a_reload_changes_the_certificate_but_not_the_tls_address() -> None:
    def with_tls(tls: ServerTls | None) -> Config:
        return Config(server=Server(tls=tls))

    before = ServerTls(listen=("127.0.0.1:3",), cert="a", key="a")
    after = ServerTls(listen=("127.0.0.1:4",), cert="b", key="b")
    merged, (kept,) = merge(with_tls(before), with_tls(after))
    assert ("b", ("127.0.0.1:3",)) == (merged.server.tls.cert, merged.server.tls.listen)  # type: ignore[union-attr]
    assert "server.tls.listen" == kept.name
    for one, other in ((None, after), (before, None)):
        merged, (kept,) = merge(with_tls(one), with_tls(other))
        assert (one, "server.tls") == (merged.server.tls, kept.name)


def test_every_error_of_a_file_is_a_line(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("[server]\nworkers = -1\nlisten = 3\n")
    with pytest.raises(ConfigErrors) as caught:
        read_config(path)
    first, second = errors_in(caught.value)
    assert first.startswith(f"{path}: server.workers = -1")
    assert second.startswith(f"{path}: server.listen = 3")
    assert ["gone"] == errors_in(OSError("gone"))


def test_an_outcome_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "reload.json"
    assert Outcome.read(path) is None
    outcome = Outcome(pid=1, began_ns=2, is_successful=False, lines=["why"])
    outcome.write(path)
    assert outcome == Outcome.read(path)
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert [path] == list(tmp_path.iterdir())
