"""The Open Inference Protocol over real sockets, with tritonclient (blocking and asyncio) and plain requests."""

import asyncio
import base64
import gzip
import http.client
import json
import socket
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from tests.e2e.running import Running, serving
from tests.models import build

IRIS_CONFIG = """
name: "iris"
platform: "onnxruntime_onnx"
max_batch_size: 8
input [ { name: "X" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [
  { name: "label" data_type: TYPE_INT64 dims: [ 1 ] },
  { name: "probabilities" data_type: TYPE_FP32 dims: [ 3 ] label_filename: "labels.txt" }
]
dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100 }
version_policy { all { } }
"""
ENSEMBLE_CONFIG = """
name: "twice"
platform: "ensemble"
max_batch_size: 0
input [ { name: "A" data_type: TYPE_INT32 dims: [ -1, 16 ] }, { name: "B" data_type: TYPE_INT32 dims: [ -1, 16 ] } ]
output [ { name: "R" data_type: TYPE_INT32 dims: [ -1, 16 ] } ]
ensemble_scheduling { step [
  { model_name: "sums" model_version: -1
    input_map { key: "INPUT0" value: "A" } input_map { key: "INPUT1" value: "B" }
    output_map { key: "OUTPUT0" value: "sum" } output_map { key: "OUTPUT1" value: "difference" } },
  { model_name: "sums" model_version: -1
    input_map { key: "INPUT0" value: "sum" } input_map { key: "INPUT1" value: "difference" }
    output_map { key: "OUTPUT0" value: "R" } }
] }
"""


def repository(root: Path) -> Path:
    """A Triton repository: configured and not, several versions, labels, an ensemble."""
    for version in ("1", "3"):
        build.iris(root / "iris" / version / "model.onnx")
    (root / "iris" / "config.pbtxt").write_text(IRIS_CONFIG)
    (root / "iris" / "labels.txt").write_text("setosa\nversicolor\nvirginica\n")
    build.add_sub(root / "sums" / "1" / "model.onnx")
    (root / "twice").mkdir()
    (root / "twice" / "config.pbtxt").write_text(ENSEMBLE_CONFIG)
    (root / "twice" / "1").mkdir()
    build.identity(root / "text" / "1" / "model.onnx", "BYTES")
    build.identity(root / "halves" / "1" / "model.onnx", "FP16")
    build.identity(root / "floats" / "1" / "model.onnx", "FP32")
    return root


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("oip")
    with serving(folder, str(repository(folder / "models"))) as running:
        yield running


@pytest.fixture
def client(server: Running) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.address, network_timeout=60, connection_timeout=60) as made:
        yield made


def rows(*values: list[float]) -> triton.InferInput:
    tensor = triton.InferInput("X", [len(values), 4], "FP32")
    tensor.set_data_from_numpy(np.array(values, "f4"))
    return tensor


ROW = [5.0, 3.4, 1.5, 0.2]
ONE_BY_ONE = ("--batch-size", "1", "--threads", "1")


def test_health_and_metadata(server: Running, client: triton.InferenceServerClient) -> None:
    """O1, O2, O3: every health and metadata call of tritonclient is happy, and the bodies are KServe's."""
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("iris")
    assert client.is_model_ready("iris", "3")
    assert not client.is_model_ready("nothing")
    assert requests.get(f"{server.url}/v2/health/live", timeout=60).json() == {"live": True}
    assert requests.get(f"{server.url}/v2/health/ready", timeout=60).json() == {"ready": True}
    metadata = client.get_server_metadata()
    for extension in ("binary_tensor_data", "classification", "model_repository", "statistics", "model_configuration"):
        assert extension in metadata["extensions"]
    assert not [e for e in metadata["extensions"] if "shared_memory" in e]
    model = client.get_model_metadata("iris")
    assert model["versions"] == ["1", "3"]
    assert model["platform"] == "onnxruntime_onnx"
    assert model["inputs"] == [{"name": "X", "datatype": "FP32", "shape": [-1, 4], "value_type": "float32"}]
    with pytest.raises(InferenceServerException, match="nothing"):
        client.get_model_metadata("nothing")


