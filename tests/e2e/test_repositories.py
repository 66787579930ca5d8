"""The real command over repositories of Triton and MLServer: version policies, batching that is configured, warnings. O17 to O20."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.e2e.running import Running, run, serving
from tests.models import build, documented, learned

POLICIES = {
    "newest": "version_policy { latest { num_versions: 2 } }",
    "every": "version_policy { all { } }",
    "chosen": "version_policy { specific { versions: [ 1, 10 ] } }",
    "plain": "",
}
TABLE = """
name: "table"
backend: "onnxruntime"
max_batch_size: 16
dynamic_batching { preferred_batch_size: [ 4, 16 ] max_queue_delay_microseconds: 20000 preserve_ordering: true }
optimization { graph { level: 1 } }
"""
SETTINGS: dict[str, Any] = {
    "name": "flowers",
    "implementation": "mlserver_sklearn.SKLearnModel",
    "parallel_workers": 4,
    "parameters": {"uri": "./model.skops", "version": "v7"},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("repositories")
    triton = folder / "triton"
    for name, policy in POLICIES.items():
        for version in ("1", "2", "10", "010", "old"):
            documented.half_plus(triton / name / version / "model.onnx", 1 if version == "old" else int(version))
        (triton / name / "config.pbtxt").write_text(f'backend: "onnxruntime"\n{policy}\n')
    build.lookup(triton / "table" / "1" / "model.onnx")
    (triton / "table" / "config.pbtxt").write_text(TABLE)
    build.add_sub(triton / "sums" / "1" / "model.onnx")  # no config.pbtxt
    learned.write(folder / "mlserver" / "flowers" / "model.skops", learned.skops_of(learned.classifier()))
    (folder / "mlserver" / "flowers" / "model-settings.json").write_text(json.dumps(SETTINGS))
    with serving(folder, str(triton), str(folder / "mlserver"), "--log-format", "json") as running:
        yield running


def versions(server: Running, model: str) -> list[str]:
    found: list[str] = requests.get(f"{server.url}/v2/models/{model}", timeout=60).json()["versions"]
    return found


def half(server: Running, model: str) -> Any:
    """What the model adds to the half of 0, over the route without a version or with one."""
    body = {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [0]}]}
    answer = requests.post(f"{server.url}/v2/models/{model}/infer", json=body, timeout=60)
    return answer.json()["outputs"][0]["data"][0] if answer.status_code == 200 else answer.status_code


@pytest.mark.parametrize(
    ("model", "served"), [("newest", ["2", "10"]), ("every", ["1", "2", "10"]), ("chosen", ["1", "10"]), ("plain", ["10"])]
)
def test_version_policies(server: Running, model: str, served: list[str]) -> None:
    """O17: the policy says which versions are served; each answers for itself, the highest number without one, others are 404."""
    assert versions(server, model) == served
    assert half(server, model) == 10
    for version in ("1", "2", "10"):
        assert half(server, f"{model}/versions/{version}") == (int(version) if version in served else 404)


def test_a_model_without_a_configuration(server: Running) -> None:
    """O19: inputs, outputs and the batch dimension are read from the ONNX file."""
    metadata = requests.get(f"{server.url}/v2/models/sums", timeout=60).json()
    assert metadata["platform"] == "onnxruntime_onnx"
    assert metadata["inputs"] == [{"name": n, "datatype": "INT32", "shape": [-1, 16], "value_type": "int32"} for n in ("INPUT0", "INPUT1")]
    config = requests.get(f"{server.url}/v2/models/sums/config", timeout=60).json()
    assert config["max_batch_size"] > 0
    assert config["input"][0]["dims"] == [16]


def test_an_mlserver_folder(server: Running) -> None:
    """O19: name, implementation, uri and version of model-settings.json hold."""
    assert versions(server, "flowers") == ["v7"]
    rows = {"instances": build.IRIS_CENTRES.tolist()}
    own = requests.get(f"{server.url}/v2/models/flowers/versions/v7", timeout=60).json()["inputs"][0]["name"]
    for name in (own, "predict", "input-0"):  # as in MLServer's manual, and in KServe's
        body = {"inputs": [{"name": name, "shape": [3, 4], "datatype": "FP64", "data": rows["instances"]}]}
        outputs = requests.post(f"{server.url}/v2/models/flowers/infer", json=body, timeout=60).json()["outputs"]
        assert outputs[0]["data"] == [0, 1, 2]


def test_what_has_no_effect_is_named(server: Running, tmp_path: Path) -> None:
    """O19: in the log and in our own status, by model and field."""
    warnings = {m["name"]: m["warnings"] for m in requests.get(f"{server.url}/dragoman/v1/models", timeout=60).json()["models"]}
    logged = [json.loads(line) for line in server.lines if line.startswith("{")]
    for model, field in (("table", "preserve_ordering"), ("table", "optimization"), ("flowers", "parallel_workers")):
        assert any(field in warning for warning in warnings[model])
        assert any(field in record["message"] for record in logged if record["level"] == "warning")
    assert not warnings["sums"]
    listed = run(tmp_path, "models", "--url", server.url, "--output", "json")
    assert len(json.loads(listed.stdout)) == len(POLICIES) + 3 + 4  # the first four have eight versions


def test_a_bad_request_does_not_poison_its_batch(server: Running) -> None:
    """O20: of 64 clients whose requests are joined every eighth breaks the model's run; only those are refused, the rest is right."""
    url = f"{server.url}/v2/models/table"
    before = requests.get(f"{url}/stats", timeout=60).json()["model_stats"][0]

    def ask(thread: int) -> None:
        index = 1000 if thread % 8 == 0 else thread % 10
        body = {"inputs": [{"name": "index", "shape": [1], "datatype": "INT64", "data": [index]}]}
        with requests.Session() as session:
            for _ in range(6):
                answer = session.post(f"{url}/infer", json=body, timeout=60)
                if index == 1000:
                    assert answer.status_code in (400, 500)
                    assert "table" in answer.json()["error"]
                else:
                    assert answer.json()["outputs"][0]["data"] == [index**2]

    with ThreadPoolExecutor(64) as pool:
        for done in [pool.submit(ask, thread) for thread in range(64)]:
            done.result()
    after = requests.get(f"{url}/stats", timeout=60).json()["model_stats"][0]
    assert after["inference_count"] - before["inference_count"] == 56 * 6
    assert after["inference_stats"]["fail"]["count"] - before["inference_stats"]["fail"]["count"] == 8 * 6


def test_configured_batching_joins_requests(server: Running) -> None:
    """O20: with a delay of 20 ms, 16 requests that are sent at once run in fewer runs, none larger than the maximum."""
    url = f"{server.url}/v2/models/table"
    before = requests.get(f"{url}/stats", timeout=60).json()["model_stats"][0]

    def ask(index: int) -> Any:
        body = {"inputs": [{"name": "index", "shape": [1], "datatype": "INT64", "data": [index]}]}
        return requests.post(f"{url}/infer", json=body, timeout=60).json()["outputs"][0]["data"]

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, [3] * 160)) == [[9]] * 160
    after = requests.get(f"{url}/stats", timeout=60).json()["model_stats"][0]
    assert after["inference_count"] - before["inference_count"] == 160
    assert after["execution_count"] - before["execution_count"] < 160
    assert max(row["batch_size"] for row in after["batch_stats"]) <= 16
