"""Classes written for MLRun, served by the real command without MLRun: every operation by MLRun's routes, and the same models by other protocols."""

import concurrent.futures
import json
import pickle
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import tritonclient.http as triton

from tests.e2e.running import Running, serving

MODELS = '''
"""As a data scientist writes them for MLRun."""
import pathlib
import pickle
import time

import mlrun
import numpy as np
from mlrun.serving import V2ModelServer


class IrisClassifier(V2ModelServer):
    def load(self):
        file, extra = self.get_model(suffix=".pkl")
        with open(file, "rb") as model:
            self.model = pickle.load(model)
        self.names = extra["names"].as_df()["name"].tolist()

    def validate(self, request, operation):
        request = super().validate(request, operation)
        if any(isinstance(point, list) and len(point) != 4 for point in request["inputs"]):
            raise ValueError("a flower has four features")
        return request

    def predict(self, request):
        weights = np.array(self.model["weights"])
        return (np.array(request["inputs"], float) @ weights > self.get_param("limit")).astype("int64")

    def explain(self, request):
        return {"weights": np.array(self.model["weights"], "float32"), "points": len(request["inputs"])}

    def op_names(self, event):
        return {"names": self.names, "asked": event.body, "by": event.method}


class VersionTag(V2ModelServer):
    def load(self):
        self.model = self.get_param("k", 0)

    def predict(self, request):
        return [self.model, self.name, self.version]


class Echo(V2ModelServer):
    def load(self):
        self.model = 1

    def predict(self, request):
        inputs = request["inputs"]
        if inputs and hasattr(inputs[0], "read"):
            return [len(inputs[0].read())]
        if request.get("parameters", {}).get("teapot"):
            return self.context.Response(body={"short": True}, status_code=418, headers={"x-spout": "1"})
        if request.get("parameters", {}).get("fail"):
            raise RuntimeError("as it was asked to")
        return inputs if "whole" not in request else request


class Abstract(V2ModelServer):
    def load(self):
        self.model = 1

    def predict(self, request):
        raise NotImplementedError("not yet")


class Broken(V2ModelServer):
    def load(self):
        raise FileNotFoundError("the weights are gone")


class Slow(V2ModelServer):
    def load(self):
        gate = pathlib.Path(self.get_param("gate"))
        while not gate.exists():
            time.sleep(0.01)
        self.model = 1

    def predict(self, request):
        return ["awake"]
'''
SPEC = """
kind: model
metadata: {key: iris}
spec:
  model_file: weights.pkl
  parameters: {limit: 1.0}
  inputs:
  - {name: sepal_length, value_type: float}
  - {name: sepal_width, value_type: float}
  - {name: petal_length, value_type: float}
  - {name: petal_width, value_type: float}
  outputs: [{name: class, value_type: int}]
  extra_data: {names: names.csv}
"""
POINTS = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.1, 4.7, 1.5]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class file, and a logged model."""
    made = tmp_path_factory.mktemp("mlrun")
    (made / "models.py").write_text(MODELS)
    (made / "iris").mkdir()
    (made / "iris" / "weights.pkl").write_bytes(pickle.dumps({"weights": [0.0, 0.0, 0.0, 1.0]}))
    (made / "iris" / "names.csv").write_text("name\nsetosa\nversicolor\n")
    (made / "iris" / "model_spec.yaml").write_text(SPEC)
    return made


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Four names, one of them with two versions, behind one port."""
    file = folder / "models.py"
    targets = [f"iris={file}:IrisClassifier", f"m3:v1={file}:VersionTag", f"m3:v2={file}:VersionTag"]
    targets += [f"echo={file}:Echo", f"abstract={file}:Abstract"]
    path = json.dumps({"model_path": str(folder / "iris")})
    arguments = ["--class-args", f"iris={path}", "--class-args", 'm3:v1={"k": 1}']
    with serving(tmp_path_factory.mktemp("data"), *targets, *arguments) as running:
        yield running


def ask(server: Running, path: str, body: Any = None, **options: Any) -> "requests.Response":
    method = "GET" if body is None and "data" not in options else "POST"
    return requests.request(method, f"{server.url}{path}", json=body, timeout=30, **options)


def answer(server: Running, path: str, body: Any) -> Any:
    response = ask(server, path, body)
    assert response.status_code == 200, response.text
    return response.json()


def error(server: Running, path: str, body: Any = None, **options: Any) -> tuple[int, str]:
    response = ask(server, path, body, **options)
    return response.status_code, response.json()["error"]


# --- MLRun's own routes ---