@pytest.mark.parametrize("binary", [True, False])
def test_infer_binary_and_json(client: triton.InferenceServerClient, binary: bool) -> None:
    """O4, O8: the same numbers, sent and answered in either form."""
    tensor = triton.InferInput("X", [2, 4], "FP32")
    tensor.set_data_from_numpy(np.array([ROW, [6.5, 3.0, 5.6, 2.0]], "f4"), binary_data=binary)
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("label", "probabilities")]
    result = client.infer("iris", [tensor], outputs=outputs, request_id="seven", parameters={"anything": "goes"})
    assert result.get_response()["id"] == "seven"
    assert result.get_response()["model_version"] == "3"
    assert result.as_numpy("label").tolist() == [[0], [2]]
    assert result.as_numpy("probabilities").shape == (2, 3)


def test_versions_are_addressed(client: triton.InferenceServerClient) -> None:
    """O17: /versions/N answers, the highest is the default, an unknown one is 404."""
    assert client.infer("iris", [rows(ROW)], model_version="1").get_response()["model_version"] == "1"
    assert client.infer("iris", [rows(ROW)]).get_response()["model_version"] == "3"
    with pytest.raises(InferenceServerException, match="version"):
        client.infer("iris", [rows(ROW)], model_version="2")


def test_classification_with_labels(client: triton.InferenceServerClient) -> None:
    """O12: value:index:label, best first, in both forms."""
    for binary in (True, False):
        result = client.infer(
            "iris", [rows(ROW)], outputs=[triton.InferRequestedOutput("probabilities", binary_data=binary, class_count=2)]
        )
        found = result.as_numpy("probabilities")
        first = found.reshape(-1)[0]
        assert (first.decode() if isinstance(first, bytes) else first).split(":")[1:] == ["0", "setosa"]


def test_bytes_survive(client: triton.InferenceServerClient) -> None:
    """O9: empty, multi-byte and long elements come back as they were."""
    words = np.array([["", "héllo wörld", "x" * 70_000, "日本"]], dtype=object)
    for binary in (True, False):
        tensor = triton.InferInput("x", [1, 4], "BYTES")
        tensor.set_data_from_numpy(words, binary_data=binary)
        name = client.get_model_metadata("text")["outputs"][0]["name"]
        found = client.infer("text", [tensor], outputs=[triton.InferRequestedOutput(name, binary_data=binary)]).as_numpy(name)
        assert [v.decode() if isinstance(v, bytes) else v for v in found[0]] == list(words[0])


def test_half_precision_and_not_a_number_survive_binary(client: triton.InferenceServerClient) -> None:
    """O6, O10: FP16, NaN and infinities in binary; a JSON answer with them is still valid JSON."""
    values = np.array([[1.5, np.nan, np.inf, -np.inf]], "f2")
    tensor = triton.InferInput("x", [1, 4], "FP16")
    tensor.set_data_from_numpy(values)
    name = client.get_model_metadata("halves")["outputs"][0]["name"]
    np.testing.assert_array_equal(client.infer("halves", [tensor]).as_numpy(name), values)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compression_both_ways(client: triton.InferenceServerClient, algorithm: str) -> None:
    """O13: tritonclient's own compression of requests and answers."""
    result = client.infer("iris", [rows(ROW)], request_compression_algorithm=algorithm, response_compression_algorithm=algorithm)
    assert result.as_numpy("label").tolist() == [[0]]


