"""The machines of a cluster, by their names, in the consumer group `pixelfast.nodes`.

Each server, and each process without a supervisor, is a member of the group. A node name is for
people; events are recognized by the random node id of the data directory. The group shows which
machines are alive, and finds two mistakes: a name that two machines have, and two live copies of a
data directory, of which each makes delivery drop events of the other.

A member ignores its partitions and reads no message. Its machine works without the group.
"""

from __future__ import annotations

import contextlib
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import structlog

from pixelfast.config import NODES_GROUP, Cluster
from pixelfast.kafka.admin import Admin
from pixelfast.kafka.connection import Properties, connection_properties, consumer_options
from pixelfast.kafka.errors import error_message, reason_of
from pixelfast.kafka.logger import SilentLogger

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError, TopicPartition

__all__ = ["Node", "live_namesake", "member_properties", "members_of", "membership"]

_SESSION_S = 10.0  # after which the brokers remove a member that was killed
_RESPONSE_S = 3.0  # of the brokers, before a start continues without them
_AGAIN_S = 1.0  # between two looks at a name that is in use
_MAX_WAIT_S = 60.0  # for a machine of the same name to leave
_POLL_S = 0.2  # also the longest time until a stop is noticed
_LEAVE_S = 2.0  # for which a stop waits for the brokers
_REJOIN_S = 60.0  # after another process has taken the place of this one
_MAX_PAUSE_S = 60.0  # between two failed announcements, which begin with `_AGAIN_S`
_CLIENT_ID = re.compile(r"pixelfast/([^/]+)/([^/]+)/([^/]+)")
_DENIED = frozenset({"GROUP_AUTHORIZATION_FAILED", "TOPIC_AUTHORIZATION_FAILED"})
_FATAL = "_FATAL"  # the code of all fatal errors; only their text contains the cause
_REPLACED = "group.instance.id"  # in the text, if another member has the same instance id


class Node(NamedTuple):
    """A member of the group.

    Attributes:
        topic: the topic of its cluster; several clusters can share their brokers.
        name: the node name.
        node: the node id of its data directory, in hexadecimal digits.
        host: its address, as the brokers see it.
    """

    topic: str
    name: str
    node: str
    host: str = ""

    @property
    def client_id(self) -> str:
        """The client id, which names the machine in the tools of Kafka.

        >>> Node("pixelfast-events", "web-1", "00ff").client_id
        'pixelfast/pixelfast-events/web-1/00ff'
        """
        return f"pixelfast/{self.topic}/{self.name}/{self.node}"

    @classmethod
    def parse(cls, client_id: str, host: str) -> Node | None:
        """Return the member with this client id; None if it is another program.

        >>> Node.parse("pixelfast/events/web-1/00ff", "/192.0.2.7")
        Node(topic='events', name='web-1', node='00ff', host='192.0.2.7')
        >>> Node.parse("rdkafka", "/192.0.2.7") is None
        True
        """
        match = _CLIENT_ID.fullmatch(client_id)
        return match and cls(match[1], match[2], match[3], host.removeprefix("/"))

    def excludes(self, other: Node) -> bool:
        """Whether two machines of a cluster have the same name."""
        return self[:2] == other[:2] and self.node != other.node


def member_properties(settings: Cluster, own: Node, writer: str = "") -> Properties:
    """Return the properties of a member's consumer.

    A consumer with the instance id of a live one takes its place.
    """
    instance: Properties = {"group.instance.id": f"{own.node}.{writer}"} if writer else {}
    return {
        "session.timeout.ms": int(_SESSION_S * 1000),
        **connection_properties(settings),
        **consumer_options(settings),
        **instance,
        "client.id": own.client_id,
        "group.id": NODES_GROUP,
        "enable.auto.commit": False,
        "statistics.interval.ms": 0,
    }


def members_of(settings: Cluster, timeout_s: float = _RESPONSE_S) -> list[Node]:
    """Return the live members of the group, also those of other clusters. Blocks.

    Raises:
        KafkaException: the brokers do not respond within `timeout_s`, or deny it; or none of them
            accepts a connection.
    """
    admin = Admin(settings, structlog.get_logger("cluster"))
    found = admin.client.describe_consumer_groups([NODES_GROUP], request_timeout=2 * timeout_s)
    described = admin.wait(found[NODES_GROUP], timeout_s, is_patient=False)
    nodes = (Node.parse(each.client_id, each.host) for each in described.members)
    return [each for each in nodes if each is not None]


