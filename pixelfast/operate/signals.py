"""Signals that other programs send, and that end no process of pixelfast."""

from __future__ import annotations

import asyncio
import signal

import structlog

__all__ = ["OTHER_SIGNALS", "ignore_other_signals"]

# Their default action ends a process.
OTHER_SIGNALS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def ignore_other_signals(log_name: str) -> None:
    """Log these signals and do nothing else; for the process that runs the current event loop."""
    log = structlog.get_logger(log_name)

    def on_signal(number: signal.Signals) -> None:
        log.warning("signal_ignored", signal=number.name)

    for each in OTHER_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(each, on_signal, each)
