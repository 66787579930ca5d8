"""MLRun's dialect over real sockets, row by row, for MLRun classes and an ONNX model; requests and tritonclient ask one server."""

import itertools
import json
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests.e2e.crowd import until
from tests.e2e.running import Running, serving
from tests.models import build, mlrun_classes

FLOWER = [5.0, 3.4, 1.5, 0.2]
TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}\+00:00\Z")


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that data_url may read."""
    folder = tmp_path_factory.mktemp("opened")
    (folder / "list.json").write_text("[[3, 4], [9, 8]]")
    (folder / "object.json").write_text('{"inputs": [[6, 7]], "id": "not this one"}')
    (folder / "picture.bin").write_bytes(b"\x89PNG and more")
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, opened: Path) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("mlrun")
    file, store = mlrun_classes.write(folder / "code")
    build.iris(folder / "iris.onnx")
    targets = [f"flowers={file}:Flowers", f"echo={file}:Echo", f"m3:v1={file}:Versioned", f"m3:v2={file}:Versioned"]
    targets += [f"iris={folder / 'iris.onnx'}", f"gone={file}:Unready"]
    arguments = ["--class-args", f"flowers={json.dumps({'model_path': str(store)})}", "--class-args", 'm3:v1={"k": 1}']
    with serving(folder, *targets, *arguments, "--allow-fetch", f"file://{opened}") as running:
        yield running


def post(server: Running, path: str, body: Any = None, **options: Any) -> requests.Response:
    """A POST below /v2/models/."""
    return requests.post(f"{server.url}/v2/models/{path}", **({"json": body} if body is not None else {}), **options, timeout=60)


def get(server: Running, path: str) -> requests.Response:
    return requests.get(server.url + path, timeout=60)


# --- M1, M2, M7, M22: operations and ids ---


@pytest.mark.parametrize("path", ["infer", "predict", "", "versions/1/infer", "versions/1/predict", "infer/"])
@pytest.mark.parametrize(("model", "inputs"), [("flowers", [[1, 2], [9, 8]]), ("iris", [FLOWER, [6.5, 3.0, 5.6, 2.0]])])
def test_infer_and_predict(server: Running, model: str, inputs: list[Any], path: str) -> None:
    """M1, M22: the same answer on each of these paths, for a class and for an ONNX model."""
    reply = post(server, f"{model}/{path}" if path else model, {"inputs": inputs, "id": "a"})
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "application/json"
    document = reply.json()
    assert list(document) == ["id", "model_name", "outputs", "timestamp"]
    assert (document["id"], document["model_name"], len(document["outputs"])) == ("a", model, 2)
    assert TIME.match(document["timestamp"])
    if model == "flowers":
        assert document["outputs"] == [0, 1]


def test_versions(server: Running) -> None:
    """M1, M22: model_version for a version that has a name; name:version is the same as /versions/version."""
    for version, k in (("v1", 1), ("v2", 0)):
        for path in (f"m3:{version}/infer", f"m3/versions/{version}/infer", f"m3%3A{version}/predict", f"m3:{version}"):
            document = post(server, path, {"inputs": [1]}).json()
            assert (document["model_name"], document["model_version"], document["outputs"]) == ("m3", version, ["m3", version, k])


def test_explain(server: Running) -> None:
    """M2: the class's own; where there is none, 501."""
    document = post(server, "flowers/explain", {"inputs": [[1, 2]], "id": 9}).json()
    assert document == {"id": 9, "model_name": "flowers", "outputs": {"limit": 10, "inputs": [[1, 2]]}}
    assert post(server, "echo/explain", {"inputs": [1]}).status_code == 501
    assert post(server, "iris/explain", {"inputs": [FLOWER]}).status_code == 501


@pytest.mark.parametrize("given", ["text", "", 7, -1.5, None, True, [1, "x"], {"a": None}, "ü😀", "x" * 10_000])
@pytest.mark.parametrize("path", ["echo/infer", "iris/predict", "flowers/explain", "flowers/infer_dict"])
def test_ids_come_back(server: Running, path: str, given: Any) -> None:
    """M7: of whatever type, from every operation."""
    inputs = {"iris/predict": [FLOWER], "flowers/infer_dict": [{"sepal": 1, "petal": 2}]}.get(path, [[1, 2]])
    assert post(server, path, {"inputs": inputs, "id": given}).json()["id"] == given


