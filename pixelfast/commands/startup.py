"""Starts and stops the commands that run in the foreground."""

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
from pixelfast.deliver.cluster.starts import note_starts
from pixelfast.errors import SpoolError
from pixelfast.operate.logging import set_up_logging
from pixelfast.operate.signals import ignore_other_signals
from pixelfast.spool import DataDir, describe_trouble

__all__ = ["adopt", "check_certificate", "prepare", "stop_on_signals"]


def prepare(
    settings: Config, process: str = "", *, is_exclusive: bool = False
) -> tuple[Config, DataDir]:
    """Set up logging and the data directory; return the settings to run with, and the directory.

    With `is_exclusive`, no other server can use the data directory while this process runs. The
    call blocks on the disk.

    Raises:
        SpoolError: the data directory cannot be used, or another server uses it.
    """
    set_up_logging(settings.log, process, Redactor(settings))
    data = DataDir.open(settings.data_dir)
    data.make_private()  # before the lock, so that other users cannot open its file
    if is_exclusive:
        data.lock()
    return adopt(settings, data), data


def adopt(settings: Config, data: DataDir) -> Config:
    """Prepare the data directory for settings, and return the settings to run with.

    They include the demo source if `settings` has no source. All destinations are registered, so
    that they receive every event that is stored from now on. The call blocks on the disk.

    Raises:
        SpoolError: the data directory cannot be used.
    """
    try:
        config = with_demo_source(settings, data.path)
        if config.cluster is None:
            register_destinations(config, data)
        else:
            note_starts(config, data)
    except OSError as error:
        raise SpoolError(f"data directory {describe_trouble(data.path, error)}") from error
    except sqlite3.Error as error:
        raise SpoolError(f"data directory {data.path}: SQLite: {error}") from error
    return config


def check_certificate(config: Config) -> None:
    """Check the files of `server.tls`, and log warnings about them.

    Raises:
        ConfigError: a file cannot be used.
    """
    if config.server.tls is not None:
        certificate = load_certificate(config.server.tls)
        for warning in warnings_about(config.server.tls, certificate, time.time()):
            structlog.get_logger("supervisor").warning("tls_certificate_warning", problem=warning)


def stop_on_signals() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set; ignore SIGHUP, SIGUSR1 and SIGUSR2."""
    ignore_other_signals("process")
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop
