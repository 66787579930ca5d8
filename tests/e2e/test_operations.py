"""What operators see of the real command: metrics and statistics that all workers share, logs, request ids, and settings changed by clients."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.http import InferenceServerClient
from tritonclient.utils import InferenceServerException

from tests.e2e.running import Running, serving
from tests.models import build

ROW = {"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "data": [5.0, 3.4, 1.5, 0.2]}]}
VERSION = {"model": "iris", "version": "1"}
TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def iris(tmp_path: Path) -> Path:
    return build.iris(tmp_path / "models" / "iris.onnx")


def infer(server: Running, **headers: str) -> requests.Response:
    """One request on a connection of its own, so that any worker may get it."""
    return requests.post(f"{server.url}/v2/models/iris/infer", json=ROW, headers={"Connection": "close", **headers}, timeout=60)


def metric(server: Running, name: str, path: str = "/metrics", **labels: str) -> list[tuple[dict[str, str], float]]:
    """The samples of that name with at least these labels, from whichever worker answers."""
    page = requests.get(server.url + path, headers={"Connection": "close"}, timeout=60)
    assert page.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return [
        (sample.labels, sample.value)
        for family in text_string_to_metric_families(page.text)
        for sample in family.samples
        if sample.name.removesuffix("_total") == name.removesuffix("_total") and labels.items() <= sample.labels.items()
    ]


def value(server: Running, name: str, **labels: str) -> float:
    ((_, found),) = metric(server, name, **labels)
    return found


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.01)


def records(server: Running, logger: str) -> list[dict[str, Any]]:
    """What the server has logged so far as JSON."""
    found = [json.loads(line) for line in list(server.lines) if line.startswith("{")]
    return [record for record in found if record["logger"] == logger]


def test_workers_count_together_and_a_dead_one_is_not_forgotten(tmp_path: Path, iris: Path) -> None:
    """Whichever worker is asked: the same sums, which do not fall when a worker is killed and replaced."""
    with serving(tmp_path, str(iris), "--workers", "2") as server:
        until(lambda: value(server, "dragoman_workers") == 2)
        assert value(server, "nv_inference_request_success", **VERSION) == 0
        for _ in range(40):
            assert infer(server).status_code == 200
        assert requests.post(f"{server.url}/v1/models/iris:predict", json={"instances": [[5.0, 3.4, 1.5, 0.2]]}, timeout=60).ok
        for _ in range(6):
            assert value(server, "nv_inference_request_success", **VERSION) == 41
            stats = requests.get(f"{server.url}/v2/models/iris/stats", headers={"Connection": "close"}, timeout=60).json()
            assert stats["model_stats"][0]["inference_stats"]["success"]["count"] == 41
        assert metric(server, ":tensorflow:serving:request_count", "/monitoring/prometheus/metrics", status="OK")[0][1] == 1
        before = {labels["worker"] for labels, _ in metric(server, "dragoman_worker_start_time_seconds")}
        (killed, *_) = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
        os.kill(int(killed), signal.SIGKILL)

        def replaced() -> bool:
            try:
                return bool({labels["worker"] for labels, _ in metric(server, "dragoman_worker_start_time_seconds")} - before)
            except requests.ConnectionError:  # the request had reached the worker that was killed
                return False

        until(replaced)
        for _ in range(10):
            assert infer(server).status_code == 200
        assert value(server, "nv_inference_request_success", **VERSION) == 51


def test_ids_and_the_access_log(tmp_path: Path, iris: Path) -> None:
    """An id comes back and is in the record of the request; a request without one is given one; a trace goes on."""
    with serving(tmp_path, str(iris), "--access-log", "--log-format", "json") as server:
        answer = infer(server, **{"X-Request-Id": "order-7", "traceparent": f"00-{TRACE}-b7ad6b7169203331-01"})
        assert answer.headers["X-Request-Id"] == "order-7"
        assert answer.headers["traceparent"].startswith(f"00-{TRACE}-")
        unnamed = requests.get(f"{server.url}/v2/health/live?key=secret", timeout=60).headers["X-Request-Id"]
        until(lambda: len(records(server, "dragoman.access")) == 2)
        first, second = records(server, "dragoman.access")
        assert (first["request_id"], first["trace_id"], first["model"]) == ("order-7", TRACE, "iris")
        assert (first["method"], first["path"], first["status"]) == ("POST", "/v2/models/iris/infer", 200)
        assert first["bytes"] == int(answer.headers["Content-Length"])
        assert (second["request_id"], second["path"]) == (unnamed, "/v2/health/live")
        assert "secret" not in server.output


def test_without_an_access_log_nothing_is_added(tmp_path: Path, iris: Path) -> None:
    """No ids that nobody asked for, and no records of requests; an id that came goes back."""
    with serving(tmp_path, str(iris), "--log-format", "json") as server:
        plain, named = infer(server), infer(server, **{"X-Request-Id": "a"})
        assert "X-Request-Id" not in plain.headers
        assert "traceparent" not in plain.headers
        assert named.headers["X-Request-Id"] == "a"
        assert records(server, "dragoman.access") == []


def test_triton_clients_change_the_log(tmp_path: Path, iris: Path) -> None:
    """Through Triton's own client: what is accepted is reported by every worker, the rest is an error that names the setting."""
    with serving(tmp_path, str(iris), "--workers", "2", "--log-format", "pretty") as server:
        client = InferenceServerClient(server.address)
        assert client.get_log_settings()["log_info"] is True
        changed = client.update_log_settings({"log_info": False, "log_verbose_level": 2, "log_format": "ISO8601"})
        assert (changed["log_info"], changed["log_verbose_level"], changed["log_format"]) == (False, 2, "ISO8601")
        for _ in range(6):
            seen = requests.get(f"{server.url}/v2/logging", headers={"Connection": "close"}, timeout=60).json()
            assert seen == changed
        with pytest.raises(InferenceServerException, match="log_file"):
            client.update_log_settings({"log_file": "/etc/passwd"})
        client.close()


def test_triton_clients_trace_requests(tmp_path: Path, iris: Path) -> None:
    """Through Triton's own client: seven requests of any worker are traced, into one file that is a whole list, and no more."""
    with serving(tmp_path, str(iris), "--workers", "2") as server:
        client = InferenceServerClient(server.address)
        settings = client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"], "trace_rate": "1", "trace_count": "7"})
        assert settings["trace_count"] == "7"
        with pytest.raises(InferenceServerException, match="trace_file"):
            client.update_trace_settings("iris", {"trace_file": "../../escape.json"})

        def traced() -> list[Any]:
            infer(server)
            try:
                return [trace for file in tmp_path.rglob("traces/trace.json") for trace in json.loads(file.read_text())]
            except ValueError:  # it is being written right now
                return []

        until(lambda: len(traced()) == 7)
        assert client.get_trace_settings()["trace_count"] == "0"
        names = [t["name"] for t in traced()[0]["timestamps"]]
        assert (names[0], names[-1], len(names)) == ("REQUEST_START", "REQUEST_END", 7)
        assert client.update_trace_settings(settings=dict.fromkeys(settings))["trace_level"] == ["OFF"]
        client.close()
        assert server.terminate() == 0
        assert len(json.loads(next(tmp_path.rglob("traces/trace.json")).read_text())) == 7
    assert not list(tmp_path.rglob("escape.json"))