def test_ids_that_nobody_gave(server: Running) -> None:
    """M7: a new one each time."""
    found = [post(server, path, {"inputs": [FLOWER]}).json()["id"] for path in ("iris/infer", "echo/infer") for _ in range(5)]
    assert len(set(found)) == 10
    assert all(isinstance(each, str) and len(each) > 8 for each in found)


# --- M3 to M6: what is told ---


def test_ready(server: Running) -> None:
    """M3: 200, or 4xx with the reason for one that failed and one that is not there."""
    for path in ("echo", "iris", "m3:v1", "m3/versions/v2"):
        assert get(server, f"/v2/models/{path}/ready").status_code == 200
    failed = get(server, "/v2/models/gone/ready")
    assert (failed.status_code, "the weights are gone" in failed.text) == (408, True)
    for path in ("nobody", "nobody:v1", "m3/versions/v9", "m3:v9"):
        assert get(server, f"/v2/models/{path}/ready").status_code == 404


def test_metadata(server: Running) -> None:
    """M4: the schema of a model that was logged with one, else empty lists; for ONNX what the file says."""
    flowers = get(server, "/v2/models/flowers").json()
    assert [(e["name"], e["value_type"]) for e in flowers["inputs"]] == [("sepal", "float"), ("petal", "float")]
    assert [(e["name"], e["value_type"]) for e in flowers["outputs"]] == [("kind", "int")]
    assert (flowers["name"], flowers["version"]) == ("flowers", "")
    echo = get(server, "/v2/models/echo").json()
    assert (echo["inputs"], echo["outputs"]) == ([], [])
    assert [get(server, path).json()["version"] for path in ("/v2/models/m3:v1", "/v2/models/m3/versions/v2")] == ["v1", "v2"]
    assert get(server, "/v2/models/iris").json()["inputs"][0]["value_type"] == "float32"


def test_server_and_list(server: Running) -> None:
    """M5, M6: at the root and below health; versions with a name as name:version, in the order of the command line, ready or not."""
    for path in ("/", "/v2/health", "/v2/health/"):
        document = get(server, path).json()
        assert (document["name"], document["version"]) == ("dragoman", "v2")
        assert isinstance(document["extensions"], list)
    for path in ("/v2/models", "/v2/models/"):
        assert get(server, path).json() == {"models": ["flowers", "echo", "m3:v1", "m3:v2", "iris", "gone"]}


# --- M8, M9, M14: inputs untouched ---


@pytest.mark.parametrize(
    "inputs",
    [
        [5, 3.0, "red", True, None],
        [[1, "x", 2.5], [2**53 + 1, "y", 0.1]],
        [[[[1], [2]], [[3], [4]]]],
        [[[[0.5] * 3] * 32] * 32] * 2,
        [],
        [[]],
        [{"a": 1}, {"b": [1.0]}],
        [1, 1.0, -0.0, 1e300, 2**63 - 1, -(2**63)],
        ["", "ü😀", "\x00"],
        [[0.1, 2]] * 3_000,
        [list(range(10))] * 2_000,
    ],
)
def test_inputs_are_not_touched(server: Running, inputs: list[Any]) -> None:
    """M8, M9: one point with mixed types, batches, images: the values, their types and their nesting."""
    found = post(server, "echo/infer", {"inputs": inputs}).json()["outputs"]
    assert found == inputs
    assert json.dumps(found) == json.dumps(inputs)


def test_a_single_point(server: Running) -> None:
    """M8: flat, for a class that looks itself, and for a model of tensors."""
    assert post(server, "flowers/infer", {"inputs": [9, 8]}).json()["outputs"] == [1]
    assert post(server, "iris/infer", {"inputs": FLOWER}).json()["outputs"][0]["label"] in (0, [0])


def test_all_fields_reach_the_model(server: Running) -> None:
    """M14: also those that nobody knows."""
    body = {
        "inputs": [1],
        "id": 3,
        "parameters": {"p": [1, {"q": None}]},
        "outputs": ["y", {"z": 1}],
        "model": "other",
        "all": True,
        "own": "x",
    }
    assert post(server, "echo/infer", body).json()["outputs"] == {**body, "seen": "infer"}


# --- M10 to M12: by name ---