@pytest.mark.parametrize("operation", ["infer", "predict"])
def test_infer(server: Running, operation: str) -> None:
    """A batch, and the id that came with it; without one every answer has its own (M1, M7)."""
    body = answer(server, f"/v2/models/iris/{operation}", {"id": 7, "inputs": POINTS})
    assert (body["id"], body["model_name"], body["outputs"]) == (7, "iris", [0, 1])
    assert "model_version" not in body
    ids = {answer(server, f"/v2/models/iris/{operation}", {"inputs": POINTS})["id"] for _ in range(3)}
    assert len(ids) == 3


def test_infer_by_names(server: Running) -> None:
    """In any order, with more than is asked for (M10, M12); a missing feature is named (M11)."""
    point = dict(zip(["petal_width", "petal_length", "sepal_width", "sepal_length"], [1.5, 4.7, 3.1, 6.7], strict=True))
    assert answer(server, "/v2/models/iris/infer_dict", {"inputs": [{**point, "more": 1}]})["outputs"] == [1]
    del point["sepal_width"]
    status, text = error(server, "/v2/models/iris/predict_dict", {"inputs": [point]})
    assert status == 400
    assert "sepal_width" in text
    status, text = error(server, "/v2/models/echo/infer_dict", {"inputs": [point]})
    assert status == 400
    assert "'echo'" in text


def test_explain(server: Running) -> None:
    """In the same shape (M2); arrays are lists (M27). A class that brings none says what would."""
    body = answer(server, "/v2/models/iris/explain", {"id": "e", "inputs": POINTS})
    assert body == {"id": "e", "model_name": "iris", "outputs": {"weights": [0.0, 0.0, 0.0, 1.0], "points": 2}}
    status, text = error(server, "/v2/models/echo/explain", {"inputs": []})
    assert status == 501
    assert "'echo'" in text


def test_versions(server: Running) -> None:
    """In the path both ways (M22); the answer names them, and each has class arguments of its own (M23)."""
    for path, version, k in (("m3/versions/v1", "v1", 1), ("m3:v1", "v1", 1), ("m3:v2", "v2", 0)):
        body = answer(server, f"/v2/models/{path}/infer", {"inputs": []})
        assert (body["model_name"], body["model_version"], body["outputs"]) == ("m3", version, [k, "m3", version])
    status, text = error(server, "/v2/models/m3/versions/v9/infer", {"inputs": []})
    assert 400 <= status < 500
    assert "v9" in text
    assert ask(server, "/v2/models/").json() == {"models": ["iris", "m3:v1", "m3:v2", "echo", "abstract"]}


def test_custom_operations(server: Running) -> None:
    """The answer of op_xx has no envelope."""
    assert answer(server, "/v2/models/iris/names", {"a": 1}) == {"names": ["setosa", "versicolor"], "asked": {"a": 1}, "by": "POST"}
    status, text = error(server, "/v2/models/iris/numbers", {})
    assert 400 <= status < 500
    assert "numbers" in text


def test_metadata_is_the_schema(server: Running) -> None:
    """Of the logged model; a class without one has none (M4)."""
    body = ask(server, "/v2/models/iris").json()
    assert [(each["name"], each["value_type"]) for each in body["inputs"]] == [
        ("sepal_length", "float"), ("sepal_width", "float"), ("petal_length", "float"), ("petal_width", "float")
    ]  # fmt: skip
    assert [(each["name"], each["value_type"]) for each in body["outputs"]] == [("class", "int")]
    assert ask(server, "/v2/models/m3/versions/v1").json()["outputs"] == []


@pytest.mark.parametrize(
    "inputs", [[1, "a", None, 2.5, True], [[1, "a"], [None, {"b": []}]], [], [[[[0, 255]]]], [{"name": "a", "shape": 1}]]
)
def test_values_come_as_they_are(server: Running, inputs: list[Any]) -> None:
    """Single points, mixed types, pictures as nested lists (M8, M9)."""
    assert answer(server, "/v2/models/echo/infer", {"inputs": inputs})["outputs"] == inputs


def test_the_whole_request_reaches_predict(server: Running) -> None:
    """parameters, outputs and fields that nobody knows (M14)."""
    body = {"id": "i", "inputs": [1], "parameters": {"p": {"q": [1]}}, "outputs": ["o"], "whole": True, "other": [1]}
    assert answer(server, "/v2/models/echo", body)["outputs"] == body


def test_a_picture(server: Running) -> None:
    """Its bytes are the one input (M15)."""
    response = ask(server, "/v2/models/echo/infer", data=b"\x89PNG\x00\xff", headers={"Content-Type": "image/png"})
    assert (response.status_code, response.json()["outputs"]) == (200, [6])


