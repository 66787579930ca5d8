"""Tracking records of the real command: every kind of model and protocol, to a real receiver, a real Kafka and files; switched while it runs."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from tests import brokers
from tests.e2e.running import Running, run, serving
from tests.models import build

POINT = [5.0, 3.4, 1.5, 0.2]
CLASSIFIER = """
from mlrun.serving import V2ModelServer


class Iris(V2ModelServer):
    def load(self):
        self.labels = {"team": "botany"}

    def preprocess(self, request, operation):
        request["inputs"] = [[2 * value for value in point] for point in request["inputs"]]
        return request

    def predict(self, request):
        if request["inputs"][0][0] < 0:
            raise ValueError("no such flower")
        self.set_metric("points", len(request["inputs"]))
        return [sum(point) for point in request["inputs"]]

    def logged_results(self, request, response, op):
        return [["logged"]] if op == "predict" else None, None
"""


class Receiver:
    """An HTTP server of the standard library that keeps what is posted to it; `gate` holds its answers back."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.status = 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.gate.wait(60)
                if outer.status == 200:
                    outer.records.append(json.loads(body))
                self.send_response(outer.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 # its name in the standard library
                pass

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                """A server that ended while it was answered is part of what is tested."""

        self.server = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/records"

    def of(self, model: str) -> list[dict[str, Any]]:
        return [record for record in list(self.records) if record["model"] == model]


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.gate.set()
        receiver.server.shutdown()
        thread.join()
        receiver.server.server_close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.02)


def ask(server: Running, path: str, body: Any, expected: int = 200) -> Any:
    """One request on a connection of its own, so that any worker may get it."""
    answer = requests.post(f"{server.url}{path}", json=body, headers={"Connection": "close"}, timeout=60)
    assert answer.status_code == expected, answer.text
    return answer.json()


def iris(server: Running) -> None:
    ask(server, "/v1/models/iris:predict", {"instances": [POINT]})


def switch(server: Running, **values: Any) -> dict[str, Any]:
    answer = requests.put(f"{server.url}/api/tracking", json=values, timeout=60)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def counted(server: Running, name: str, model: str) -> float:
    page = requests.get(f"{server.url}/metrics", timeout=60).text
    return sum(
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name and sample.labels["model"] == model
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    build.iris(folder / "iris.onnx")
    (folder / "flowers.py").write_text(CLASSIFIER)
    (folder / "doubled.py").write_text("def predict(x: float) -> float:\n    return 2 * x\n")
    return folder


@pytest.fixture(scope="module")
def site(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, Receiver]]:
    """Two workers and a receiver."""
    targets = [str(models / "iris.onnx"), f"flowers={models / 'flowers.py'}:Iris", str(models / "doubled.py")]
    with (
        receiving() as receiver,
        serving(tmp_path_factory.mktemp("data"), *targets, "--workers", "2", "--tracking", receiver.url) as server,
    ):
        yield server, receiver


def test_models_of_every_kind(site: tuple[Running, Receiver]) -> None:
    """Tensors, rows and whole requests in several protocols, from both workers: each has its record."""
    server, receiver = site
    receiver.records.clear()
    tensor = {"name": "X", "shape": [1, 4], "datatype": "FP32", "data": POINT}
    for _ in range(8):
        ask(server, "/v2/models/iris/infer", {"id": "oip", "inputs": [tensor]})
    ask(server, "/v2/models/iris/infer", {"id": "mlrun", "inputs": [POINT]})
    ask(server, "/v1/models/doubled:predict", {"instances": [{"x": 1.5}, {"x": 2}]})

    def mine() -> list[dict[str, Any]]:
        """Others may still come of what tests before this one have asked."""
        records = list(receiver.records)
        return [record for record in records if record["model"] == "doubled" or record.get("request", {}).get("id") in ("oip", "mlrun")]

    until(lambda: len(mine()) == 10)
    for record in (each for each in mine() if each["model"] == "iris"):
        assert record["request"]["inputs"] == [[pytest.approx(value) for value in POINT]]
        assert record["resp"]["id"] == record["request"]["id"]
        assert record["microsec"] > 0
        assert (record["class"], record["version"]) == ("onnx", "1")
    assert {record["worker"] for record in mine()} <= {"0", "1"}
    (doubled,) = receiver.of("doubled")
    assert (doubled["request"]["inputs"], doubled["resp"]["outputs"]) == ([1.5, 2], [3, 4])