@pytest.mark.parametrize("operation", ["infer_dict", "predict_dict"])
def test_features_by_name(server: Running, operation: str) -> None:
    """M10, M12: in any order, extra ones dropped; a single object is one point; by the body's operation, too."""
    points = [{"petal": 2, "sepal": 1}, {"sepal": 9, "color": "red", "petal": 8}]
    assert post(server, f"flowers/{operation}", {"inputs": points}).json()["outputs"] == [0, 1]
    assert post(server, f"flowers/{operation}", {"inputs": points[1]}).json()["outputs"] == [1]
    assert post(server, "flowers/infer", {"inputs": points, "operation": operation}).json()["outputs"] == [0, 1]
    assert post(server, f"iris/{operation}", {"inputs": [{"X": FLOWER, "y": 1}]}).json()["outputs"][0]["label"] in (0, [0])
    assert post(server, f"flowers/{operation}", {"inputs": []}).json()["outputs"] == []


@pytest.mark.parametrize(
    ("model", "inputs", "words"),
    [
        ("echo", [{"a": 1}], "names no features"),
        ("flowers", [{"sepal": 1}], "lacks 'petal'"),
        ("flowers", [{"sepal": 1, "petal": 1}, [1, 2]], "data point 1"),
        ("flowers", "text", "must be a list"),
        ("flowers", [[1, 2]], "must be an object"),
        ("iris", [{"x": 1}], "lacks 'X'"),
    ],
)
def test_features_that_do_not_fit(server: Running, model: str, inputs: Any, words: str) -> None:
    """M11: a client error that says what is wrong."""
    reply = post(server, f"{model}/infer_dict", {"inputs": inputs})
    assert (reply.status_code, list(reply.json())) == (400, ["error"])
    assert words in reply.json()["error"]


# --- M13: data_url ---


def test_data_urls(server: Running, opened: Path) -> None:
    """M13: a list, an object with inputs, anything else as a file; the other fields stay, and are the request's own."""
    for name, expected in (("list.json", [0, 1]), ("object.json", [1])):
        document = post(server, "flowers/infer", {"data_url": f"file://{opened / name}", "id": "mine"}).json()
        assert (document["id"], document["outputs"]) == ("mine", expected)
    assert post(server, "echo/predict", {"data_url": f"file://{opened / 'picture.bin'}"}).json()["outputs"] == ["BytesIO", 13, "89504e47"]


@pytest.mark.parametrize("url", ["file:///etc/passwd", "http://127.0.0.1:9/x", "gopher://x/y", "nonsense", "v3io:///c/x", 7, {"a": 1}])
@pytest.mark.parametrize("model", ["echo", "iris"])
def test_data_urls_that_are_refused(server: Running, model: str, url: Any) -> None:
    """M13: client errors, for every kind of model."""
    reply = post(server, f"{model}/infer", {"data_url": url})
    assert 400 <= reply.status_code < 500, reply.text
    assert reply.json()["error"]


# --- M15 to M17: bodies ---


def test_images(server: Running) -> None:
    """M15: exactly these bytes in one file-like object; a model of numbers has no use for them."""
    picture = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 1_000
    for path in ("echo/infer", "echo/predict", "echo"):
        reply = post(server, path, data=picture, headers={"Content-Type": "image/png"})
        assert reply.json()["outputs"] == ["BytesIO", len(picture), "89504e47"]
    assert post(server, "iris/infer", data=picture, headers={"Content-Type": "image/png"}).status_code == 400


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "application/json"), (b"", "image/png"), (b"{", "application/json"), (b"\x89PNG", "text/plain"), (b"\xff" * 1000, "application/json"),
        (b"[1, 2]", "application/json"), (b"3", ""), (b"null", ""), (b'"text"', ""), (b"{}", ""), (b'{"inputs": 3}', ""),
        (b'{"inputs": {"a": 1}}', ""),
        (b'{"inputs": [NaN]}', ""), (b"[" * 50_000, ""), (b'{"inputs": ' + b"[" * 900 + b"]" * 900 + b"}", ""), (b'{"inputs": [1], "id": 1', ""),
        (b'{"inputs": [1], "operation": []}', ""), (b'{"inputs": [1], "operation": "drop"}', ""),
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["echo/infer", "echo/predict", "iris/infer", "iris/predict"])
def test_hostile_bodies(server: Running, path: str, body: bytes, kind: str) -> None:
    """M16: 4xx as {"error": text}, and the server lives on."""
    reply = post(server, path, data=body, headers={"Content-Type": kind})
    assert 400 <= reply.status_code < 500, reply.text
    assert list(reply.json()) == ["error"]
    assert post(server, "echo/infer", {"inputs": [1]}).json()["outputs"] == [1]


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "text/plain", "application/x-www-form-urlencoded", "image/png", "a/b", ""]
)
def test_json_under_any_content_type(server: Running, kind: str) -> None:
    """M17."""
    for path in ("echo/infer", "iris/predict"):
        reply = post(server, path, data=json.dumps({"inputs": [FLOWER]}), headers={"Content-Type": kind})
        assert reply.status_code == 200


