"""What a reload can change, and its outcome."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from pixelfast.config import Config, mask
from pixelfast.config.schema import unwrap
from pixelfast.errors import ConfigErrors, PixelfastError
from pixelfast.spool.modes import PRIVATE_FILE

__all__ = [
    "RELOAD_OUTCOME",
    "UPGRADE_OUTCOME",
    "KeptSetting",
    "Outcome",
    "ReloadState",
    "SettingsFile",
    "errors_in",
    "log_reloaded",
    "merge",
    "read_changes",
]

RELOAD_OUTCOME = "reload.json"  # in the data directory
UPGRADE_OUTCOME = "upgrade.json"

# By section, the settings that running processes can change; all others require a restart.
_CHANGEABLE: dict[str, frozenset[str]] = {
    "": frozenset({"sources", "destinations"}),
    "deliver": frozenset({"max_memory"}),
    "server": frozenset(
        {
            "trusted_proxies",
            "always_200",
            "health_path",
            "max_connections",
            "max_memory",
            "header_timeout_s",
            "idle_timeout_s",
            "drain_timeout_s",
            "lame_duck_s",
            "hung_after_s",
        }
    ),
    "server.tls": frozenset({"cert", "key"}),
    "log": frozenset({"level", "rejections", "addresses"}),
}


class SettingsFile(msgspec.Struct, frozen=True):
    """The source of the settings.

    Attributes:
        path: the file; None if there are only the options of the command line.
        read: reads the file and applies the options of the command line; raises ConfigError.
        failure: the errors of the file when an upgraded program first read it.
    """

    path: str | None
    read: Callable[[], Config]
    failure: list[str] = []


class KeptSetting(msgspec.Struct, frozen=True):
    """A changed setting that requires a restart."""

    name: str
    running: Any
    wanted: Any
    can_upgrade: bool = True

    @property
    def remedy(self) -> str:
        is_upgradable = self.can_upgrade and self.name != "data_dir"
        return "a restart or `pixelfast upgrade`" if is_upgradable else "a restart"

    def __str__(self) -> str:
        running, wanted = _shown(self.running), _shown(self.wanted)
        return f"{self.name} is still {running}; {wanted} requires {self.remedy}"


def merge(running: Config, wanted: Config) -> tuple[Config, list[KeptSetting]]:
    """Return `wanted` without the changes that require a restart, and a list of these changes.

    >>> from pixelfast.config import Server
    >>> one, other = Server(workers=1), Server(workers=2, always_200=True)
    >>> merged, (kept,) = merge(Config(server=one), Config(server=other))
    >>> merged.server.workers, merged.server.always_200, str(kept)
    (1, True, 'server.workers is still 1; 2 requires a restart or `pixelfast upgrade`')
    """
    if os.path.realpath(running.data_dir) == os.path.realpath(wanted.data_dir):
        # An upgrade makes the running path absolute.
        wanted = msgspec.structs.replace(wanted, data_dir=running.data_dir)
    kept: list[KeptSetting] = []
    return _merge("", running, wanted, kept), kept


async def read_changes(
    file: SettingsFile,
    adopt: Callable[[Config], Config],
    running: Config,
    log: Any,
    *,
    can_upgrade: bool = True,
) -> tuple[Config | None, list[str], list[str]]:
    """Read the settings file again; return the settings to apply, and what they do not change.

    If there are problems, which are logged, return None and the problems as the last value.
    """
    if file.path is None:
        problems = [
            "the server was started without --config, so there is no settings file to reload"
        ]
        log.warning("reload_rejected", problem=problems[0])
        return None, [], problems
    try:
        wanted = await asyncio.to_thread(lambda: adopt(file.read()))
    except (PixelfastError, OSError) as error:
        problems = errors_in(error)
        for problem in problems:
            log.error("reload_rejected", problem=problem)
        return None, [], problems
    config, changes = merge(running, wanted)
    kept = [msgspec.structs.replace(each, can_upgrade=can_upgrade) for each in changes]
    for each in kept:
        log.warning(
            "setting_not_reloaded",
            setting=each.name,
            running=each.running,
            wanted=each.wanted,
            requires=each.remedy,
        )
    return config, [str(each) for each in kept], []


def log_reloaded(log: Any, config: Config, kept: list[str]) -> None:
    """Log that settings are applied, except for those that are kept."""
    log.info(
        "reload_completed",
        sources=len(config.sources),
        destinations=len(config.destinations),
        not_reloaded=len(kept),
    )


def _merge(section: str, running: Any, wanted: Any, kept: list[KeptSetting]) -> Any:
    """Merge a section; `section` is its name."""
    changeable = _CHANGEABLE.get(section, frozenset())
    as_before = {}
    for name in wanted.__struct_fields__:
        before, after = getattr(running, name), getattr(wanted, name)
        dotted = f"{section}.{name}" if section else name
        if before == after or name in changeable:
            continue
        if isinstance(before, msgspec.Struct) and isinstance(after, msgspec.Struct):
            as_before[name] = _merge(dotted, before, after, kept)
        else:
            kept.append(KeptSetting(dotted, *(_visible(wanted, name, v) for v in (before, after))))
            as_before[name] = before
    return msgspec.structs.replace(wanted, **as_before)


def _visible(section: Any, name: str, value: Any) -> Any:
    """Return the value of a setting for messages, without secrets."""
    if isinstance(value, msgspec.Struct):
        return "set"
    annotation = next(f.type for f in msgspec.structs.fields(type(section)) if f.name == name)
    is_secret = unwrap(annotation)[1].get("secret", False)
    return mask(value) if is_secret and value else value


def errors_in(error: Exception) -> list[str]:
    """Return the errors of a settings file, one line each."""
    if isinstance(error, ConfigErrors):
        return [
            str(each) if each.key == error.path else f"{error.path}: {each}"
            for each in error.problems
        ]
    return [str(error)]


def _shown(value: object) -> str:
    return msgspec.json.encode(value).decode()


class ReloadState(msgspec.Struct, kw_only=True):
    """The state of reloads for `/health/ready` and metrics. A start counts as a reload."""

    is_successful: bool = True
    succeeded_at_s: float = msgspec.field(default_factory=time.time)
    problems: list[str] = []
    needs_restart: list[str] = []

    def conclude(self, problems: list[str]) -> None:
        """Record the outcome of a reload."""
        self.is_successful, self.problems = not problems, problems
        if not problems:
            self.succeeded_at_s = time.time()


class Outcome(msgspec.Struct, kw_only=True):
    """The outcome of a reload or an upgrade, for the command that waits for it.

    `began_ns` is a time of the monotonic clock, which all processes of a machine share. `lines` are
    printed for the operator.
    """

    pid: int
    began_ns: int
    is_successful: bool
    lines: list[str] = []

    def write(self, path: Path) -> None:
        """Write the outcome to a file, without a sync, because its only reader is waiting."""
        temporary = path.with_name(f"{path.name}.{os.getpid()}")
        temporary.touch(PRIVATE_FILE)
        temporary.write_bytes(msgspec.json.encode(self) + b"\n")
        temporary.replace(path)

    @classmethod
    def read(cls, path: Path) -> Outcome | None:
        """Return the last outcome, or None if there is none."""
        with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
            return msgspec.json.decode(path.read_bytes(), type=cls)
        return None