def test_mlrun_classes_say_what_is_logged(site: tuple[Running, Receiver]) -> None:
    """The request after the class's own hooks, its metrics, and what `logged_results` puts in their place; failures with their words."""
    server, receiver = site
    receiver.records.clear()
    ask(server, "/v2/models/flowers/explain", {"inputs": [[1, 2]]}, 501)
    ask(server, "/v2/models/flowers/infer", {"id": "i", "inputs": [[1, 2]]})
    ask(server, "/v2/models/flowers/predict", {"id": "p", "inputs": [[1, 2]]})
    ask(server, "/v2/models/flowers/infer", {"id": "bad", "inputs": [[-1, 2]]}, 500)
    ask(server, "/v1/models/flowers:predict", {"instances": [{"inputs": [1, 2]}]})
    until(lambda: len(receiver.of("flowers")) >= 5)  # one that was sent twice is there twice
    of = {record["request"].get("id"): record for record in receiver.of("flowers")}
    assert (of["i"]["request"]["inputs"], of["i"]["resp"]["outputs"], of["i"]["op"]) == ([[2, 4]], [6], "infer")
    assert (of["i"]["class"], of["i"]["metrics"]) == ("Iris", {"points": 1})
    assert of["p"]["request"]["inputs"] == [["logged"]]
    assert "no such flower" in of["bad"]["error"]
    assert "resp" not in of["bad"]


def test_it_is_switched_while_the_server_runs(site: tuple[Running, Receiver], tmp_path: Path) -> None:
    """By the command and by HTTP, for both workers: off, on, every third, several in one record; and back to what was said at the start."""
    server, receiver = site
    try:
        off = run(tmp_path, "tracking", "off", "--url", server.url)
        assert "tracking is off" in off.stdout, off.stderr
        until(lambda: _quiet(server, receiver))
        on = run(tmp_path, "tracking", "on", "--sample", "3", "--output", "json", "--url", server.url)
        assert json.loads(on.stdout) == {**json.loads(on.stdout), "on": True, "sample": 3, "url": receiver.url}
        receiver.records.clear()
        until(lambda: _asked_until(server, lambda: len({record["worker"] for record in receiver.of("iris")}) == 2))
        switch(server, sample=1, batch=4)
        until(lambda: _asked_until(server, lambda: any("values" in record for record in receiver.of("iris"))))
        batch = next(record for record in receiver.of("iris") if "values" in record)
        assert batch["headers"] == ["request", "op", "resp", "when", "microsec", "metrics"]
        assert len(batch["values"]) == 4
        status = run(tmp_path, "tracking", "status", "--url", server.url)
        assert f"tracking is on to {receiver.url}, 4 in one record" in status.stdout
    finally:
        assert switch(server, on=None, sample=None, batch=None, url=None)["on"] is True
        receiver.records.clear()
        until(lambda: _asked_until(server, lambda: _single(receiver)))  # the other worker hears of it within a second


def _single(receiver: Receiver) -> bool:
    """Whether both workers send single records again."""
    last = receiver.of("iris")[-12:]
    return {record["worker"] for record in last} == {"0", "1"} and not any("values" in record for record in last)


def _quiet(server: Running, receiver: Receiver) -> bool:
    """Whether no worker records any more: so many requests, and none arrives."""
    before = counted(server, "dragoman_records_total", "iris")
    for _ in range(10):
        iris(server)
    return counted(server, "dragoman_records_total", "iris") == before


def _asked_until(server: Running, condition: Callable[[], bool]) -> bool:
    for _ in range(6):
        iris(server)
    return condition()


def test_who_may_switch_and_to_where(site: tuple[Running, Receiver]) -> None:
    """Pages of other sites may not, values are checked, and files elsewhere than in the server's folder cannot be named."""
    server, _ = site
    url = f"{server.url}/api/tracking"
    for values, headers, status in (
        ({"on": False}, {"Origin": "https://evil.example"}, 403),
        ({"url": "/etc/passwd.jsonl"}, {}, 403),
        ({"sample": 0}, {}, 400),
        ({"nonsense": 1}, {}, 400),
        ([1], {}, 400),
    ):
        assert requests.put(url, json=values, headers=headers, timeout=60).status_code == status, values
    assert requests.put(url, data=b"{", timeout=60).status_code == 400
    assert requests.post(url, json={}, timeout=60).status_code == 405
    assert requests.get(url, timeout=60).json()["on"] is True


def test_keys_protect_it(models: Path, tmp_path: Path) -> None:
    """A key for inference is not enough."""
    keys = ["--api-key-file", str(tmp_path / "keys.toml")]
    admin, user = (
        run(tmp_path, "keys", "add", name, *more, *keys).stdout.split()[-1] for name, more in (("a", ["--scope", "admin"]), ("u", []))
    )
    with serving(tmp_path, str(models / "doubled.py"), *keys, "--require-key") as server:
        for key, expected in (("", 401), (user, 403), (admin, 200)):
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            assert requests.get(f"{server.url}/api/tracking", headers=headers, timeout=60).status_code == expected, key
            answer = requests.put(f"{server.url}/api/tracking", json={"url": "mine.jsonl", "on": True}, headers=headers, timeout=60)
            assert answer.status_code == expected, answer.text
        ask_headers = {"Authorization": f"Bearer {user}"}
        requests.post(f"{server.url}/v1/models/doubled:predict", json={"instances": [1]}, headers=ask_headers, timeout=60)
        assert server.terminate() == 0
    (file,) = tmp_path.rglob("records/mine-0.jsonl")
    assert json.loads(file.read_text())["resp"]["outputs"] == [2]


