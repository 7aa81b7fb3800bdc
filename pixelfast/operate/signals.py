"""Signals that must not end a process of pixelfast."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterable

import structlog

__all__ = ["OTHER_SIGNALS", "hold_signals", "ignore_other_signals", "release_signals"]

# The default action of these signals ends the process.
OTHER_SIGNALS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def ignore_other_signals(log_name: str, signals: Iterable[signal.Signals] = OTHER_SIGNALS) -> None:
    """Log these signals and do nothing else, in the process of the running event loop."""
    log = structlog.get_logger(log_name)

    def on_signal(number: signal.Signals) -> None:
        log.warning("signal_ignored", signal=number.name)

    for each in signals:
        asyncio.get_running_loop().add_signal_handler(each, on_signal, each)


def hold_signals(signals: Iterable[signal.Signals] = OTHER_SIGNALS) -> None:
    """Block signals until `release_signals`, because they have no handlers yet."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)


def release_signals() -> None:
    """Unblock signals; to be called before starting a process, which would inherit the mask."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
