"""The producer of frames."""

from __future__ import annotations

import asyncio
import socket

import pytest

from pixelfast.cluster.producer import FrameProducer, TopicUnusable
from pixelfast.config import Cluster
from tests.deliver.running import run


def test_the_error_of_a_connection_says_why_the_topic_was_not_found() -> None:
    errors: list[str] = []

    async def main() -> None:
        looking_up = asyncio.create_task(asyncio.to_thread(producer.look_up_partitions))
        while not looking_up.done():
            producer.poll()
            await asyncio.sleep(0.01)
        await looking_up

    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    producer = FrameProducer(
        Cluster(brokers=(f"127.0.0.1:{port}",)),
        *(1_000_000, errors.append, errors.append),
        topic_timeout_s=1.0,
    )
    try:
        with pytest.raises(TopicUnusable, match="Connection refused"):
            run(main())
    finally:
        producer.close()