def test_errors_of_hooks(server: Running) -> None:
    """What validate raises is the caller's, what predict raises is not; a Response keeps its status; the model goes on (M24, M25)."""
    status, text = error(server, "/v2/models/iris/infer", {"inputs": [[1, 2]]})
    assert (status, "ValueError: a flower has four features" in text) == (400, True)
    status, text = error(server, "/v2/models/iris/infer", {"inputs": {}})
    assert (status, "list" in text) == (400, True)
    status, text = error(server, "/v2/models/echo/infer", {"inputs": [], "parameters": {"fail": True}})
    assert (status, "RuntimeError: as it was asked to" in text) == (500, True)
    status, text = error(server, "/v2/models/abstract/infer", {"inputs": []})
    assert (status, "not yet" in text) == (501, True)
    response = ask(server, "/v2/models/echo/infer", {"inputs": [], "parameters": {"teapot": 1}})
    assert (response.status_code, response.json(), response.headers["x-spout"]) == (418, {"short": True}, "1")
    assert ask(server, "/v2/models/echo/ready").status_code == 200


def test_many_callers(server: Running) -> None:
    """Each gets its own answer (M30), and a long body its own length."""

    def one(number: int) -> bool:
        body = answer(server, "/v2/models/echo/infer", {"id": number, "inputs": [number]})
        return bool((body["id"], body["outputs"]) == (number, [number]))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(80)))
    rows = [[float(n), 0.0, 0.0, 2.0] for n in range(20_000)]
    assert answer(server, "/v2/models/iris/infer", {"inputs": rows})["outputs"] == [1] * len(rows)


# --- the same models by other protocols ---


def test_tritonclient(server: Running) -> None:
    """JSON and binary tensors, one or one for each feature; outputs by the schema's name (M28)."""
    client = triton.InferenceServerClient(server.address)
    try:
        assert client.is_model_ready("iris")
        assert client.is_model_ready("m3", "v1")
        for binary in (True, False):
            tensor = triton.InferInput("x", [2, 4], "FP32")
            tensor.set_data_from_numpy(np.array(POINTS, "f4"), binary_data=binary)
            result = client.infer("iris", [tensor], outputs=[triton.InferRequestedOutput("class", binary_data=binary)], request_id="t")
            assert result.as_numpy("class").tolist() == [0, 1]
            assert result.get_response()["id"] == "t"
        columns = []
        for index in (3, 0, 1, 2):
            name = ["sepal_length", "sepal_width", "petal_length", "petal_width"][index]
            column = triton.InferInput(name, [2], "FP64")
            column.set_data_from_numpy(np.array([point[index] for point in POINTS]))
            columns.append(column)
        assert client.infer("iris", columns).as_numpy("class").tolist() == [0, 1]
        text = triton.InferInput("text", [2], "BYTES")
        text.set_data_from_numpy(np.array([b"a", "ä".encode()], object))
        assert client.infer("echo", [text]).as_numpy("output").tolist() == [b"a", "ä".encode()]
    finally:
        client.close()


def test_tensorflow_serving(server: Running) -> None:
    """Rows by name, and bare values of a class without a schema."""
    names = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
    rows = [dict(zip(names, point, strict=True)) for point in POINTS]
    assert answer(server, "/v1/models/iris:predict", {"instances": rows}) == {"predictions": [0, 1]}
    assert answer(server, "/v1/models/echo:predict", {"instances": [[1, 2], [3, 4]]}) == {"predictions": [[1, 2], [3, 4]]}


# --- loading ---


def until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_background_loading(folder: Path, tmp_path: Path) -> None:
    """While one loads it is not ready and is not asked; others answer; a failed load says why; the port is open all the time (M26)."""
    gate = tmp_path / "gate"
    file = folder / "models.py"
    targets = [f"slow={file}:Slow", f"broken={file}:Broken", f"echo={file}:Echo"]
    arguments = ["--load", "background", "--class-args", f"slow={json.dumps({'gate': str(gate)})}"]
    with serving(tmp_path / "data", *targets, *arguments) as server:
        until(lambda: ask(server, "/v2/models/echo/ready").status_code == 200)
        assert ask(server, "/v2/models/slow/ready").status_code == 408
        status, text = error(server, "/v2/models/slow/infer", {"inputs": []})
        assert status == 503
        assert "loading" in text
        assert answer(server, "/v2/models/echo/infer", {"inputs": [1]})["outputs"] == [1]
        assert ask(server, "/v2/health").status_code == 200
        until(lambda: "weights are gone" in ask(server, "/v2/models/broken/ready").text)
        assert ask(server, "/v2/models/broken/ready").status_code == 408
        gate.touch()
        until(lambda: ask(server, "/v2/models/slow/ready").status_code == 200)
        assert answer(server, "/v2/models/slow/infer", {"inputs": []})["outputs"] == ["awake"]
