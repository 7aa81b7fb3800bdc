"""Compute the machines, disks and networks that docs/scale.md lists for a rate of events.

`python -m benchmarks.scale` prints the table of that page. The figures that are measured are read
from its table of figures, so they stand in one place.
"""

from __future__ import annotations

import re
from math import ceil
from pathlib import Path
from typing import NamedTuple

from benchmarks.report import table

__all__ = ["PAGE", "RATES", "Figures", "Needs", "capacity", "needs", "read_figures"]

PAGE = Path(__file__).parents[1] / "docs/scale.md"
RATES = (10_000, 100_000, 1_000_000, 10_000_000)
BUSY_SHARE = 0.5  # of the cores, so that the load of a machine that fails fits into the others
CORES = 16  # of a machine
REPLICAS = 3
MIN_COLLECTORS = MIN_DELIVERERS = 2  # machines
RETENTION_S = 7 * 86_400
DISK_BYTES = 8e12  # of the events that a broker keeps
WRITE_BYTES_PER_S = 200e6  # to the disk of a broker
NETWORK_BITS_PER_S = 10e9 * 0.5  # of a broker, in one direction
PARTITIONS_PER_COLLECTOR = 2
_ROW = re.compile(r"^\| (?P<name>[^|]+) \| (?P<value>[0-9.,]+) \|", re.MULTILINE)


class Figures(NamedTuple):
    """What was measured: CPU time in µs, and bytes.

    Attributes:
        collector_us: of the collector for an event, until the brokers have it.
        deliverer_us: of delivery of an event to one HTTP destination.
        events: in a message.
        leader_us: of the broker that leads the partition, for a message.
        follower_us: of each of the others that replicate it.
        frame_bytes: of an event in the spool, and in the body that a destination receives.
        topic_bytes: of an event in the topic, compressed.
        request_bytes: of the request of a pixel, with its headers.
    """

    collector_us: float
    deliverer_us: float
    events: float
    leader_us: float
    follower_us: float
    frame_bytes: float
    topic_bytes: float
    request_bytes: float

    @property
    def brokers_us(self) -> float:
        """CPU time of all brokers together for an event."""
        return (self.leader_us + (REPLICAS - 1) * self.follower_us) / self.events


class Needs(NamedTuple):
    """What a rate needs.

    Attributes:
        collectors, brokers, deliverers: machines of `CORES` cores.
        brokers_for: the resource that determines the number of brokers.
        brokers_for_cpu: brokers that their CPU time alone would require.
        partitions: of the topic.
        written_bytes_per_s: to the disk of each broker.
        kept_bytes: on the disk of each broker.
        broker_bits_per_s: that each broker sends, which is more than it receives.
        pixel_bits_per_s: that all collectors together receive from clients.
        destination_bits_per_s: that all delivery processes together send to a destination.
    """

    collectors: int
    brokers: int
    brokers_for: str
    brokers_for_cpu: int
    deliverers: int
    partitions: int
    written_bytes_per_s: float
    kept_bytes: float
    broker_bits_per_s: float
    pixel_bits_per_s: float
    destination_bits_per_s: float


def read_figures(page: str) -> Figures:
    """Return the figures in the table of the page, by its rows in their order."""
    section = page.split("## Figures")[1].split("\n## ")[0]
    values = [float(row["value"].replace(",", "")) for row in _ROW.finditer(section)]
    return Figures(*values)


def needs(rate: float, figures: Figures) -> Needs:
    """Return what a rate of events per second needs, with one destination.

    >>> figures = Figures(10, 2, 100, 300, 150, 600, 100, 900)
    >>> found = needs(1_000_000, figures)
    >>> found.collectors, found.brokers, found.brokers_for, found.deliverers, found.partitions
    (2, 23, 'disk space', 2, 64)
    """
    stored = rate * figures.topic_bytes
    # A leader sends a copy to each follower, and one to delivery.
    sent_bits = 8 * stored * REPLICAS
    for_cpu = _machines(rate * figures.brokers_us)
    brokers, brokers_for = max(
        (REPLICAS, "replicas"),
        (for_cpu, "CPU time"),
        (ceil(stored * REPLICAS / WRITE_BYTES_PER_S), "disk writes"),
        (ceil(stored * REPLICAS * RETENTION_S / DISK_BYTES), "disk space"),
        (ceil(sent_bits / NETWORK_BITS_PER_S), "network"),
    )
    collectors = max(MIN_COLLECTORS, _machines(rate * figures.collector_us))
    return Needs(
        collectors=collectors,
        brokers=brokers,
        brokers_for=brokers_for,
        brokers_for_cpu=max(REPLICAS, for_cpu),
        deliverers=max(MIN_DELIVERERS, _machines(rate * figures.deliverer_us)),
        partitions=collectors * CORES * PARTITIONS_PER_COLLECTOR,
        written_bytes_per_s=stored * REPLICAS / brokers,
        kept_bytes=stored * REPLICAS * RETENTION_S / brokers,
        broker_bits_per_s=sent_bits / brokers,
        pixel_bits_per_s=8 * rate * figures.request_bytes,
        destination_bits_per_s=8 * rate * figures.frame_bytes,
    )


def _machines(cpu_us_per_s: float) -> int:
    """Return how many machines do this much work per second."""
    return ceil(cpu_us_per_s / 1e6 / (CORES * BUSY_SHARE))


def capacity(figures: Figures) -> str:
    """Return the table of what each rate needs."""
    columns = [needs(rate, figures) for rate in RATES]
    rows = [
        ("collectors", *(f"{each.collectors} machines" for each in columns)),
        ("brokers", *(f"{each.brokers} machines" for each in columns)),
        ("number of brokers set by", *(each.brokers_for for each in columns)),
        ("brokers for their CPU time alone", *(f"{each.brokers_for_cpu}" for each in columns)),
        ("delivery to a destination", *(f"{each.deliverers} machines" for each in columns)),
        ("partitions", *(f"{each.partitions:,}" for each in columns)),
        ("written by each broker", *(_bytes(each.written_bytes_per_s) + "/s" for each in columns)),
        ("disk of each broker, 7 days", *(_bytes(each.kept_bytes) for each in columns)),
        ("sent by each broker", *(_bits(each.broker_bits_per_s) for each in columns)),
        ("pixels from clients", *(_bits(each.pixel_bits_per_s) for each in columns)),
        ("events to a destination", *(_bits(each.destination_bits_per_s) for each in columns)),
    ]
    return table(("", *(f"{rate:,}/s" for rate in RATES)), rows)


def _bytes(value: float) -> str:
    return _scaled(value, ("B", "kB", "MB", "GB", "TB", "PB"))


def _bits(value: float) -> str:
    return _scaled(value, ("bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"))


def _scaled(value: float, units: tuple[str, ...]) -> str:
    """Format a number with two significant digits.

    >>> _bytes(1_234_567), _bytes(96), _bytes(45_600_000_000)
    ('1.2 MB', '96 B', '46 GB')
    """
    unit = 0
    while value >= 999.5 and unit < len(units) - 1:
        value /= 1000
        unit += 1
    digits = 1 if value < 9.95 else 0
    return f"{value:,.{digits}f} {units[unit]}"


if __name__ == "__main__":
    print(capacity(read_figures(PAGE.read_text("utf-8"))))
