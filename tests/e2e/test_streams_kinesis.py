"""`dragoman serve --stream kinesis://...` with moto: answers, poison, kills of the server, a service that is away."""

import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests import brokers
from tests.e2e.plain import Plain, until
from tests.e2e.running import Running, serving
from tests.e2e.streamed import POISON, all_answered, asked, written


class Setting:
    """A server that reads one stream of two shards."""

    def __init__(self, folder: Path) -> None:
        broker = brokers.kinesis()
        self.folder = folder
        self.stream, self.out, self.errors = broker.stream(2), broker.stream(2), broker.stream()
        self.target = written(folder)
        self.address = (
            f"kinesis://{self.stream}?out={self.out}&errors={self.errors}&endpoint={broker.url}&region={brokers.REGION}&poll=0.05"
        )

    def serve(self) -> AbstractContextManager[Running]:
        return serving(self.folder / "data", self.target, "--engine", "local", "--stream", self.address, extra=brokers.KEYS)


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return Setting(tmp_path_factory.mktemp("kinesis"))


@pytest.fixture(scope="module")
def server(setting: Setting) -> Iterator[Running]:
    with setting.serve() as running:
        yield running


def test_a_record_becomes_a_prediction(setting: Setting, server: Running) -> None:
    """Whatever its shard; the answer has the id and the partition key of its request, and keeps the order of the key."""
    broker = brokers.kinesis()
    for key in "abc":
        broker.send(setting.stream, *(asked(number) for number in range(10)), key=key)
    records = broker.received(setting.out, 30)
    for key in "abc":
        assert [record.json["outputs"] for record in records if record.key == key] == [[2 * number] for number in range(10)]
    assert server.process.poll() is None


def test_poison_is_reported_and_stops_nothing(setting: Setting, server: Running) -> None:
    """Each bad record becomes an error that says why, on the stream for errors; the good ones between them are answered."""
    broker = brokers.kinesis()
    poison = [(message, word) for message, word in POISON if message]  # there are no empty records
    for number, (message, _) in enumerate(poison):
        broker.send(setting.stream, message, asked(1000 + number))
    told = [record.json for record in broker.received(setting.errors, len(poison))]
    all_answered([1000 + number for number in range(len(poison))], lambda: broker.received(setting.out, 1))
    for _, word in poison:
        assert any(word in document["error"] for document in told), (word, told)
    assert server.process.poll() is None


def test_its_state_is_shown(setting: Setting, server: Running) -> None:
    """Counts and lanes, without the endpoint's options."""

    def shown() -> bool:
        (row,) = Plain(server.port).get("/dragoman/v1/streams").json()["streams"]
        return row["state"] == "running" and len(row["lag"]) == 2

    until(shown, what="its row")


def test_killed_it_loses_nothing_and_stopped_it_repeats_nothing(tmp_path: Path) -> None:
    """Its places are in its data directory: after a kill each record is answered, after a stop in good order none a second time."""
    setting, broker = Setting(tmp_path), brokers.kinesis()
    numbers = range(300)
    with setting.serve() as running:
        for key in range(10):
            broker.send(setting.stream, *(asked(number) for number in numbers if number % 10 == key), key=str(key))
        broker.received(setting.out, 25)
        running.process.send_signal(signal.SIGKILL)
        running.process.wait()
    with setting.serve() as running:
        before = len(all_answered(numbers, lambda: broker.received(setting.out, 1)))
        assert running.terminate() == 0
    with setting.serve():
        broker.send(setting.stream, asked(10**6))
        all_answered([10**6], lambda: broker.received(setting.out, 1))
    assert len(broker.received(setting.out, 1)) == before + 1


def test_a_service_that_is_away_is_waited_for(setting: Setting, server: Running) -> None:
    """It hangs for a while and goes on."""
    broker = brokers.kinesis()
    broker.freeze()
    try:
        assert Plain(server.port).get("/v2/health/live").status == 200
    finally:
        broker.thaw()
    broker.send(setting.stream, asked(5000))
    all_answered([5000], lambda: broker.received(setting.out, 1))
