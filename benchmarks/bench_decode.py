"""What does one event cost from its query to its JSON?"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from statistics import median

from benchmarks.corpus import DOCUMENTED, targets
from benchmarks.machine import print_head
from benchmarks.report import Section, spread, table
from benchmarks.wrk import SERVER_CORE
from pixelfast.event import Decoder, Rules, encode_event, route_of

__all__ = ["run"]

METHOD = """\
On one core, without HTTP: the documented track URL, and the 1,000 pixels of the load in turn.
Microseconds of process CPU time a call, the call of the measuring function itself taken off.
Medians of 9 rounds of 100,000 calls; in brackets the least and the most."""

ROUNDS = 9
CALLS = 100_000
NOW_MS = 1_795_342_530_123


def run() -> Section:
    """Measure and print; the figures are microseconds, round by round, by step."""
    print_head(__doc__ or "", METHOD)
    os.sched_setaffinity(0, {SERVER_CORE})
    decoder, rules = Decoder(), Rules()
    _, documented = route_of(DOCUMENTED.encode())
    corpus = [route_of(target.encode())[1] for target in targets("wk-demo")]
    place = 0

    def split() -> None:
        decoder.split(documented)

    def decode() -> None:
        decoder.split(documented)
        decoder.decode(rules, True)

    def whole() -> None:
        decoder.split(documented)
        encode_event(decoder.decode(rules, True), NOW_MS, "203.0.113.7", None, None)

    def whole_corpus() -> None:
        nonlocal place
        place = (place + 1) % len(corpus)
        decoder.split(corpus[place])
        encode_event(decoder.decode(rules, True), NOW_MS, "203.0.113.7", None, None)

    steps: dict[str, Callable[[], None]] = {
        "find the parameters": split,
        "+ decode into the nested event": decode,
        "+ stamp and encode: the whole": whole,
        "the whole, 1,000 different URLs": whole_corpus,
    }
    empty = median(_round(lambda: None) for _ in range(ROUNDS))
    times = {name: [_round(step) - empty for _ in range(ROUNDS)] for name, step in steps.items()}
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    text = table(("step", "µs an event"), [(name, spread(own)) for name, own in times.items()])
    print(text)
    return Section(text, times)


def _round(step: Callable[[], None]) -> float:
    before = time.process_time()
    for _ in range(CALLS):
        step()
    return (time.process_time() - before) * 1e6 / CALLS


if __name__ == "__main__":
    run()
