"""A Kafka broker on loopback, from jars that Maven downloads."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import trustme
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from tests.deliver.products.real.maven import class_path
from tests.deliver.products.real.processes import Absent
from tests.messages import QUIET
from tests.waiting import wait_until

__all__ = [
    "PASSWORD",
    "USER",
    "VERSION",
    "KafkaBroker",
    "KafkaCluster",
    "kafka_jars",
    "why_no_broker",
]

VERSION = "4.4.0"
USER, PASSWORD = "pixelfast", "s3cr3t-of-scram"
_DEPENDENCIES = [
    ("org.apache.kafka", "kafka_2.13", VERSION),
    ("org.apache.kafka", "kafka-tools", VERSION),
    ("org.slf4j", "slf4j-simple", "1.7.36"),
]
_OPTIONS = [
    *("-Xms256m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
]
_START_S = 120.0
_SETTINGS = """\
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{plain},CONTROLLER://127.0.0.1:{controller},\
SASL_SSL://127.0.0.1:{sasl}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL
log.dirs={folder}/data
num.partitions=4
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=4194304
broker.heartbeat.interval.ms=300
broker.session.timeout.ms=1500
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.type=PEM
ssl.keystore.location={folder}/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location={folder}/ca.pem
listener.name.sasl_ssl.ssl.client.auth=required
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
"""
# As in production: a broker that is killed is noticed after 9 s.
_OF_THREE = """\
offsets.topic.replication.factor=3
default.replication.factor=3
min.insync.replicas=2
broker.heartbeat.interval.ms=2000
broker.session.timeout.ms=9000
"""
_API_VERSIONS = struct.pack(">ihhih", 10, 18, 0, 1, -1)


def kafka_jars() -> str:
    """Return the class path of a broker.

    Raises:
        Absent: it cannot be resolved here.
    """
    return class_path(f"kafka-{VERSION}", _DEPENDENCIES)


def why_no_broker() -> str:
    """Return why no broker can be started here, or "" if one can."""
    try:
        kafka_jars()
    except Absent as why:
        return str(why)
    return ""


class KafkaBroker:
    """A broker that is its own controller. It ends with the process that started it.

    Everyone may do everything at `address`. At `sasl_address`, over TLS, only `USER` with
    `PASSWORD` and a client certificate can connect, and may write to no topic until an ACL allows
    it.

    Attributes:
        controller_address: the address for controllers, to which no producer can send.
        ca: the file with the certificate authority of `sasl_address`.
        client_cert, client_key: the files of a client certificate.
    """

    def __init__(
        self,
        folder: Path,
        *,
        node: int = 1,
        controllers: Mapping[int, int] | None = None,
        settings: str = "",
    ) -> None:
        """Prepare the folder of a broker.

        `controllers` are the ports of the controllers of all nodes, if there are several; later
        lines of `settings` replace earlier ones.

        Raises:
            Absent: it cannot be started here.
        """
        if shutil.which("setpriv") is None:
            raise Absent("setpriv is not installed")
        self._jars = kafka_jars()
        self._folder = folder
        self._node = node
        self._process: subprocess.Popen[bytes] | None = None
        self._ports = dict(zip(("plain", "controller", "sasl"), _free_ports(3), strict=True))
        controllers = controllers or {node: self._ports["controller"]}
        self._ports["controller"] = controllers[node]
        self.address = f"127.0.0.1:{self._ports['plain']}"
        self.sasl_address = f"127.0.0.1:{self._ports['sasl']}"
        self.controller_address = f"127.0.0.1:{self._ports['controller']}"
        self.ca = str(folder / "ca.pem")
        self.client_cert, self.client_key = str(folder / "client.pem"), str(folder / "client.key")
        self._issue()
        voters = ",".join(f"{each}@127.0.0.1:{port}" for each, port in controllers.items())
        common = _SETTINGS.format(folder=folder, node=node, voters=voters, **self._ports)
        (folder / "server.properties").write_text(common + settings)
        storage = ["format", "-t", "AAAAAAAAAAAAAAAAAAAAAQ", "-c", "server.properties"]
        scram = ["--add-scram", f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"]
        done = subprocess.run(
            [*self._java("kafka.tools.StorageTool"), *storage, *scram],
            cwd=folder,
            capture_output=True,
            check=False,
            timeout=_START_S,
        )
        assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start the broker, unless it is running, and wait until it responds."""
        self.launch()
        wait_until(self.responds, "the broker responds", _START_S)

    def launch(self) -> None:
        """Start the broker, unless it is running. It ends with the thread that calls this."""
        if self._process is not None and self._process.poll() is None:
            return
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "KILL"),
                    *self._java("kafka.Kafka"),
                    "server.properties",
                ],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def responds(self) -> bool:
        """Whether a launched broker responds to all requests; fail if it has ended."""
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError((self._folder / "log").read_text()[-2000:])
        try:
            with socket.create_connection(("127.0.0.1", self._ports["plain"]), 1.0) as peer:
                peer.sendall(_API_VERSIONS)
                if len(peer.recv(8)) < 8:
                    return False
        except OSError:
            return False
        return self._serves()

    def _serves(self) -> bool:
        """Whether the controllers let the broker lead partitions, soon after it responds."""
        client = AdminClient({"bootstrap.servers": self.address}, logger=QUIET)
        try:
            return self._node in client.list_topics(timeout=1.0).brokers
        except KafkaException:
            return False

    @property
    def pid(self) -> int:
        """The id of the process of a started broker."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """Kill the broker with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """Stop the broker as an operator does: it hands over its partitions first."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(_START_S)

    def freeze(self) -> None:
        """Stop the broker with SIGSTOP, so that connections stay open."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue a frozen broker."""
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGCONT)

    def _java(self, main: str) -> list[str]:
        return ["java", *_OPTIONS, "-cp", self._jars, main]

    def _issue(self) -> None:
        """Write the certificates; the broker reads its key in one format only."""
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.ca)
        issued = authority.issue_cert("127.0.0.1")
        key = load_pem_private_key(issued.private_key_pem.bytes(), None)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        chain = b"".join(each.bytes() for each in issued.cert_chain_pems)
        (self._folder / "broker.pem").write_bytes(pem + chain)
        client = authority.issue_cert("pixelfast@example.com")
        client.private_key_pem.write_to_path(self.client_key)
        client.cert_chain_pems[0].write_to_path(self.client_cert)


class KafkaCluster:
    """Three brokers, which are also the controllers, with two in-sync replicas at least.

    Attributes:
        brokers: the brokers, of which node N is the one at N - 1.
    """

    def __init__(self, folder: Path) -> None:
        """Prepare the folders of the brokers.

        Raises:
            Absent: they cannot be started here.
        """
        controllers = dict(enumerate(_free_ports(3), 1))
        self.brokers = []
        for node in controllers:
            own = folder / f"node-{node}"
            own.mkdir()
            self.brokers.append(
                KafkaBroker(own, node=node, controllers=controllers, settings=_OF_THREE)
            )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in self.brokers:
            each.kill()

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(each.address for each in self.brokers)

    def start(self) -> None:
        """Start the brokers that do not run, and wait until all respond."""
        for each in self.brokers:
            each.thaw()
            each.launch()
        for each in self.brokers:
            each.start()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        places = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [place.getsockname()[1] for place in places]
