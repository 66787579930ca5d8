"""The real server on a real Kafka: messages in, predictions out, poison among them, kills, rebalances, a broker that is gone for a while."""

import itertools
import json
import re
import signal
import subprocess
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests import brokers
from tests.brokers import Kafka, Record, eventually, fresh
from tests.e2e.running import Running, command, environment, serving
from tests.models import build
from tests.ports import free_port
from tests.tcp_line import Line

FLOWER = [5.1, 3.5, 1.4, 0.2]
CLASSES = """\
import os
import time

from mlrun.serving import V2ModelServer


class Echo(V2ModelServer):
    def load(self):
        time.sleep(self.get_param("load_s", 0))

    def predict(self, request):
        first = request["inputs"][0]
        if first == "fail":
            raise ValueError("cannot read this")
        if first == "die":
            os._exit(3)
        return request["inputs"]
"""


def requests(numbers: Sequence[int], **more: Any) -> list[dict[str, Any]]:
    return [{"id": number, "inputs": [FLOWER], **more} for number in numbers]


def answers(records: Sequence[Record]) -> dict[Any, dict[str, Any]]:
    return {record.json["id"]: record.json for record in records}


def rows(server: Running) -> list[dict[str, Any]]:
    with urllib.request.urlopen(server.url + "/dragoman/v1/streams", timeout=30) as answer:
        found: list[dict[str, Any]] = json.load(answer)["streams"]
    return found


@pytest.fixture(scope="module")
def kafka() -> Kafka:
    return brokers.kafka()


