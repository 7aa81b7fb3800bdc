"""Topics of a Kafka broker, read by a plain consumer."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from confluent_kafka import TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined] # it has no __all__
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewPartitions,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from tests.messages import QUIET, Message, read_messages

__all__ = ["Topics"]

_BOUND_S = 30.0


class Topics:
    """Create, delete and read topics of a broker."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._admin = AdminClient(
            {"bootstrap.servers": address, "reconnect.backoff.max.ms": 500}, logger=QUIET
        )

    def close(self) -> None:
        """Close all connections."""
        del self._admin

    def create(self, name: str, partitions: int = 2, **settings: str) -> str:
        """Create a topic and return its name; `_` in names of settings stands for a dot.

        Messages have the time of their events, which can be older than the broker's retention.
        """
        settings = {"retention_ms": "-1", **settings}
        config = {setting.replace("_", "."): value for setting, value in settings.items()}
        topic = NewTopic(name, num_partitions=partitions, replication_factor=1, config=config)
        for future in self._admin.create_topics([topic], request_timeout=_BOUND_S).values():
            future.result(_BOUND_S)
        return name

    def extend(self, name: str, partitions: int) -> None:
        """Add partitions to a topic, which then has so many."""
        for future in self._admin.create_partitions([NewPartitions(name, partitions)]).values():
            future.result(_BOUND_S)

    def delete_before(self, name: str, partition: int, offset: int) -> None:
        """Delete the messages of a partition before an offset, as retention does."""
        place = TopicPartition(name, partition, offset)
        for future in self._admin.delete_records([place]).values():
            future.result(_BOUND_S)

    def delete(self, name: str) -> None:
        for future in self._admin.delete_topics([name]).values():
            future.result(_BOUND_S)

    def exists(self, name: str) -> bool:
        """Whether there is a topic of this name."""
        return name in self._admin.list_topics(timeout=_BOUND_S).topics

    def allow(
        self, user: str, name: str, *operations: str, kind: str = "topic", is_prefix: bool = False
    ) -> None:
        """Allow a user to write to a topic, or other operations on a topic or group."""
        form = ResourcePatternType.PREFIXED if is_prefix else ResourcePatternType.LITERAL
        rules = [
            AclBinding(
                ResourceType[kind.upper()],
                name,
                form,
                f"User:{user}",
                "*",
                AclOperation[operation],
                AclPermissionType.ALLOW,
            )
            for operation in operations or ("WRITE",)
        ]
        for future in self._admin.create_acls(rules).values():
            future.result(_BOUND_S)

    def set_password(self, user: str, password: str) -> None:
        """Create a user with a password for SCRAM-SHA-512."""
        form = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        change = UserScramCredentialUpsertion(user, form, password.encode())
        for future in self._admin.alter_user_scram_credentials([change]).values():
            future.result(_BOUND_S)

    def read(self, name: str) -> list[Message]:
        """Return all messages of a topic, by partition and in order."""
        return read_messages(self._address, name)

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the events in all messages of a topic, one or several in each."""
        return [json.loads(line) for each in self.read(name) for line in each.value.splitlines()]

    def counts(self, name: str, field: str = "messageId") -> Counter[str]:
        """Return how often each event of a topic is stored."""
        return Counter(each[field] for each in self.events(name))