def live_namesake(settings: Cluster, node: bytes) -> Node | None:
    """Return another live machine that has the name of this one, if there is one. Blocks.

    Only a name that the settings give is checked, because host names are not always unique. A
    machine that was killed counts as live for `session.timeout.ms` (10 s), for which this function
    waits, but not longer than a minute. If the brokers do not respond, the name is not checked.
    """
    if not settings.node:
        return None
    log = structlog.get_logger("cluster")
    own = Node(settings.topic, settings.node, node.hex())
    session_ms = str(settings.options.get("session.timeout.ms", ""))
    session_s = min(int(session_ms) / 1000 if session_ms.isdecimal() else _SESSION_S, _MAX_WAIT_S)
    until_s = time.monotonic() + session_s + _RESPONSE_S
    is_waiting = False
    while True:
        try:
            others = [each for each in members_of(settings) if own.excludes(each)]
        except Exception as error:  # noqa: BLE001 - the machine works without the group
            log.warning("node_name_not_checked", node=own.name, error=reason_of(error))
            return None
        if not others:
            return None
        if time.monotonic() >= until_s:
            return others[0]
        if not is_waiting:
            log.warning("node_name_waits", node=own.name, host=others[0].host, seconds=session_s)
            is_waiting = True
        time.sleep(_AGAIN_S)  # nothing runs yet, and a signal ends the process


@contextlib.contextmanager
def membership(settings: Cluster, node: bytes, writer: str) -> Iterator[Callable[[], None]]:
    """Yield a function that joins the group, and leave it at the end.

    A process joins when it owns what it writes. Otherwise, one that still waits for the lock of
    another process would take the place of that one. `writer` is the name of the process that
    writes events with this node id; it is empty if it only delivers. A second process with the same
    node id and writer takes the place of the first one, which then logs that its data directory was
    copied.
    """
    member = _Member(settings, node, writer)
    thread = threading.Thread(target=member.run, name="nodes", daemon=True)
    try:
        yield thread.start
    finally:
        member.is_stopping.set()
        if thread.is_alive():
            # The signal handlers are gone; a second signal must not end the process before its end.
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            thread.join(_LEAVE_S)


class _Member:
    """A member of the group, which runs in a thread of its own.

    It does not log lost connections: the processes that need the brokers do.
    """

    def __init__(self, settings: Cluster, node: bytes, writer: str) -> None:
        self.is_stopping = threading.Event()
        self._settings = settings
        self._own = Node(settings.topic, settings.node_name, node.hex())
        self._writer = writer
        self._log = structlog.get_logger("cluster")
        self._has_joined = False
        self._announce_s = 0.0  # when to announce it; never again after it succeeded
        self._pause_s = _AGAIN_S  # after the next one that fails
        self._logged = ""

    def run(self) -> None:
        """Join the group, and stay a member until `is_stopping`."""
        # They are for the main thread, which can block them.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while not self.is_stopping.is_set():
            try:
                self._stay()
            except Exception as error:  # noqa: BLE001 - the machine works without the group
                self._warn(reason_of(error))
            self.is_stopping.wait(_REJOIN_S)

    def _stay(self) -> None:
        """Join, and return when the machine stops or another process takes its place."""
        from confluent_kafka import Consumer

        properties = member_properties(self._settings, self._own, self._writer)
        consumer = Consumer(properties, logger=SilentLogger())
        self._has_joined = False
        try:
            consumer.subscribe([self._own.topic], on_assign=self._on_assign)
            while not self.is_stopping.is_set():
                message = consumer.poll(_POLL_S)
                error = message.error() if message is not None else None
                if error is not None and error.name() == _FATAL:
                    self._on_end(error)
                    return
                if error is not None:
                    self._note(error)
                if self._has_joined and time.monotonic() >= self._announce_s:
                    self._announce()
        finally:
            consumer.close()

    def _on_assign(self, consumer: Consumer, _: list[TopicPartition]) -> None:
        consumer.assign([])
        self._has_joined = True

    def _on_end(self, error: KafkaError) -> None:
        """Log why the consumer has failed for good."""
        own = self._own
        if _REPLACED in error.str():
            self._log.error("data_dir_copied", node=own.name, node_id=own.node)
        else:
            self._warn(error_message(error))

    def _announce(self) -> None:
        """Log which machines are alive; blocks."""
        from confluent_kafka import KafkaException

        try:
            nodes = members_of(self._settings)
        except KafkaException as error:
            self._note(error.args[0])
            self._announce_s = time.monotonic() + self._pause_s
            self._pause_s = min(2 * self._pause_s, _MAX_PAUSE_S)
            return
        own = self._own
        self._announce_s = float("inf")
        others = sorted({each.name for each in nodes if each.topic == own.topic} - {own.name})
        self._log.info("node_joined", node=own.name, node_id=own.node, others=others)
        for each in nodes:
            if own.excludes(each):
                self._log.warning("node_name_in_use", node=own.name, host=each.host)
                break

    def _note(self, error: KafkaError) -> None:
        """Log that the user may not join; other errors pass."""
        if error.name() in _DENIED:
            self._warn(error_message(error))

    def _warn(self, reason: str) -> None:
        if reason != self._logged:
            self._logged = reason
            self._log.warning("node_not_joined", node=self._own.name, error=reason)