@pytest.fixture
def kafka_alone(tmp_path: Path) -> Iterator[Kafka]:
    """One that can be restarted without taking others' topics along."""
    broker = Kafka(tmp_path)
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(scope="module")
def iris(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build.iris(tmp_path_factory.mktemp("iris") / "iris.onnx")


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("echo") / "echo.py"
    path.write_text(CLASSES)
    return path


class Fed:
    """A server that reads `source` and writes `out`; its models are iris and echo."""

    def __init__(self, kafka: Kafka, server: Running, source: str, out: str, group: str) -> None:
        self.kafka = kafka
        self.server = server
        self.source = source
        self.out = out
        self.group = group
        self.sent = 0

    def asked(self, *messages: Any, **options: Any) -> None:
        self.kafka.send(self.source, *messages, **options)
        self.sent += len(messages)


@pytest.fixture(scope="module")
def fed(kafka: Kafka, iris: Path, echo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fed]:
    source, out, group = kafka.topic(2), kafka.topic(2), fresh("group")
    address = f"kafka://{kafka.address}/{source}?out={out}&group={group}"
    with serving(tmp_path_factory.mktemp("data"), f"iris={iris}", f"echo={echo}", "--stream", address) as server:
        yield Fed(kafka, server, source, out, group)


def from_(kafka: Kafka, topic: str, ids: Iterable[Any]) -> dict[Any, dict[str, Any]]:
    """The answers to these, when all of them are there; others may be among them, and some of them twice."""
    wanted, found = set(ids), kafka.received(topic, 1)
    while not wanted <= answers(found).keys():
        found = kafka.received(topic, len(found) + 1)
    return {each: document for each, document in answers(found).items() if each in wanted}


def test_messages_become_predictions(fed: Fed) -> None:
    """M18, M19: each message names its model or gets the first one; the id, the key and the headers come back."""
    fed.asked({"id": "plain", "inputs": [FLOWER]}, key="k", headers={"trace": "7"})
    fed.asked(
        {"id": "named", "model": "echo", "inputs": [1, "two"]}, {"id": 3, "model": "iris", "operation": "predict", "inputs": [FLOWER]}
    )
    found = from_(fed.kafka, fed.out, ["plain", "named", 3])
    assert found["plain"]["model_name"] == "iris"
    assert found["plain"]["outputs"][0]["label"] == [0]
    assert (found["named"]["model_name"], found["named"]["outputs"]) == ("echo", [1, "two"])
    assert found[3]["outputs"] == found["plain"]["outputs"]
    (record,) = [each for each in fed.kafka.received(fed.out, 3) if each.json["id"] == "plain"]
    assert (record.key, record.headers) == ("k", {"trace": "7"})


def test_poison_stops_nothing(fed: Fed) -> None:
    """M20: whatever is wrong with a message, even one that ends the model's process, its error is written and the next one answered."""
    poison: list[Any] = [
        b"", b"no json", b"\xff\xfe", b"[1]", b'"text"', b"9" * 5000, b"[" * 100_000,
        {"id": "unknown", "model": "nobody", "inputs": [1]},
        {"id": "version", "model": "iris:99", "inputs": [FLOWER]},
        {"id": "operation", "operation": "dance", "inputs": [FLOWER]},
        {"id": "missing", "model": "iris"},
        {"id": "short", "model": "iris", "inputs": [[1.0]]},
        {"id": "typed", "model": 7, "inputs": [FLOWER]},
        {"id": "url", "model": "iris", "data_url": "file:///etc/passwd"},
        {"id": "failing", "model": "echo", "inputs": ["fail"]},
        {"id": "deadly", "model": "echo", "inputs": ["die"]},
        {"id": "after", "model": "echo", "inputs": ["fine"]},
    ]  # fmt: skip
    fed.asked(*poison)
    found = from_(fed.kafka, fed.out, ["unknown", "version", "operation", "missing", "short", "typed", "url", "failing", "deadly", "after"])
    assert found.pop("after")["outputs"] == ["fine"]
    for name, document in found.items():
        assert document["error"], name
        assert document["status"] >= 400, name
    assert "nobody" in found["unknown"]["error"]
    assert "cannot read this" in found["failing"]["error"]
    assert "--allow-fetch" in found["url"]["error"]
    eventually(lambda: rows(fed.server)[0]["failed"] >= 16)
    eventually(lambda: rows(fed.server)[0]["in_flight"] == 0)


def test_everything_is_committed(fed: Fed, tmp_path: Path) -> None:
    """Offsets are those behind the last message, poison included, and no lag is left."""
    fed.asked(*requests([1000, 1001]))
    from_(fed.kafka, fed.out, [1000, 1001])
    eventually(lambda: sum(fed.kafka.committed(fed.source, fed.group, each) for each in (0, 1)) == fed.sent)
    eventually(lambda: set(rows(fed.server)[0]["lag"].values()) == {0})
    (row,) = rows(fed.server)
    assert (row["state"], row["kind"], row["workers"], row["unwritten"]) == ("running", "kafka", 1, 0)
    shown = subprocess.run(
        command("streams", "--url", fed.server.url), env=environment(tmp_path), capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert re.search(rf"^{re.escape(row['stream'])}  running  1 .* {row['answered']} .*{row['failed']}$", shown, re.MULTILINE), shown
    with urllib.request.urlopen(fed.server.url + "/metrics", timeout=30) as answer:
        assert f'dragoman_stream_running{{stream="{row["stream"]}"}} 1' in answer.read().decode()


def test_errors_have_a_topic_of_their_own(kafka: Kafka, iris: Path, tmp_path: Path) -> None:
    """With errors=TOPIC: the message as it came and where it was, beside what was wrong; the output has answers only."""
    source, out, errors = kafka.topic(), kafka.topic(), kafka.topic()
    address = f"kafka://{kafka.address}/{source}?out={out}&errors={errors}&group={fresh()}&model=iris"
    with serving(tmp_path, f"iris={iris}", "--stream", address):
        kafka.send(source, b"no json", b"\xff", {"id": 1, "inputs": [FLOWER]}, key="k")
        text, binary = kafka.received(errors, 2)
        assert (text.json["message"], text.json["source"], text.json["position"]) == ("no json", source, "0")
        assert text.json["error"]
        assert text.key == "k"
        assert binary.json["message_base64"] == "/w=="
        assert [record.json["id"] for record in kafka.received(out, 1)] == [1]


def test_kills_lose_nothing(kafka: Kafka, iris: Path, tmp_path: Path) -> None:
    """M21: at least once. The server dies twice in the middle, and once it is asked to end; every message has an answer."""
    source, out, group = kafka.topic(4), kafka.topic(4), fresh("group")
    stream = f"kafka://{kafka.address}/{source}?out={out}&group={group}&session_timeout=3&model=iris"
    sent: list[int] = []
    for ending in (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM):
        with serving(tmp_path, f"iris={iris}", "--stream", stream) as server:
            new = list(range(len(sent), len(sent) + 3000))
            kafka.send(source, *requests(new))
            sent += new
            eventually(lambda: rows(server)[0]["answered"] >= 500)
            server.process.send_signal(ending)
            server.process.wait(60)
    with serving(tmp_path, f"iris={iris}", "--stream", stream) as server:
        eventually(lambda: sum(kafka.committed(source, group, each) for each in range(4)) == len(sent))
        assert not any("error" in document for document in from_(kafka, out, sent).values())


def test_workers_share_the_partitions(kafka: Kafka, iris: Path, tmp_path: Path) -> None:
    """Two workers are two members; when one is killed the other takes over what it had, and nothing is missing."""
    source, out, group = kafka.topic(2), kafka.topic(2), fresh("group")
    stream = f"kafka://{kafka.address}/{source}?out={out}&group={group}&session_timeout=3&model=iris"
    with serving(tmp_path, f"iris={iris}", "--stream", stream, "--workers", "2") as server:
        eventually(lambda: rows(server)[0]["workers"] == 2 and len(rows(server)[0]["lag"]) == 2)
        kafka.send(source, *requests(range(100)))
        eventually(lambda: sum(kafka.committed(source, group, each) for each in (0, 1)) == 100)
        found = answers(kafka.received(out, 100))
        assert found.keys() == set(range(100))


def test_a_broker_that_is_gone_for_a_while(kafka_alone: Kafka, iris: Path, tmp_path: Path) -> None:
    """One that hangs, and one that ends: the server says so, stays up and goes on when it is back, with topics that came back empty."""
    kafka = kafka_alone
    source, out = kafka.topic(), kafka.topic()
    stream = f"kafka://{kafka.address}/{source}?out={out}&group=g&session_timeout=3&model=iris"
    with serving(tmp_path, f"iris={iris}", "--stream", stream) as server:
        kafka.send(source, *requests([1]))
        assert kafka.received(out, 1)[0].json["id"] == 1
        eventually(lambda: rows(server)[0]["lag"])
        kafka.freeze()
        eventually(lambda: rows(server)[0]["state"] == "waiting")
        assert "they say nothing" in rows(server)[0]["reason"]
        kafka.thaw()
        eventually(lambda: rows(server)[0]["state"] == "running")
        kafka.stop()
        kafka.start()
        kafka.topic(name=source)
        kafka.topic(name=out)
        kafka.send(source, *requests([2]))
        assert kafka.received(out, 1)[0].json["id"] == 2
        assert server.process.poll() is None


def test_connections_that_break(iris: Path, tmp_path: Path) -> None:
    """While answers are written and while offsets are committed, before the broker has heard of it and after: nothing is missing."""
    port = free_port()
    with Line(port) as line:
        kafka = Kafka(tmp_path, port, line.port)
        kafka.start()
        try:
            source, out, group = kafka.topic(), kafka.topic(), fresh("group")
            stream = f"kafka://127.0.0.1:{line.port}/{source}?out={out}&group={group}&session_timeout=3&model=iris"
            with serving(tmp_path, f"iris={iris}", "--stream", stream):
                sent: list[int] = []
                for marker, answered in itertools.product((b'"model_name"', group.encode()), (False, True)):
                    line.cut_at(marker, answered=answered)
                    new = list(range(len(sent), len(sent) + 100))
                    kafka.send(source, *requests(new))
                    sent += new
                    eventually(lambda sent=sent: kafka.committed(source, group) == len(sent))  # type: ignore[misc] # a lambda has no types
                assert line.cuts == 4
                assert from_(kafka, out, sent).keys() == set(sent)
        finally:
            kafka.stop()


def test_a_stream_that_cannot_be(iris: Path, tmp_path: Path) -> None:
    """A wrong address ends the start with one line that says what is wrong, without the password."""
    for address, told in (
        ("kafka://u:hidden@127.0.0.1:1/in?out=in", "among its own input"),
        ("kafka://u:hidden@127.0.0.1:1/in?color=red", "the option 'color'"),
        ("kafka://u:hidden@127.0.0.1:1/", "a host and a topic"),
    ):
        ended = subprocess.run(
            command("serve", f"iris={iris}", "--port", "0", "--stream", address),
            env=environment(tmp_path), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert ended.returncode == 2
        assert told in ended.stderr
        assert "hidden" not in ended.stderr + ended.stdout
        assert "Traceback" not in ended.stderr
