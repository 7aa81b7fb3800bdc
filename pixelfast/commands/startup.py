"""What every command that runs in the foreground does first, and how it is stopped."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import time

import structlog

from pixelfast.collect.certificates import load_certificate, warnings_about
from pixelfast.commands.demo import with_demo_source
from pixelfast.config import Config, Redactor
from pixelfast.deliver import register_destinations
from pixelfast.errors import SpoolError
from pixelfast.operate.logging import set_up_logging
from pixelfast.operate.signals import ignore_other_signals
from pixelfast.spool import DataDir, describe_trouble

__all__ = ["adopt", "check_certificate", "prepare", "stop_on_signals"]


def prepare(
    settings: Config, process: str = "", *, is_exclusive: bool = False
) -> tuple[Config, DataDir]:
    """Set up logging and the data directory; return what is to be run, and where.

    What is to be run is what `adopt` returns. `is_exclusive`: no other pixelfast may prepare the
    same data directory exclusively while this process runs.

    Blocks for the disk.

    Raises:
        SpoolError: the data directory can't be used, or another pixelfast has it exclusively.
    """
    set_up_logging(settings.log, process, Redactor(settings))
    data = DataDir.open(settings.data_dir)
    data.make_private()  # before the lock: strangers can't open its file from now on
    if is_exclusive:
        data.lock()
    return adopt(settings, data), data


def adopt(settings: Config, data: DataDir) -> Config:
    """Prepare the data directory for settings, and return what is to be run.

    The configuration returned has a source: the demo source if `settings` name none. All
    destinations are registered, so they receive every event stored from now on.

    Blocks for the disk.

    Raises:
        SpoolError: the data directory can't be used.
    """
    try:
        config = with_demo_source(settings, data.path)
        register_destinations(config, data)
    except OSError as error:
        raise SpoolError(f"data directory {describe_trouble(data.path, error)}") from error
    except sqlite3.Error as error:
        raise SpoolError(f"data directory {data.path}: SQLite: {error}") from error
    return config


def check_certificate(config: Config) -> None:
    """Fail if the files of `server.tls` cannot be used; log what an operator should change.

    Raises:
        ConfigError: naming the setting.
    """
    if config.server.tls is not None:
        certificate = load_certificate(config.server.tls)
        for warning in warnings_about(config.server.tls, certificate, time.time()):
            structlog.get_logger("supervisor").warning("tls_certificate", problem=warning)


def stop_on_signals() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set from now on; SIGHUP and the like are ignored."""
    ignore_other_signals("process")
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop
