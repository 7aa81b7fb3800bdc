"""Faults of brokers, collectors and delivery processes under load, on three real brokers.

The counts are those of the clients and of the destinations, over all machines.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.deliver.products.real.kafka_broker import KafkaBroker, KafkaCluster
from tests.reliability.cluster.oracle import OTHER
from tests.reliability.cluster.site import PARTITIONS, Site

__all__ = ["COLUMNS", "MAX_RESPONSE_S", "Drill", "Phase"]

COLUMNS = (
    *("done under load", "times", "requests", "200", "503", "no response"),
    *("lost", "delivered twice", "dead letters"),
    *("slowest 200 s", "replicated after s", "other destination delayed s"),
)
MAX_RESPONSE_S = 2.0
_EVENTS_BETWEEN = 50  # acknowledged with 200 before the next fault
_QUIET_S = 5.0
_FROZEN_S = 20.0
_OUTAGE_S = 60.0
_KILLS = 10
_PATIENCE_S = _REPLICATED_S = 300.0


@dataclass
class Phase:
    """The counts while one fault happened `rounds` times.

    Attributes:
        unanswered: requests that were sent to a process which died.
        slowest_s: the longest time until a 200.
        replicated_s: the longest time from the end of a fault until everything that was stored
            then was replicated. A broker that was killed stays away.
        delayed_s: the longest time from the receipt of an event to its delivery to the destination
            whose delivery process has no fault.
        max_response_s, max_replicated_s, max_delayed_s: the limits of these times.
        may_reject: whether 503 is a response that is expected.
    """

    name: str
    rounds: int = 0
    requests: int = 0
    acked: int = 0
    rejected: int = 0
    unanswered: int = 0
    lost: int = 0
    twice: int = 0
    dead: int = 0
    slowest_s: float = 0.0
    replicated_s: float = 0.0
    delayed_s: float = 0.0
    max_response_s: float = MAX_RESPONSE_S
    max_replicated_s: float = 15.0
    max_delayed_s: float = 60.0
    may_reject: bool = False
    is_changed: bool = False

    def problems(self) -> list[str]:
        """Return what did not hold."""
        times = (
            ("slowest 200", self.slowest_s, self.max_response_s),
            ("replicated after", self.replicated_s, self.max_replicated_s),
            ("other destination delayed", self.delayed_s, self.max_delayed_s),
        )
        found = [
            f"{name} {s:.1f} s, more than {limit:g} s" for name, s, limit in times if s > limit
        ]
        if self.lost:
            found.append(f"{self.lost} events are lost")
        if self.is_changed:
            found.append("events were changed or invented")
        if self.rejected and not self.may_reject:
            found.append(f"{self.rejected} pixels were rejected")
        return found

    def cells(self) -> list[str]:
        """Return the cells of its row in the table."""
        counts = [self.requests, self.acked, self.rejected, self.unanswered]
        counts += [self.lost, self.twice, self.dead]
        times = [self.slowest_s, self.replicated_s, self.delayed_s]
        return [
            self.name,
            str(self.rounds or ""),
            *(f"{each:,}" for each in counts),
            *(f"{each:.1f}" if each else "" for each in times),
        ]


class Drill:
    """All faults, on three brokers.

    Args:
        folder: an empty folder.
        brokers: three brokers that run.
        share: the share of the full times and counts.
    """

    def __init__(self, folder: Path, brokers: KafkaCluster, share: float) -> None:
        self._folder = folder
        self._cluster = brokers
        self._brokers = brokers.brokers
        self._share = share
        self._before = (0, 0, 0)
        self._replicated_s = 0.0

    def _times(self, full: int) -> int:
        return max(1, round(full * self._share))

    def _seconds(self, full: float) -> float:
        return max(10.0, full * self._share)

    # --- sites -------------------------------------------------------------------------------

    def _site(self, name: str, **options: Any) -> Site:
        self._cluster.start()
        self._before = (0, 0, 0)
        return Site(self._folder / name, self._brokers, **options)

    def spooling(self) -> Iterator[Phase]:
        """With `when_unavailable = "spool"`, no fault of a broker reaches a client."""
        with self._site("spool") as site:
            phase = self._phase(site, "nothing", 1, lambda _: time.sleep(_QUIET_S))
            phase.rounds = 0
            yield phase
            yield self._phase(site, "kill -9 of each broker in turn", 3, self._kill_broker(site))
            yield self._phase(site, "SIGSTOP of a broker", 1, self._freeze([0], site))
            yield self._phase(site, "SIGSTOP of all brokers", 1, self._freeze([0, 1, 2], site))
            phase = self._phase(
                site, "kill -9 of all brokers and of the collectors", 1, self._kill_all(site)
            )
            phase.max_replicated_s = 60.0
            phase.max_delayed_s = self._seconds(_OUTAGE_S) + 120.0
            yield phase
            yield self._phase(site, "rolling restart of the brokers", 1, self._roll(site))
            yield self._phase(
                site, "kill -9 of a delivery process", self._times(3), self._kill(site)
            )
            phase = self._phase(
                site, "SIGSTOP of a delivery process while another joins", 1, self._join(site)
            )
            phase.max_delayed_s = 5.0
            yield phase
            yield self._phase(site, "partitions added", 1, self._grow(site))

    def leading(self) -> Iterator[Phase]:
        """All partitions lose their leader at the same time."""
        with self._site("led", is_led_by_first=True) as site:
            leaders = {leader for leader, _ in site.partitions().values()}
            assert len(leaders) == 1, leaders
            name = "kill -9 of the broker that leads every partition"
            yield self._phase(site, name, 1, self._kill_broker(site))

    def rejecting(self) -> Iterator[Phase]:
        """With `when_unavailable = "reject"`, the brokers have every event with a 200."""
        with self._site("reject", when_unavailable="reject") as site:
            name = "kill -9 of a collector, and its data deleted"
            phase = self._phase(site, name, self._times(_KILLS), self._lose(site))
            phase.may_reject = True  # a new collector rejects pixels until it has connected
            yield phase
            phase = self._phase(
                site, 'kill -9 of all brokers, when_unavailable = "reject"', 1, self._kill_all(site)
            )
            phase.may_reject = True
            phase.max_response_s = 60.0
            phase.max_delayed_s = self._seconds(_OUTAGE_S) + 120.0
            yield phase

    def recreating(self) -> Iterator[Phase]:
        """Events that are stored after the topic was deleted are in the new one."""
        with self._site("recreated") as site:
            phase = self._phase(
                site, "topic deleted and created again", 1, self._recreate(site), is_quiet=True
            )
            phase.max_replicated_s = phase.max_delayed_s = 60.0
            yield phase

    # --- faults ------------------------------------------------------------------------------

    def _kill_broker(self, site: Site) -> Callable[[int], None]:
        def kill(number: int) -> None:
            self._brokers[number].kill()
            site.oracle.until_acked(_EVENTS_BETWEEN, _PATIENCE_S)
            self._until_replicated(site)
            self._restart([self._brokers[number]], site)

        return kill

    def _freeze(self, numbers: list[int], site: Site) -> Callable[[int], None]:
        def freeze(_: int) -> None:
            for number in numbers:
                self._brokers[number].freeze()
            time.sleep(_FROZEN_S)
            for number in numbers:
                self._brokers[number].thaw()
            self._until_replicated(site)
            site.until_in_sync()

        return freeze

    def _kill_all(self, site: Site) -> Callable[[int], None]:
        def kill(_: int) -> None:
            for each in self._brokers:
                each.kill()
            pause_s = self._seconds(_OUTAGE_S) / (len(site.collectors) + 1)
            time.sleep(pause_s)
            for collector in site.collectors:
                collector.kill()
                collector.start()
                site.aim()
                time.sleep(pause_s)
            self._restart(self._brokers)
            self._until_replicated(site)
            site.until_in_sync()

        return kill

    def _roll(self, site: Site) -> Callable[[int], None]:
        def roll(_: int) -> None:
            for each in self._brokers:
                each.stop()
                site.oracle.until_acked(_EVENTS_BETWEEN, _PATIENCE_S)
                self._restart([each], site)
            self._until_replicated(site)

        return roll

    def _kill(self, site: Site) -> Callable[[int], None]:
        def kill(number: int) -> None:
            deliverer = site.deliverers[number % len(site.deliverers)]
            deliverer.kill()
            site.oracle.until_acked(_EVENTS_BETWEEN, _PATIENCE_S)
            deliverer.start()

        return kill

    def _join(self, site: Site) -> Callable[[int], None]:
        def join(_: int) -> None:
            frozen = site.deliverers[0]
            frozen.freeze()
            site.add_deliverer()
            time.sleep(self._seconds(_OUTAGE_S))
            frozen.thaw()
            site.oracle.until_acked(_EVENTS_BETWEEN, _PATIENCE_S)

        return join

    def _grow(self, site: Site) -> Callable[[int], None]:
        def grow(_: int) -> None:
            site.add_partitions(2 * PARTITIONS)
            site.oracle.until_acked(_EVENTS_BETWEEN, _PATIENCE_S)
            for each in site.collectors:  # the next segments use the new partitions
                each.kill()
                each.start()
                site.aim()
            site.oracle.until_acked(20 * _EVENTS_BETWEEN, _PATIENCE_S)
            self._until_replicated(site)

        return grow

    def _lose(self, site: Site) -> Callable[[int], None]:
        def lose(_: int) -> None:
            lost = site.collectors.pop(0)
            lost.lose()
            site.add_collector()

        return lose

    def _recreate(self, site: Site) -> Callable[[int], None]:
        def recreate(_: int) -> None:
            site.delete_topic()
            site.oracle.resume()
            site.oracle.until_acked(10 * _EVENTS_BETWEEN, _PATIENCE_S)
            site.create_topic()
            self._until_replicated(site)

        return recreate

    def _restart(self, brokers: list[KafkaBroker], site: Site | None = None) -> None:
        for each in brokers:
            each.launch()
        for each in brokers:
            each.start()
        if site is not None:
            site.until_in_sync()

    def _until_replicated(self, site: Site) -> None:
        self._replicated_s = max(self._replicated_s, site.until_replicated(_REPLICATED_S))

    # --- counting ----------------------------------------------------------------------------

    def _phase(
        self,
        site: Site,
        name: str,
        rounds: int,
        do: Callable[[int], None],
        *,
        is_quiet: bool = False,
    ) -> Phase:
        """Do something `rounds` times under load; return the counts.

        If it `is_quiet`, everything is delivered before, and `do` resumes the load.
        """
        oracle, pixels = site.oracle, site.oracle.pixels
        oracle.resume()
        oracle.until_acked(_EVENTS_BETWEEN, _PATIENCE_S)
        if is_quiet:
            site.judge()
        oracle.pause()
        sent, acked = oracle.sent, oracle.acked
        pixels.rejected.clear()
        del pixels.seconds[:]
        oracle.longest_s[OTHER] = self._replicated_s = 0.0
        if not is_quiet:
            oracle.resume()
        for number in range(rounds):
            do(number)
            oracle.until_acked(_EVENTS_BETWEEN, _PATIENCE_S)
        verdict, dead = site.judge()
        if not verdict.missing and not is_quiet:  # a new topic has new figures
            site.check_sums()
        lost, twice, dead_before = self._before
        self._before = verdict.missing, verdict.twice, dead
        requests, got = oracle.sent - sent, oracle.acked - acked
        return Phase(
            name,
            rounds,
            requests=requests,
            acked=got,
            rejected=oracle.refused,
            unanswered=requests - got - oracle.refused,
            lost=verdict.missing - lost,
            twice=verdict.twice - twice,
            dead=dead - dead_before,
            slowest_s=max(pixels.seconds),
            replicated_s=self._replicated_s,
            delayed_s=oracle.longest_s[OTHER],
            is_changed=bool(verdict.changed or verdict.invented),
        )
