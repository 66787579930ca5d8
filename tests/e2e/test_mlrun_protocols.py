"""Every other protocol against MLRun classes: one with a schema, which is a model of rows to them, and one without. One server for all."""

import json
import queue
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import requests
import tritonclient.grpc as triton

from dragoman.core.tensors import FP64, Tensor
from dragoman.dialects.tfserving.tensor_proto import encode
from dragoman.proto import messages
from tests.e2e.running import Running, serving
from tests.models import mlrun_classes

POINTS = [[1.0, 2.0], [9.0, 8.0]]
NAMED = [{"petal": 2.0, "sepal": 1.0}, {"petal": 8.0, "sepal": 9.0}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("mlrun")
    file, store = mlrun_classes.write(folder / "code")
    arguments = ["--class-args", f"flowers={json.dumps({'model_path': str(store)})}", "--grpc-port", "0"]
    with serving(folder, f"flowers={file}:Flowers", f"echo={file}:Echo", *arguments) as running:
        yield running


def post(server: Running, path: str, body: Any, status: int = 200) -> Any:
    reply = requests.post(server.url + path, json=body, timeout=60)
    assert reply.status_code == status, reply.text
    return reply.json()


def tensor_of(values: Any) -> Any:
    made = triton.InferInput("anything", list(np.shape(values)), "FP64")
    made.set_data_from_numpy(np.array(values))
    return made


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ({"instances": POINTS}, {"predictions": [0, 1]}),
        ({"instances": NAMED}, {"predictions": [0, 1]}),
        ({"inputs": POINTS}, {"outputs": [0, 1]}),
        ({"inputs": {"sepal": [1, 9], "petal": [2, 8]}}, {"outputs": [0, 1]}),
    ],
)
def test_tensorflow_serving(server: Running, body: Any, answer: Any) -> None:
    """Rows and columns, by place and by name."""
    assert post(server, "/v1/models/flowers:predict", body) == answer


def test_tensorflow_serving_of_any_form(server: Running) -> None:
    """Without a schema a row is whatever it is; the metadata names the one field, and types of a schema are types, not names."""
    for points in (POINTS, [1, 2], ["a"], [{"a": 1}, {"b": [2]}]):
        assert post(server, "/v1/models/echo:predict", {"instances": points}) == {"predictions": points}
    told = requests.get(f"{server.url}/v1/models/flowers/metadata", timeout=60).json()["metadata"]["signature_def"]["signature_def"]
    assert told["serving_default"]["inputs"]["sepal"]["name"] == "sepal:0"
    assert told["serving_default"]["outputs"]["kind"]["dtype"] == "DT_INT64"


@pytest.mark.parametrize(
    ("body", "words"),
    [({"instances": [[1]]}, "sepal, petal"), ({"instances": [{"sepal": 1}]}, "petal"), ({"inputs": {"sepal": [1]}}, "petal")],
)
def test_tensorflow_serving_refuses(server: Running, body: Any, words: str) -> None:
    """In its own words."""
    assert words in post(server, "/v1/models/flowers:predict", body, 400)["error"]


def test_tensorflow_serving_over_grpc(server: Running) -> None:
    """One tensor per feature; the answer has the name and the type of the schema."""
    request: Any = messages.new("tensorflow.serving.PredictRequest")
    request.model_spec.name = "flowers"
    for index, name in enumerate(("sepal", "petal")):
        column = Tensor(name, FP64, np.array([point[index] for point in POINTS]))
        request.inputs[name].ParseFromString(b"".join(bytes(part) for part in encode(column)))
    with grpc.insecure_channel(server.grpc) as channel:
        raw = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")(request.SerializeToString(), timeout=60)
    answer: Any = messages.parse("tensorflow.serving.PredictResponse", raw)
    assert list(answer.outputs["kind"].int64_val) == [0, 1]


def test_tungsten(server: Running) -> None:
    """Predict and predictions of rows by name and of plain lists; the description has the schema of one point."""
    assert post(server, "/models/flowers/predict", NAMED) == {"outputs": [0, 1], "status": "success", "error_message": None}
    assert post(server, "/predict", NAMED[:1])["outputs"] == [0]
    assert post(server, "/models/echo/predict", [{"inputs": [1, "x"]}, {"inputs": None}])["outputs"] == [[1, "x"], None]
    assert post(server, "/models/flowers/predict", POINTS)["outputs"] == [0, 1]
    assert post(server, "/models/echo/predict", [[1, "x"], {"a": 1}, "text"])["outputs"] == [[1, "x"], {"a": 1}, "text"]
    assert post(server, "/models/flowers/predict", [[1, 2, 3]], 422)["detail"][0]["msg"] == "value is not a valid dict"
    created = post(server, "/models/flowers/predictions", NAMED)["prediction_id"]
    view = requests.get(f"{server.url}/models/flowers/predictions/{created}?wait=30", timeout=60).json()
    assert (view["status"], view["outputs"]) == ("success", [0, 1])
    described = requests.get(f"{server.url}/models/flowers", timeout=60).json()
    assert described["input_schema"]["required"] == ["sepal", "petal"]
    assert described["output_schema"]["properties"] == {"kind": {"type": "integer"}}
    assert post(server, "/models/flowers/predict", [{"sepal": 1}], 422)["detail"][0]["loc"][-1] == "petal"


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": ["petal", "sepal"], "data": [[2, 1], [8, 9]]}},
        {"dataframe_split": {"data": POINTS}},
        {"dataframe_records": NAMED},
        {"instances": POINTS},
        {"instances": NAMED},
        {"inputs": POINTS},
        {"inputs": {"petal": [2, 8], "sepal": [1, 9]}},
    ],
)
def test_mlflow_scoring(server: Running, body: Any) -> None:
    """Frames, records, instances and inputs, by name and by place."""
    assert post(server, "/serve/flowers-1/invocations", body) == {"predictions": [0, 1]}