def test_bad_compression_is_refused(server: Running) -> None:
    """O13: damaged data 400, an unknown encoding 415, a bomb 413."""
    url = f"{server.url}/v2/models/iris/infer"
    assert requests.post(url, data=b"\x1f\x8bnonsense", headers={"Content-Encoding": "gzip"}, timeout=60).status_code == 400
    assert requests.post(url, data=b"{}", headers={"Content-Encoding": "br"}, timeout=60).status_code == 415
    bomb = gzip.compress(b" " * (200 << 20), 9)
    assert requests.post(url, data=bomb, headers={"Content-Encoding": "gzip"}, timeout=60).status_code == 413
    assert requests.post(url, data=zlib.compress(b"{}"), headers={"Content-Encoding": "deflate"}, timeout=60).status_code == 400


def test_a_batch_above_the_maximum_is_refused(client: triton.InferenceServerClient) -> None:
    """O19: max_batch_size 8 of config.pbtxt holds; 8 rows pass, 9 do not."""
    assert client.infer("iris", [rows(*[ROW] * 8)]).as_numpy("label").shape == (8, 1)
    with pytest.raises(InferenceServerException, match="max_batch_size 8"):
        client.infer("iris", [rows(*[ROW] * 9)])


def test_the_ensemble_runs_its_steps(client: triton.InferenceServerClient) -> None:
    """O19: (a + b) + (a - b) is 2a."""
    a, b = np.arange(32, dtype="i4").reshape(2, 16), np.ones((2, 16), "i4")
    tensors = []
    for name, value in (("A", a), ("B", b)):
        tensor = triton.InferInput(name, [2, 16], "INT32")
        tensor.set_data_from_numpy(value)
        tensors.append(tensor)
    assert client.infer("twice", tensors).as_numpy("R").tolist() == (2 * a).tolist()
    assert client.get_model_metadata("twice")["platform"] == "ensemble"


def test_configuration(client: triton.InferenceServerClient) -> None:
    """O22: TYPE_ names, dims without the batch, what the file said."""
    config = client.get_model_config("iris")
    assert config["max_batch_size"] == 8
    assert config["input"][0]["data_type"] == "TYPE_FP32"
    assert [int(d) for d in config["input"][0]["dims"]] == [4]
    assert config["dynamic_batching"]["preferred_batch_size"] == [4, 8]
    assert client.get_model_config("sums")["input"][0]["data_type"] == "TYPE_INT32"


def test_statistics_count_rows_and_runs(server: Running, client: triton.InferenceServerClient) -> None:
    """O20, O21: 64 parallel clients; the rows add up, there are fewer runs than rows, every answer was its own."""
    url = f"{server.url}/v2/models/floats"
    before = requests.get(f"{url}/stats", timeout=60).json()["model_stats"][0]

    def ask(thread: int) -> None:
        with requests.Session() as session:
            for i in range(thread * 10, thread * 10 + 10):
                body = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [i, -i]}]}
                assert session.post(f"{url}/infer", json=body, timeout=60).json()["outputs"][0]["data"] == [i, -i]

    with ThreadPoolExecutor(64) as pool:
        list(pool.map(ask, range(64)))
    after = client.get_inference_statistics("floats")["model_stats"][0]
    assert after["inference_count"] - before["inference_count"] == 640
    assert 0 < after["execution_count"] - before["execution_count"] <= 640
    success = after["inference_stats"]["success"]
    assert success["count"] >= 640
    assert success["ns"] > 0
    assert sum(b["compute_infer"]["count"] for b in after["batch_stats"]) == after["execution_count"]
    everything = requests.get(f"{server.url}/v2/models/stats", timeout=60).json()
    assert {m["name"] for m in everything["model_stats"]} >= {"iris", "sums", "floats"}


def test_metrics_have_tritons_names_and_a_histogram(server: Running, client: triton.InferenceServerClient) -> None:
    """O23: nv_ counters with model and version, and a latency histogram of our own."""
    client.infer("iris", [rows(ROW)])
    page = requests.get(f"{server.url}/metrics", timeout=60).text
    assert 'nv_inference_request_success{model="iris",version="3"}' in page
    assert "nv_inference_exec_count" in page
    assert 'dragoman_request_duration_seconds_bucket{model="iris",version="3",dialect="v2",le="+Inf"}' in page


