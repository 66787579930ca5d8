"""`dragoman serve --stream mqtt://...` with mosquitto and a client of its own: answers, poison, restarts of the broker, kills of the server."""

import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests import brokers
from tests.brokers import Listener, Record
from tests.e2e.plain import Plain, until
from tests.e2e.running import Running, serving
from tests.e2e.streamed import POISON, all_answered, asked, is_answer, written


class Setting:
    """A server that reads one topic and whatever comes to topics that are paths."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.topic, self.out, self.errors = (brokers.fresh() for _ in range(3))
        self.target = written(folder)
        where = f"mqtt://{brokers.mosquitto().address}"
        self.streams = (
            f"{where}/{self.topic}?out={self.out}&errors={self.errors}",
            f"{where}/{self.topic}/v2/models/%2B/infer?out={self.out}",
        )

    def serve(self) -> AbstractContextManager[Running]:
        streams = [word for stream in self.streams for word in ("--stream", stream)]
        return serving(self.folder / "data", self.target, "--engine", "local", *streams)


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return Setting(tmp_path_factory.mktemp("mqtt"))


@pytest.fixture(scope="module")
def server(setting: Setting) -> Iterator[Running]:
    with setting.serve() as running:
        ready(running)
        yield running


def ready(running: Running) -> None:
    """Both sessions are there: before that nobody keeps messages for a server that is new."""

    def connected() -> bool:
        rows = Plain(running.port).get("/dragoman/v1/streams").json()["streams"]
        return [row["state"] for row in rows] == ["running", "running"]

    until(connected, what="the streams")


def test_a_message_of_another_client_becomes_a_prediction(setting: Setting, server: Running) -> None:
    """mosquitto_rr asks and prints the answer: the id is the client's."""
    where = ["-h", "127.0.0.1", "-p", str(brokers.mosquitto().port), "-q", "1", "-W", "60"]
    asking = ["mosquitto_rr", *where, "-t", setting.topic, "-e", brokers.fresh(), "-m", json.dumps(asked(21))]
    printed = subprocess.run(asking, check=True, timeout=90, capture_output=True).stdout
    assert is_answer(Record(printed), 21)
    assert server.process.poll() is None


def test_a_client_of_mqtt_5_gets_its_answer_where_it_wants_it(setting: Setting, server: Running) -> None:
    """Response topic, correlation data and user properties; nothing goes to the output then."""
    reply = brokers.fresh()
    with brokers.mosquitto().listen(reply, setting.out) as listener:
        brokers.mosquitto().send(setting.topic, asked(4), response_topic=reply, correlation=b"\x07", headers={"trace": "t1"})
        record = listener.next()
    assert (record.topic, record.correlation, record.headers) == (reply, b"\x07", {"trace": "t1"})
    assert is_answer(record, 4)
    assert server.process.poll() is None


def test_a_topic_may_name_the_model(setting: Setting, server: Running) -> None:
    """A topic that ends like a path of MLRun's is read as one."""
    with brokers.mosquitto().listen(setting.out) as listener:
        brokers.mosquitto().send(f"{setting.topic}/v2/models/m/infer", {"id": 5, "model": "m", "inputs": [5]})
        assert is_answer(listener.next(), 5)
    assert server.process.poll() is None


def test_poison_is_reported_and_stops_nothing(setting: Setting, server: Running) -> None:
    """Each bad message becomes an error that says why; the good ones between them are answered."""
    with brokers.mosquitto().listen(setting.out) as answers, brokers.mosquitto().listen(setting.errors) as errors:
        for number, (message, _) in enumerate(POISON):
            brokers.mosquitto().send(setting.topic, message, asked(number))
        told = [record.json for record in errors.take(len(POISON))]
        all_answered(range(len(POISON)), list_of(answers))
    for document in told:
        assert document["status"] >= 400
    for _, word in POISON:
        assert any(word in document["error"] for document in told), (word, told)
    assert {document["id"] for document in told if document["id"]} >= {"p-no-inputs", "p-fails"}
    assert server.process.poll() is None


def list_of(listener: Listener) -> "Receiving":
    return Receiving(listener)


class Receiving:
    """All that a listener has got so far."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._records: list[Record] = []

    def __call__(self) -> list[Record]:
        self._records += self._listener.there()
        return self._records


def test_a_broker_that_restarts_is_found_again(setting: Setting, server: Running) -> None:
    """What was sent before, and what is sent after, is answered."""
    broker = brokers.mosquitto()
    for number in range(100, 110):
        broker.send(setting.topic, asked(number))
    broker.restart()
    with broker.listen(setting.out) as answers:
        broker.send(setting.topic, *(asked(number) for number in range(110, 120)))
        all_answered(range(110, 120), list_of(answers))
    assert server.process.poll() is None


def test_killed_again_and_again_it_loses_nothing(tmp_path: Path) -> None:
    """Messages come all the time while the server is killed and started: each is answered, some twice."""
    setting, broker = Setting(tmp_path), brokers.mosquitto()
    numbers = range(400)
    sender = threading.Thread(target=broker.send, args=(setting.topic, *(asked(number) for number in numbers)))
    with broker.listen(setting.out) as answers:
        everything = list_of(answers)
        for enough in (10, 60):
            with setting.serve() as running:
                ready(running)
                if enough == 10:
                    sender.start()
                until(lambda: len(everything()) >= enough, what="some answers")  # noqa: B023 # called at once
                running.process.send_signal(signal.SIGKILL)
                running.process.wait()
        sender.join()
        with setting.serve() as running:
            all_answered(numbers, everything)
            assert running.terminate() == 0
