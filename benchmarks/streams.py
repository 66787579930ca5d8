"""Streams: messages per second and delay of iris through real Kafka and MQTT brokers, and what kills of the consumer lose or repeat.

Broker, server, producer and reader share this machine. Producer and reader are other people's clients (librdkafka, paho), in threads here.
The delay of a message is from before it is sent until its answer is read.
"""

import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty

import confluent_kafka
import orjson
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.models import Models
from benchmarks.options import Options
from benchmarks.processes import BenchmarkError, Processes, environment, free_port
from benchmarks.results import Section, Table, Target
from benchmarks.traffic import IRIS_ROWS
from tests import brokers
from tests.brokers import Kafka, Mosquitto, fresh

_KAFKA_RATES = (500, 2000, 3000)
_MQTT_RATES = (500, 1000, 2000)
_PARTITIONS = 4
_KILLS = 10
_READY_S = 90.0
_LATE_S = 120.0
_QUIET_S = 5.0


def run(models: Models, options: Options) -> Section:
    section = Section("streams", "streams: iris through Kafka and MQTT, one worker, at least once")
    try:
        _rates(brokers.kafka(), models, options, section)
        _mqtt(brokers.mosquitto(), models, options, section)
        _kills(brokers.kafka(), models, section)
    finally:
        brokers.end()
    return section


@dataclass(slots=True)
class Ledger:
    """When each message was sent, and when its answers came. Written by two threads, each its own part."""

    sent: dict[str, float] = field(default_factory=dict)
    answers: Counter[str] = field(default_factory=Counter)
    delays_s: list[float] = field(default_factory=list)

    def answered(self, value: bytes) -> None:
        document = orjson.loads(value)
        if "outputs" not in document:
            raise BenchmarkError(f"a message was answered {value[:200]!r}")
        name = document["id"]
        self.answers[name] += 1
        if self.answers[name] == 1:
            self.delays_s.append(time.perf_counter() - self.sent[name])

    @property
    def lost(self) -> int:
        return len(self.sent.keys() - self.answers.keys())

    @property
    def repeated(self) -> int:
        return sum(count - 1 for count in self.answers.values())

    def percentile_ms(self, share: float) -> float:
        ordered = sorted(self.delays_s)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1e3


def _message(name: str, index: int) -> bytes:
    return orjson.dumps({"id": name, "inputs": [list(IRIS_ROWS[index % len(IRIS_ROWS)])]})


def _sent(ledger: Ledger, rate: int, seconds: float, send: Callable[[str, bytes], None]) -> float:
    """Send at a constant rate; how many seconds that really took."""
    begin = time.perf_counter()
    for index in range(int(rate * seconds)):
        late = begin + index / rate - time.perf_counter()
        if late > 0.001:
            time.sleep(late)
        name = f"{index}"
        ledger.sent[name] = time.perf_counter()
        send(name, _message(name, index))
    return time.perf_counter() - begin


def _all_answered(ledger: Ledger) -> None:
    deadline = time.monotonic() + _LATE_S
    while ledger.lost and time.monotonic() < deadline:
        time.sleep(0.05)


def _until_quiet(ledger: Ledger) -> None:
    """All is answered, and nothing has come for a while: not even what was answered twice."""
    _all_answered(ledger)
    seen = -1
    while seen != (seen := ledger.answers.total()):
        time.sleep(_QUIET_S)


# --- the server ---


@contextmanager
def _serving(models: Models, stream: str) -> Iterator[Processes]:
    with _started(models, stream, Path(tempfile.mkdtemp(dir=models.folder))) as processes:
        yield processes


@contextmanager
def _started(models: Models, stream: str, data: Path) -> Iterator[Processes]:
    port = free_port()
    command = [sys.executable, "-m", "dragoman", "serve", str(models.iris), "--port", str(port), "--stream", stream]
    with Processes(command, environment({"XDG_DATA_HOME": str(data)}), models.folder / "streams.log") as processes:
        processes.wait_until(lambda: processes.listens(port), _READY_S, "Dragoman")
        yield processes


# --- Kafka ---


@contextmanager
def _reading(kafka: Kafka, topic: str, ledger: Ledger) -> Iterator[None]:
    """Reads the answers meanwhile."""
    stop = threading.Event()
    settings = {"bootstrap.servers": kafka.address, "group.id": fresh("bench"), "enable.auto.commit": False, "fetch.wait.max.ms": 5}
    settings["auto.offset.reset"] = "error"  # the usual one jumps to what the broker says is the end, which may be before it
    consumer = confluent_kafka.Consumer(settings)
    consumer.assign([confluent_kafka.TopicPartition(topic, each, 0) for each in range(_PARTITIONS)])
    failures: list[BaseException] = []

    def read() -> None:
        try:
            while not stop.is_set():
                for message in consumer.consume(500, timeout=0.01):
                    error = message.error()
                    if error is None:
                        ledger.answered(message.value() or b"")
                    elif error.code() == confluent_kafka.KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001 # its public name has the underscore
                        raise BenchmarkError(f"the reader of the answers lost its place: {error}")
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        consumer.close()
    if failures:
        raise failures[0]


def _producing(kafka: Kafka, topic: str) -> tuple[Callable[[str, bytes], None], Callable[[], object]]:
    producer = confluent_kafka.Producer({"bootstrap.servers": kafka.address, "linger.ms": 2, "acks": "all"})

    def send(name: str, value: bytes) -> None:
        producer.produce(topic, value, key=name)
        producer.poll(0)

    return send, lambda: producer.flush(60)


def _rates(kafka: Kafka, models: Models, options: Options, section: Section) -> None:
    rows = []
    sustained = 0.0
    for rate in (*_KAFKA_RATES, 0):
        inward, outward = kafka.topic(_PARTITIONS), kafka.topic(_PARTITIONS)
        with _serving(models, f"kafka://{kafka.address}/{inward}?out={outward}&group={fresh('g')}") as processes:
            ledger = Ledger()
            send, flush = _producing(kafka, inward)
            with _reading(kafka, outward, ledger):
                _warm(ledger, send, flush)
                before, begin = processes.cpu_s(), time.perf_counter()
                _sent(ledger, rate or 1_000_000, options.seconds if rate else 0.02, send)
                flush()
                _all_answered(ledger)
                took = time.perf_counter() - begin
                cpu_us = (processes.cpu_s() - before) / len(ledger.delays_s) * 1e6
        if ledger.lost:
            raise BenchmarkError(f"{ledger.lost} messages were not answered")
        done = len(ledger.delays_s) / took
        sustained = max(sustained, done)
        rows.append(_row(str(rate) if rate else f"{len(ledger.sent):,} at once", done, ledger, cpu_us))
    section.parts.append(Table(("Kafka: messages/s sent", "answered/s", "delay p50 ms", "p99 ms", "repeated", "CPU us a message"), rows))
    section.targets.append(Target("Kafka: at least 2,000 messages/s, at least once", f"{sustained:,.0f}/s", sustained >= 2000))


def _row(sent: str, done: float, ledger: Ledger, cpu_us: float) -> list[str]:
    row = [
        sent,
        f"{done:,.0f}",
        f"{ledger.percentile_ms(0.5):.1f}",
        f"{ledger.percentile_ms(0.99):.1f}",
        str(ledger.repeated),
        f"{cpu_us:.0f}",
    ]
    print(f"  {row}", flush=True)
    return row


def _warm(ledger: Ledger, send: Callable[[str, bytes], None], flush: Callable[[], object]) -> None:
    """Until the first messages come through: joining a group takes seconds. These do not count."""
    for index in range(8):
        name = f"warm-{index}"
        ledger.sent[name] = time.perf_counter()
        send(name, _message(name, index))
    flush()
    _all_answered(ledger)
    if ledger.lost:
        raise BenchmarkError("nothing comes through")
    for part in (ledger.sent, ledger.answers, ledger.delays_s):
        part.clear()


# --- MQTT ---