def test_mlflow_scoring_of_any_form(server: Running) -> None:
    """CSV too; without a schema a row of a table is the list of its cells."""
    csv = requests.post(
        f"{server.url}/serve/flowers-1/invocations", data="petal,sepal\n2,1\n8,9\n", headers={"Content-Type": "text/csv"}, timeout=60
    )
    assert csv.json() == {"predictions": [0, 1]}
    frame = {"dataframe_split": {"columns": ["a", "b"], "data": [[1, "x"], [2, "y"]]}}
    assert post(server, "/serve/echo-1/invocations", frame) == {"predictions": [[1, "x"], [2, "y"]]}
    assert post(server, "/serve/echo-1/invocations", {"inputs": POINTS}) == {"predictions": POINTS}
    assert "petal" in post(server, "/serve/flowers-1/invocations", {"dataframe_records": [{"sepal": 1}]}, 400)["message"]


@pytest.mark.parametrize(
    "data",
    [
        {"ndarray": POINTS},
        {"names": ["petal", "sepal"], "ndarray": [[2, 1], [8, 9]]},
        {"tensor": {"shape": [2, 2], "values": [1, 2, 9, 8]}},
    ],
)
def test_seldon(server: Running, data: Any) -> None:
    """Arrays with names and without."""
    assert post(server, "/serve/flowers-1/api/v1.0/predictions", {"data": data})["data"]["ndarray"] == [0, 1]
    expected = POINTS if "names" not in data else [[2, 1], [8, 9]]
    assert post(server, "/serve/echo-1/api/v1.0/predictions", {"data": data})["data"]["ndarray"] == expected


def test_open_inference_over_grpc(server: Running) -> None:
    """Metadata, one tensor or one per feature, and a stream."""
    with triton.InferenceServerClient(server.grpc) as client:
        assert [each.name for each in client.get_model_metadata("flowers").inputs] == ["sepal", "petal"]
        assert client.infer("flowers", [tensor_of(POINTS)]).as_numpy("kind").tolist() == [0, 1]
        assert client.infer("echo", [tensor_of(POINTS)]).as_numpy("output").tolist() == POINTS
        heard: queue.Queue[Any] = queue.Queue()
        client.start_stream(lambda result, error: heard.put((result, error)))
        for model, points in (("flowers", POINTS), ("flowers", POINTS[1:]), ("echo", POINTS)):
            client.async_stream_infer(model, [tensor_of(points)])
        found = [heard.get(timeout=60) for _ in range(3)]
        client.stop_stream()
    assert [error for _, error in found] == [None] * 3
    assert [result.as_numpy(name).tolist() for (result, _), name in zip(found, ("kind", "kind", "output"), strict=True)] == [
        [0, 1], [1], POINTS,
    ]  # fmt: skip


def test_generate(server: Running) -> None:
    """Fields of one point in, the named output back; as a stream one event."""
    point = {"sepal": 9, "petal": 8}
    answer = {"model_name": "flowers", "model_version": "1", "kind": 1}
    assert post(server, "/v2/models/flowers/generate", point) == answer
    events = requests.post(f"{server.url}/v2/models/flowers/generate_stream", json=point, timeout=60)
    assert events.headers["content-type"].startswith("text/event-stream")
    assert json.loads(events.text.removeprefix("data: ")) == answer
    assert post(server, "/v2/models/echo/generate", {"inputs": [4]})["output"] == [4]


def test_raw_binary(server: Running) -> None:
    """A body that is nothing but data is one file."""
    headers = {"Inference-Header-Content-Length": "0"}
    reply = requests.post(f"{server.url}/v2/models/echo/infer", data=b"\x00\x01xyz", headers=headers, timeout=60)
    length = int(reply.headers["Inference-Header-Content-Length"])
    assert json.loads(reply.content[:length])["outputs"][0]["shape"] == [3]
    assert b"BytesIO" in reply.content[length:]


def test_pages_and_documents(server: Running) -> None:
    """The OpenAPI document lists each operation of a class, and its example works; so does every command of the start page."""
    document = requests.get(f"{server.url}/openapi.json", timeout=60).json()
    have = {path.rpartition("/")[2] for path in document["paths"] if path.startswith("/v2/models/echo/")}
    assert have == {"infer", "predict", "infer_dict", "predict_dict", "event", "text"}
    assert "/v2/models/flowers/versions/1/explain" in document["paths"]
    tried = 0
    for path, operations in document["paths"].items():
        content = operations.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json", {})
        if "example" in content:
            assert requests.post(server.url + path, json=content["example"], timeout=60).status_code == 200, path
            tried += 1
    assert tried >= 4
    for page in ("/docs", "/"):
        assert "flowers" in requests.get(server.url + page, headers={"Accept": "text/html"}, timeout=60).text