# --- M18: without a path ---


def test_model_and_operation_in_the_body(server: Running) -> None:
    """M18: POST / goes where the body says, by default to infer of the first model."""

    def ask(**fields: Any) -> dict[str, Any]:
        document: dict[str, Any] = requests.post(server.url, json=fields, timeout=60).json()
        return document

    assert ask(inputs=[[9, 8]])["outputs"] == [1]
    assert ask(inputs=[{"petal": 8, "sepal": 9}], operation="infer_dict")["outputs"] == [1]
    assert ask(inputs=[1], model="m3:v1")["outputs"] == ["m3", "v1", 1]
    assert ask(inputs=[FLOWER], model="iris")["model_name"] == "iris"
    assert "nobody" in ask(inputs=[1], model="nobody")["error"]
    assert requests.post(server.url, data=b"nothing", timeout=60).status_code == 400


def test_a_get_that_brings_a_body(server: Running) -> None:
    """As MLRun's router takes it; without a body it is a client error."""
    assert requests.get(f"{server.url}/v2/models/echo/infer", json={"inputs": [1]}, timeout=60).json()["outputs"] == [1]
    assert get(server, "/v2/models/echo/infer").status_code == 405


# --- M23 to M27: user code ---


def test_operations_of_its_own(server: Running) -> None:
    """M23: op_xx gets the event, its answer is sent bare."""
    reply = post(server, "echo/event", {"inputs": [1]}, headers={"MLRUN-EVENT-ID": "e-7"})
    assert reply.json() == {"body": {"inputs": [1]}, "path": "event", "id": "e-7", "kind": "http", "method": "POST"}
    text = post(server, "echo/text", {})
    assert (text.text, text.headers["content-type"]) == ("plain words", "text/plain; charset=utf-8")


def test_errors_of_user_code(server: Running) -> None:
    """M24: 4xx from preprocess, 5xx from predict, a status that it chose; the text says it and the model stays ready."""
    refused = post(server, "echo/infer", {"inputs": [1], "wrong": 1})
    assert (refused.status_code, "KeyError: 'wrong was sent'" in refused.json()["error"]) == (400, True)
    failed = post(server, "echo/infer", {"inputs": ["raise"]})
    assert (failed.status_code, "RuntimeError: the model is tired" in failed.json()["error"]) == (500, True)
    assert "Traceback" not in failed.text
    chosen = post(server, "echo/infer", {"inputs": ["status"]})
    assert (chosen.status_code, chosen.text, chosen.headers["x-flower"]) == (404, "no such flower", "none")
    assert get(server, "/v2/models/echo/ready").status_code == 200


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("nobody/infer", 404, "nobody"), ("nobody/predict", 404, "nobody"), ("m3:v9/infer", 404, "v9"), ("m3/versions/v9/explain", 404, "v9"),
        ("echo/dance", 404, "dance"), ("iris/explain_dict", 404, "explain_dict"), ("echo/infer/more", 404, "more"),
        ("gone/infer", 503, "the weights"), ("gone/predict", 503, "the weights"), ("echo/ready", 405, "GET"),
        ("%00/infer", 404, ""), ("a%2Fb/predict", 404, "a/b"),
        ("infer", 404, "infer"),
    ],
)  # fmt: skip
def test_what_is_not_there(server: Running, path: str, status: int, words: str) -> None:
    """M25: the message names it."""
    reply = post(server, path, {"inputs": [1]})
    assert (reply.status_code, words in reply.json()["error"]) == (status, True), reply.text


def test_numpy_in_answers(server: Running) -> None:
    """M27."""
    assert post(server, "echo/infer", {"inputs": ["numpy"]}).json()["outputs"] == {"array": [0, 1, 2], "scalar": 1.5, "bool": True}


# --- M28, M29: tritonclient on the same models ---