@contextmanager
def _publisher(mosquitto: Mosquitto) -> Iterator[paho.Client]:
    client = paho.Client(CallbackAPIVersion.VERSION2, fresh("bench"), protocol=paho.MQTTv5)
    client.connect("127.0.0.1", mosquitto.port)
    client.loop_start()
    try:
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


def _mqtt(mosquitto: Mosquitto, models: Models, options: Options, section: Section) -> None:
    rows = []
    for rate in _MQTT_RATES:
        inward, outward = fresh("in"), fresh("out")
        with _serving(models, f"mqtt://{mosquitto.address}/{inward}?out={outward}&group={fresh('g')}") as processes:
            ledger = Ledger()
            with mosquitto.listen(outward) as reader, _publisher(mosquitto) as writer:
                stop = threading.Event()

                def read(reader: brokers.Listener = reader, ledger: Ledger = ledger, stop: threading.Event = stop) -> None:
                    while not stop.is_set():
                        with suppress(Empty):
                            ledger.answered(reader.next(0.05).value)

                def send(_name: str, value: bytes, writer: paho.Client = writer, inward: str = inward) -> None:
                    writer.publish(inward, value, 1)

                thread = threading.Thread(target=read)
                thread.start()
                try:
                    _warm(ledger, send, lambda: None)
                    before, begin = processes.cpu_s(), time.perf_counter()
                    _sent(ledger, rate, options.seconds, send)
                    _all_answered(ledger)
                    took = time.perf_counter() - begin
                    cpu_us = (processes.cpu_s() - before) / max(1, len(ledger.delays_s)) * 1e6
                finally:
                    stop.set()
                    thread.join()
        if ledger.lost:
            raise BenchmarkError(f"{ledger.lost} messages were not answered")
        rows.append(_row(str(rate), len(ledger.delays_s) / took, ledger, cpu_us))
    section.parts.append(
        Table(("MQTT, QoS 1: messages/s sent", "answered/s", "delay p50 ms", "p99 ms", "repeated", "CPU us a message"), rows)
    )


# --- kills ---


def _kills(kafka: Kafka, models: Models, section: Section) -> None:
    """A steady stream of messages while the server is killed again and again, each time as messages come through."""
    inward, outward = kafka.topic(_PARTITIONS), kafka.topic(_PARTITIONS)
    stream = f"kafka://{kafka.address}/{inward}?out={outward}&group={fresh('g')}&session_timeout=6"
    data = Path(tempfile.mkdtemp(dir=models.folder))
    ledger = Ledger()
    send, flush = _producing(kafka, inward)
    stop = threading.Event()

    def produce() -> None:
        index = 0
        while not stop.is_set():
            name = f"{index}"
            ledger.sent[name] = time.perf_counter()
            send(name, _message(name, index))
            index += 1
            time.sleep(0.004)
        flush()

    producer = threading.Thread(target=produce)
    begin = time.perf_counter()
    with _reading(kafka, outward, ledger):
        producer.start()
        try:
            for number in range(_KILLS):
                with _started(models, stream, data) as processes:
                    seen = len(ledger.answers)
                    _until(lambda seen=seen: len(ledger.answers) > seen + 100)  # type: ignore[misc] # a lambda has no types
                    os.kill(processes.pid, signal.SIGKILL)
                print(f"  kill {number + 1}: {len(ledger.answers)} answered, {ledger.repeated} repeated", flush=True)
        finally:
            stop.set()
            producer.join()
        with _started(models, stream, data):
            _until_quiet(ledger)
    took = time.perf_counter() - begin
    section.parts.append(
        f"- {_KILLS} kills (SIGKILL) of the consumer in {took:.0f} s under 250 messages/s: {len(ledger.sent):,} sent, {ledger.lost} lost,"
        f" {ledger.repeated} repeated"
    )
    section.targets.append(Target(f"{_KILLS} kills of the consumer: nothing lost", f"{ledger.lost} lost", not ledger.lost))


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _LATE_S
    while not true():
        if time.monotonic() > deadline:
            raise BenchmarkError("nothing comes through any more")
        time.sleep(0.02)