def test_generate_and_its_stream(server: Running) -> None:
    """O24: a text model answers both forms; an error before the first event is an ordinary error."""
    body = {"id": "g", "x": "hello"}
    answer = requests.post(f"{server.url}/v2/models/text/generate", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.json()["id"] == "g"
    assert "hello" in json.dumps(answer.json())
    stream = requests.post(f"{server.url}/v2/models/text/generate_stream", json=body, timeout=60)
    assert stream.headers["Content-Type"].startswith("text/event-stream")
    events = [line for line in stream.text.split("\n\n") if line]
    assert all(e.startswith("data: ") for e in events)
    assert "hello" in json.dumps(json.loads(events[0].removeprefix("data: ")))
    assert requests.post(f"{server.url}/v2/models/nothing/generate_stream", json=body, timeout=60).status_code == 404
    assert requests.post(f"{server.url}/v2/models/text/generate_stream", data=b"{", timeout=60).status_code == 400


def test_settings_take_effect_or_are_refused(server: Running, client: triton.InferenceServerClient) -> None:
    """O25: reading and writing through tritonclient; what cannot take effect is a 4xx."""
    assert client.get_log_settings()["log_info"] is True
    assert client.update_log_settings({"log_verbose_level": 1})["log_verbose_level"] == 1
    assert client.update_log_settings({"log_verbose_level": 0})["log_verbose_level"] == 0
    settings = client.get_trace_settings()
    assert settings["trace_level"] == ["OFF"]
    changed = client.update_trace_settings(model_name="iris", settings={"trace_rate": "5"})
    assert changed["trace_rate"] == "5"
    refused = requests.post(f"{server.url}/v2/trace/setting", json={"trace_level": ["TENSORS"]}, timeout=60)
    assert 400 <= refused.status_code < 500
    assert requests.post(f"{server.url}/v2/logging", json={"log_file": "/etc/passwd"}, timeout=60).status_code == 400


def test_shared_memory_is_refused_cleanly(server: Running, client: triton.InferenceServerClient) -> None:
    """O26: a clear 4xx or 501, and not in the extensions."""
    with pytest.raises(InferenceServerException, match="shared memory"):
        client.get_system_shared_memory_status()
    body = {
        "inputs": [
            {"name": "X", "shape": [1, 4], "datatype": "FP32", "parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 16}}
        ]
    }
    answer = requests.post(f"{server.url}/v2/models/iris/infer", json=body, timeout=60)
    assert answer.status_code == 400


def test_large_bodies(client: triton.InferenceServerClient) -> None:
    """O11: 64 MiB of tensor data in one request, binary both ways."""
    big = np.arange(16 << 20, dtype="f4").reshape(1, -1)
    tensor = triton.InferInput("x", list(big.shape), "FP32")
    tensor.set_data_from_numpy(big)
    name = client.get_model_metadata("floats")["outputs"][0]["name"]
    np.testing.assert_array_equal(client.infer("floats", [tensor]).as_numpy(name), big)


def test_asyncio_client(server: Running) -> None:
    """O29: tritonclient's asyncio client, many requests at once; and its blocking async_infer."""

    async def work() -> None:
        async with triton_aio.InferenceServerClient(server.address) as client:
            assert await client.is_model_ready("iris")
            results = await asyncio.gather(*(client.infer("iris", [rows(ROW)], request_id=str(i)) for i in range(50)))
            assert [r.get_response()["id"] for r in results] == [str(i) for i in range(50)]

    asyncio.run(work())
    with triton.InferenceServerClient(server.address, concurrency=8) as client:
        pending = [client.async_infer("iris", [rows(ROW)]) for _ in range(50)]
        assert all(p.get_result().as_numpy("label").tolist() == [[0]] for p in pending)


def test_reserved_and_sequence_parameters(server: Running, client: triton.InferenceServerClient) -> None:
    """O31: triton_ keys are refused, sequence parameters accepted."""
    assert client.infer("iris", [rows(ROW)], sequence_id=7, sequence_start=True).as_numpy("label").tolist() == [[0]]
    body = {
        "parameters": {"triton_enable_empty_final_response": True},
        "inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "data": ROW}],
    }
    assert requests.post(f"{server.url}/v2/models/iris/infer", json=body, timeout=60).status_code == 400


def test_timeout_and_priority_are_taken(server: Running, client: triton.InferenceServerClient) -> None:
    """O30: both parameters are honoured or do no harm."""
    assert client.infer("iris", [rows(ROW)], timeout=5_000_000, priority=1).as_numpy("label").tolist() == [[0]]


def test_a_timeout_ends_a_queued_request(tmp_path: Path) -> None:
    """O30: behind a slow run, a request with a time-out of 50 ms is answered with an error long before its turn."""
    with serving(tmp_path, str(build.slow(tmp_path / "slow.onnx")), *ONE_BY_ONE) as server, ThreadPoolExecutor(2) as pool:
        _rounds(server, 100)  # from now on the model is known to be slow, and runs in its thread
        busy = [pool.submit(_rounds, server, 3_000) for _ in range(2)]
        _wait_for_metric(server, "nv_inference_pending_request_count", 1)
        late = _rounds(server, 1, {"timeout": 50_000})
        assert late.status_code == 503, late.text
        assert "deadline" in late.json()["error"]
        assert [b.result().status_code for b in busy] == [200, 200]


def test_hanging_up_cancels_queued_work(tmp_path: Path) -> None:
    """O30: requests whose clients left before their turn are never run, and the others are."""
    with serving(tmp_path, str(build.slow(tmp_path / "slow.onnx")), *ONE_BY_ONE) as server, ThreadPoolExecutor(2) as pool:
        _rounds(server, 100)
        busy = pool.submit(_rounds, server, 5_000)
        body = json.dumps({"inputs": [{"name": "rounds", "shape": [1], "datatype": "INT64", "data": [5_000]}]}).encode()
        connections = []
        for _ in range(5):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
            connection.request("POST", "/v2/models/slow/infer", body)
            connections.append(connection)
        _wait_for_metric(server, "nv_inference_pending_request_count", 5)  # and the first one runs
        for connection in connections:
            assert connection.sock is not None
            connection.sock.shutdown(socket.SHUT_RDWR)
            connection.close()
        _wait_for_metric(server, "nv_inference_pending_request_count", 0)
        assert busy.result().status_code == 200
        stats = requests.get(f"{server.url}/v2/models/slow/stats", timeout=60).json()["model_stats"][0]
        assert stats["execution_count"] <= 3  # the first, the busy one, and one more if that one was quicker than the busy one


def _rounds(server: Running, rounds: int, parameters: dict[str, Any] | None = None) -> requests.Response:
    """Ask the slow model for so many rounds."""
    body = {"inputs": [{"name": "rounds", "shape": [1], "datatype": "INT64", "data": [rounds]}], "parameters": parameters or {}}
    return requests.post(f"{server.url}/v2/models/slow/infer", json=body, timeout=100)


def _wait_for_metric(server: Running, name: str, value: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        lines = [x for x in requests.get(f"{server.url}/metrics", timeout=60).text.splitlines() if x.startswith(name)]
        if lines and float(lines[0].rsplit(" ", 1)[1]) == value:
            return
        assert time.monotonic() < deadline, lines
        time.sleep(0.01)


# --- the repository, on a server of its own: these tests change it ---


def _index(client: triton.InferenceServerClient) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in client.get_model_repository_index()}


def test_load_unload_and_reload(tmp_path: Path) -> None:
    """O18: the index tells the states, unload and load work, a failed reload keeps the old model, an unknown one is 404."""
    root = repository(tmp_path / "models")
    with serving(tmp_path, str(root)) as server, triton.InferenceServerClient(server.address, network_timeout=60) as client:
        assert _index(client)["sums"]["state"] == "READY"
        client.unload_model("sums")
        deadline = time.monotonic() + 60
        while _index(client)["sums"]["state"] != "UNAVAILABLE":
            assert time.monotonic() < deadline
        assert not client.is_model_ready("sums")
        assert client.is_server_ready()
        client.load_model("sums")
        assert client.is_model_ready("sums")
        (root / "sums" / "1" / "model.onnx").write_bytes(b"broken")
        with pytest.raises(InferenceServerException, match="sums"):
            client.load_model("sums")
        a = triton.InferInput("INPUT0", [1, 16], "INT32")
        a.set_data_from_numpy(np.ones((1, 16), "i4"))
        b = triton.InferInput("INPUT1", [1, 16], "INT32")
        b.set_data_from_numpy(np.ones((1, 16), "i4"))
        assert client.infer("sums", [a, b]).as_numpy("OUTPUT0").tolist() == [[2] * 16]
        with pytest.raises(InferenceServerException, match="unknown-model"):
            client.load_model("unknown-model")
        ready = requests.post(f"{server.url}/v2/repository/index", json={"ready": True}, timeout=60).json()
        assert all(row["state"] == "READY" for row in ready)


def test_load_with_configuration_and_files(tmp_path: Path) -> None:
    """O18: a model whose configuration and file come in the load request itself."""
    content = build.add_sub(tmp_path / "source.onnx").read_bytes()
    with serving(tmp_path, str(repository(tmp_path / "models"))) as server, triton.InferenceServerClient(server.address) as client:
        client.load_model("fresh", config=json.dumps({"backend": "onnxruntime", "max_batch_size": 4}), files={"file:1/model.onnx": content})
        assert client.get_model_config("fresh")["max_batch_size"] == 4
        hostile = {"parameters": {"config": "{}", "file:../../evil": base64.b64encode(b"x").decode()}}
        answer = requests.post(f"{server.url}/v2/repository/models/evil/load", json=hostile, timeout=60)
        assert answer.status_code == 400
        damaged = {"parameters": {"config": "{}", "file:1/model.onnx": base64.b64encode(b"x").decode()}}
        answer = requests.post(f"{server.url}/v2/repository/models/sums/load", json=damaged, timeout=60)
        assert (answer.status_code, "damaged" in answer.json()["error"]) == (400, True)
        assert client.is_model_ready("sums")


def test_unload_lets_requests_in_flight_finish(tmp_path: Path) -> None:
    """O18: requests that run or wait when their model is unloaded are answered."""
    with serving(tmp_path, str(build.slow(tmp_path / "slow.onnx")), *ONE_BY_ONE) as server, ThreadPoolExecutor(2) as pool:
        _rounds(server, 100)
        running = [pool.submit(_rounds, server, 2_000) for _ in range(2)]
        _wait_for_metric(server, "nv_inference_pending_request_count", 1)
        assert requests.post(f"{server.url}/v2/repository/models/slow/unload", timeout=60).status_code == 200
        assert [r.result().status_code for r in running] == [200, 200]
        assert _rounds(server, 1).status_code == 503


def test_a_foreign_page_cannot_change_the_server(server: Running) -> None:
    """A browser on this machine sends its page's Origin: loading and unloading are refused, inference is not."""
    headers = {"Origin": "https://evil.example"}
    assert requests.post(f"{server.url}/v2/repository/models/iris/unload", headers=headers, timeout=60).status_code == 403
    rebound = requests.post(f"{server.url}/v2/repository/models/iris/unload", headers={"Host": "evil.example"}, timeout=60)
    assert rebound.status_code == 403
    body = {"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "data": ROW}]}
    assert requests.post(f"{server.url}/v2/models/iris/infer", json=body, headers=headers, timeout=60).status_code == 200