def test_tritonclient(server: Running) -> None:
    """M28: health, metadata, infer in JSON and binary, requested outputs, errors; on the class and on the ONNX model."""
    with triton.InferenceServerClient(server.address, network_timeout=60, connection_timeout=60) as client:
        assert client.is_server_live()
        assert client.is_model_ready("flowers")
        assert client.is_model_ready("m3", "v1")
        assert not client.is_model_ready("gone")
        assert [e["name"] for e in client.get_model_metadata("flowers")["inputs"]] == ["sepal", "petal"]
        for binary, (datatype, dtype) in itertools.product((True, False), {"FP32": "f4", "FP64": "f8", "INT64": "i8"}.items()):
            values = np.array([[1, 2], [9, 8]], dtype)
            one = triton.InferInput("anything", [2, 2], datatype)
            one.set_data_from_numpy(values, binary_data=binary)
            outputs = [triton.InferRequestedOutput("kind", binary_data=binary)]
            assert client.infer("flowers", [one], outputs=outputs).as_numpy("kind").tolist() == [0, 1]
            columns = [triton.InferInput(name, [2], datatype) for name in ("petal", "sepal")]
            for column, index in zip(columns, (1, 0), strict=True):
                column.set_data_from_numpy(np.ascontiguousarray(values[:, index]), binary_data=binary)
            assert client.infer("flowers", columns, request_id="7").get_response()["id"] == "7"
        texts = triton.InferInput("words", [2], "BYTES")
        texts.set_data_from_numpy(np.array(["a", "ü"], object))
        answer = client.infer("echo", [texts]).as_numpy("output")
        assert [each.decode() if isinstance(each, bytes) else each for each in answer] == ["a", "ü"]
        flower = triton.InferInput("X", [1, 4], "FP32")
        flower.set_data_from_numpy(np.array([FLOWER], "f4"))
        assert client.infer("iris", [flower]).as_numpy("label").ravel().tolist() == [0]
        with pytest.raises(InferenceServerException, match="has no output 'nothing'"):
            client.infer("flowers", [one], outputs=[triton.InferRequestedOutput("nothing")])
        bad = triton.InferInput("words", [1], "BYTES")
        bad.set_data_from_numpy(np.array(["raise"], object))
        with pytest.raises(InferenceServerException, match="tired"):
            client.infer("echo", [bad])


def test_counts_that_do_not_fit(server: Running) -> None:
    """M28: shape and elements that differ are a client error, for a class as for a file."""
    tensor = {"name": "X", "shape": [3, 2], "datatype": "FP32", "data": [1, 2, 3]}
    for model in ("flowers", "echo", "iris"):
        reply = post(server, f"{model}/infer", {"inputs": [tensor]})
        assert (reply.status_code, "3 elements" in reply.json()["error"]) == (400, True)


def test_both_dialects_in_turns(server: Running) -> None:
    """M29: each request is answered in its own, on one connection."""
    tensors = {"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "data": FLOWER}]}
    with requests.Session() as session:
        for _ in range(5):
            for model in ("iris", "echo"):
                url = f"{server.url}/v2/models/{model}/infer"
                assert "datatype" in session.post(url, json=tensors, timeout=60).json()["outputs"][0]
                assert "timestamp" in session.post(url, json={"inputs": [FLOWER]}, timeout=60).json()
    looks = [{"name": "Ada", "shape": "round"}]
    assert post(server, "echo/infer", {"inputs": looks}).json()["outputs"] == looks


# --- M30 ---


def test_many_at_once(server: Running) -> None:
    """M30: ids and answers are never mixed, whichever model and dialect they are for."""

    def ask(number: int) -> bool:
        model = ("echo", "iris", "flowers")[number % 3]
        inputs = [[float(number), 1.0]] if model != "iris" else [FLOWER]
        document = post(server, f"{model}/infer", {"inputs": inputs, "id": number}).json()
        return bool(document["id"] == number and (model != "echo" or document["outputs"] == inputs))

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(300)))


@pytest.mark.parametrize("model", ["echo", "iris"])
def test_large_bodies(server: Running, model: str) -> None:
    """M30: 50,000 rows; numbers and texts mixed for the class."""
    rows: list[Any] = [[index, 0.5, 3.25, 1.0] for index in range(50_000)]
    if model == "echo":
        rows[::2] = [[index, "text", None, {"a": 1.5}] for index in range(25_000)]
    outputs = post(server, f"{model}/infer", {"inputs": rows}).json()["outputs"]
    assert len(outputs) == 50_000
    if model == "echo":
        assert outputs == rows


def test_a_client_that_leaves(server: Running) -> None:
    """What it asked for is broken off, and the next one is answered."""
    body = json.dumps({"inputs": ["wait", 60]}).encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as line:
        line.sendall(b"POST /v2/models/echo/predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    until(lambda: post(server, "echo/infer", {"inputs": [1]}).status_code == 200)
