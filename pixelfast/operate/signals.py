"""Signals that other programs send, and that end no process of pixelfast."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterable

import structlog

__all__ = ["OTHER_SIGNALS", "hold_signals", "ignore_other_signals", "release_signals"]

# Their default action ends a process.
OTHER_SIGNALS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def ignore_other_signals(log_name: str, signals: Iterable[signal.Signals] = OTHER_SIGNALS) -> None:
    """Log these signals and do nothing else; for the process that runs the current event loop."""
    log = structlog.get_logger(log_name)

    def on_signal(number: signal.Signals) -> None:
        log.warning("signal_ignored", signal=number.name)

    for each in signals:
        asyncio.get_running_loop().add_signal_handler(each, on_signal, each)


def hold_signals(signals: Iterable[signal.Signals] = OTHER_SIGNALS) -> None:
    """Have signals that come before there are handlers for them wait until `release_signals`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)


def release_signals() -> None:
    """Let signals through; to be called before another process is started, which inherits this."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
