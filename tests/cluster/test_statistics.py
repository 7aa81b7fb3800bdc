"""Figures of the brokers from the statistics of librdkafka."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from pixelfast.kafka.statistics import Statistics


def report(retries: int, **more: Any) -> str:
    broker = {"nodeid": 1, "nodename": "kafka-1:9092", "txretries": retries, **more}
    return json.dumps({"name": "pixelfast#1", "brokers": {"kafka-1:9092/1": broker}})


def test_retries_are_counted_across_clients() -> None:
    counted: Counter[str] = Counter()
    statistics = Statistics(lambda broker, retries: counted.update({broker: retries}))
    for retries in (2, 5, 5, 1, 4):  # the fourth report is that of a new client
        statistics.read(report(retries))
    assert {"kafka-1:9092": 9} == dict(counted)
    statistics.forget()
    statistics.read(report(4))
    assert {"kafka-1:9092": 13} == dict(counted)


def test_the_figures_of_a_broker_are_those_of_the_last_report() -> None:
    statistics = Statistics(lambda *_: None)
    assert {} == statistics.brokers()
    statistics.read(report(0, rtt={"avg": 1500}, outbuf_msg_cnt=2, waitresp_msg_cnt=3))
    statistics.read(report(0, rtt={"avg": 0}, outbuf_msg_cnt=1))
    assert {"kafka-1:9092": {"queued_messages": 1, "round_trip_s": 0.0015}} == (
        statistics.brokers()
    )
    statistics.forget()
    assert {} == statistics.brokers()
