"""The id of the cluster's topic, which a new topic of the same name does not share."""

from __future__ import annotations

import structlog

from pixelfast.config import Cluster
from pixelfast.kafka.admin import Admin

__all__ = ["TopicId"]

_RESPONSE_S = 10.0


class TopicId:
    """Looks up the id, over the same connections each time."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._admin: Admin | None = None

    def look_up(self) -> str:
        """Return the id. Blocks.

        Raises:
            KafkaException: the brokers do not respond, or have no such topic.
        """
        from confluent_kafka import TopicCollection

        cluster = self._cluster
        if self._admin is None:
            self._admin = Admin(cluster, structlog.get_logger("deliver"))
        # The request must not time out before `wait`, which knows why no broker responds.
        topics = TopicCollection([cluster.topic])
        found = self._admin.client.describe_topics(topics, request_timeout=2 * _RESPONSE_S)
        return str(self._admin.wait(found[cluster.topic], _RESPONSE_S).topic_id)