def test_a_topic_of_kafka(models: Path, tmp_path: Path) -> None:
    """Records and batches of a real broker, read by another client; the rest arrives when the server ends."""
    kafka = brokers.kafka()
    topic = kafka.topic()
    with serving(tmp_path, str(models / "iris.onnx"), "--tracking", f"kafka://{kafka.address}/{topic}", "--tracking-batch", "3") as server:
        for _ in range(4):
            iris(server)
        (batch,) = kafka.received(topic, 1)
        assert [row[0]["inputs"][0][3] for row in batch.json["values"]] == [pytest.approx(0.2)] * 3
        ask(server, "/v1/models/iris:predict", {"instances": [[1, 2]]}, 400)
        assert "error" in kafka.received(topic, 2)[1].json
        large = {"instances": np.zeros((40_000, 4)).tolist()}
        switch(server, batch=1)
        ask(server, "/v1/models/iris:predict", large)
        iris(server)
        assert server.terminate() == 0
    found = [record.json for record in kafka.received(topic, 5)]
    assert "left_out" in json.dumps(found[3]["resp"])
    assert found[4]["resp"]["outputs"]
    assert len(found) == 5


def test_files_at_the_end(models: Path, tmp_path: Path) -> None:
    """What was answered before the server was told to end is in its files: lines, and after a switch a table."""
    with serving(tmp_path, str(models / "iris.onnx"), "--tracking", str(tmp_path / "out" / "r.jsonl")) as server:
        for _ in range(5):
            iris(server)
        lines = tmp_path / "out" / "r-0.jsonl"
        until(lambda: lines.is_file() and len(lines.read_text().splitlines()) == 5)  # what still waits then goes to the new place
        switch(server, url="table.parquet")
        for _ in range(3):
            iris(server)
        assert server.terminate() == 0
    assert len((tmp_path / "out" / "r-0.jsonl").read_text().splitlines()) == 5
    (table,) = tmp_path.rglob("records/table-0-*.parquet")
    assert pyarrow.parquet.read_table(table).num_rows == 3


def test_an_address_that_is_wrong_ends_the_start(models: Path, tmp_path: Path) -> None:
    """With one line that names the flag."""
    ended = run(tmp_path, "serve", str(models / "iris.onnx"), "--tracking", "kafka://nowhere")
    assert ended.returncode == 2
    assert ended.stderr.startswith("dragoman: --tracking: ")
    assert "Traceback" not in ended.stderr


def test_a_receiver_that_hangs(models: Path, tmp_path: Path) -> None:
    """Every request is answered, what there is no room for is counted, and the end comes in time."""
    points = np.zeros((60_000, 4), "<f4").tobytes()
    parameters = {"binary_data_size": len(points)}
    head = json.dumps(
        {
            "inputs": [{"name": "X", "shape": [60_000, 4], "datatype": "FP32", "parameters": parameters}],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    with receiving() as receiver:
        receiver.gate.clear()
        arguments = (str(models / "iris.onnx"), "--tracking", receiver.url, "--drain-timeout", "2")
        with serving(tmp_path, *arguments) as server:
            asked = 0
            while not counted(server, "dragoman_records_dropped_total", "iris"):
                headers = {"Inference-Header-Content-Length": str(len(head))}
                answer = requests.post(f"{server.url}/v2/models/iris/infer", data=head + points, headers=headers, timeout=60)
                assert answer.status_code == 200, answer.text
                asked += 1
                assert asked < 500
            assert counted(server, "dragoman_requests_total", "iris") == asked
            assert "tracking records are dropped" in server.output
            assert server.terminate() == 0
            assert server.output.count("tracking records are dropped") == 1


def test_a_receiver_that_comes_back(models: Path, tmp_path: Path) -> None:
    """What it could not take meanwhile is sent again, once."""
    with receiving() as receiver, serving(tmp_path, str(models / "iris.onnx"), "--tracking", receiver.url) as server:
        receiver.status = 503
        for _ in range(3):
            iris(server)
        assert receiver.records == []
        receiver.status = 200
        until(lambda: len(receiver.records) == 3)
        until(lambda: counted(server, "dragoman_records_total", "iris") == 3)
        assert counted(server, "dragoman_records_dropped_total", "iris") == 0
