"""TensorFlow Serving's REST over real sockets, with requests and curl. The G numbers are those of docs/conformance.md."""

import base64
import gzip
import json
import math
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.e2e.running import Running, serving
from tests.models import build, documented, learned

CONFIG = 'name: "half_plus"\nbackend: "onnxruntime"\nversion_policy { all { } }\n'
TAGS = ["foo", "bar"]
SIGNALS = [[1, 2, 3, 4, 5], [3, 4, 1, 2, 5]]
SENSORS = [[[1, 2], [3, 4]], [[4, 5], [6, 8]]]
ROWS = [{"tag": t, "signal": s, "sensor": r} for t, s, r in zip(TAGS, SIGNALS, SENSORS, strict=True)]
COLUMNS = {"tag": TAGS, "signal": SIGNALS, "sensor": SENSORS}
FOO, BAR = {"b64": base64.b64encode(b"foo").decode()}, {"b64": base64.b64encode(b"bar").decode()}


def models(root: Path) -> Path:
    """A TensorFlow Serving base path with models of several inputs, several versions, texts and odd values, and one that is broken."""
    documented.half_plus_two(root / "half_plus_two" / "00000123" / "model.onnx")
    for version in (1, 3):
        documented.half_plus(root / "half_plus" / str(version) / "model.onnx", version)
    (root / "half_plus" / "config.pbtxt").write_text(CONFIG)
    documented.beacon(root / "beacon" / "1" / "model.onnx")
    documented.mnist(root / "mnist" / "1" / "model.onnx")
    documented.picture(root / "picture" / "1" / "model.onnx")
    build.shout(root / "words" / "1" / "model.onnx")
    build.identity(root / "floats" / "1" / "model.onnx", "FP32", ("N", None))
    build.identity(root / "cubes" / "1" / "model.onnx", "INT64", ("N", None, None))
    learned.write(root / "broken" / "1" / "model.onnx", b"no model")
    return root


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("tfs")
    flowers = learned.write(folder / "flowers.skops", learned.skops_of(learned.classifier()))
    trees = learned.write(folder / "trees.ubj", learned.xgboost_model())
    leaves = learned.write(folder / "leaves.txt", learned.lightgbm_model())
    with serving(folder, str(models(folder / "models")), str(flowers), str(trees), str(leaves)) as running:
        yield running


def get(server: Running, path: str) -> requests.Response:
    return requests.get(f"{server.url}{path}", timeout=60)


def predict(server: Running, model: str, body: Any, prefix: str = "/v1/models") -> requests.Response:
    """`body` is JSON, or bytes as they are."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return requests.post(f"{server.url}{prefix}/{model}:predict", data=data, timeout=60)


def answered(server: Running, model: str, body: Any) -> Any:
    """The body of an answer of status 200."""
    answer = predict(server, model, body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    return answer.json()


def refused(answer: requests.Response) -> str:
    """The text of an error, which is a JSON object of one key."""
    assert answer.headers["Content-Type"] == "application/json"
    body = answer.json()
    assert list(body) == ["error"]
    assert isinstance(body["error"], str)
    return str(body["error"])


# --- other runtimes ---


def test_other_runtimes_classify_and_regress(server: Running) -> None:
    """Features go to the inputs of their names; labels that a model knows are its answer's, and a model of one number regresses."""
    flower = {"examples": [{"X": [5.1, 3.5, 1.4, 0.2]}, {"X": [6, 3, 5, 2]}]}
    for model, labels in (("flowers", ["0", "1", "2"]), ("trees", [""] * 3), ("leaves", [""] * 3)):
        found = requests.post(f"{server.url}/v1/models/{model}:classify", json=flower, timeout=60).json()["results"]
        assert [[label for label, _ in each] for each in found] == [labels, labels]
        assert [sum(score for _, score in each) for each in found] == pytest.approx([1, 1], abs=1e-5)
        wrong = requests.post(f"{server.url}/v1/models/{model}:regress", json=flower, timeout=60)
        assert wrong.status_code == 400
        assert "has no one output of one number per example" in refused(wrong)
    half = requests.post(f"{server.url}/v1/models/half_plus_two:regress", json={"examples": [{"x": 80}]}, timeout=60)
    assert half.json() == {"results": [42.0]}
    word = requests.post(f"{server.url}/v1/models/words:classify", json={"examples": [{"text_input": "foo"}]}, timeout=60)
    assert word.json() == {"results": [[["FOO", 0.0]]]}


# --- status and metadata ---


def test_status(server: Running) -> None:
    """G3: without a version all of them, the highest first; with one only that; the exact JSON."""
    one = {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert get(server, "/v1/models/half_plus_two").json() == {"model_version_status": [{"version": "123", **one}]}
    both = {"model_version_status": [{"version": "3", **one}, {"version": "1", **one}]}
    assert get(server, "/v1/models/half_plus").json() == both
    assert get(server, "/v1/models/half_plus/versions/1").json() == {"model_version_status": [{"version": "1", **one}]}


def test_status_of_what_is_not_there(server: Running) -> None:
    """G3: an unknown model or version is 404 in TensorFlow Serving's words; a model that failed to load says so."""
    unknown = get(server, "/v1/models/nothing")
    assert (unknown.status_code, refused(unknown)) == (404, "Could not find any versions of model nothing")
    version = get(server, "/v1/models/half_plus/versions/2")
    assert (version.status_code, refused(version)) == (404, "Could not find version 2 of model half_plus")
    (failed,) = get(server, "/v1/models/broken").json()["model_version_status"]
    assert failed["state"] == "END"
    assert failed["status"]["error_code"] != "OK"
    assert failed["status"]["error_message"]


def test_metadata(server: Running) -> None:
    """G4: names, types and shapes; the latest version without one, the named one with it."""
    body = get(server, "/v1/models/half_plus_two/metadata").json()
    assert body["model_spec"] == {"name": "half_plus_two", "signature_name": "", "version": "123"}
    signature = body["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["method_name"] == "tensorflow/serving/predict"
    x = signature["inputs"]["x"]
    assert x["dtype"] == "DT_FLOAT"
    assert [d["size"] for d in x["tensor_shape"]["dim"]] == ["-1", "1"]
    assert x["tensor_shape"]["unknown_rank"] is False
    assert set(signature["outputs"]) == {"y"}
    assert get(server, "/v1/models/half_plus/metadata").json()["model_spec"]["version"] == "3"
    assert get(server, "/v1/models/half_plus/versions/1/metadata").json()["model_spec"]["version"] == "1"


def test_gradient_paths_answer_alike(server: Running) -> None:
    """G1: every route is the same under /model-serving/ID, errors included."""
    for path in ("", "/versions/3", "/metadata", "/versions/1/metadata", "/versions/9", "/labels/none/metadata"):
        ours, theirs = get(server, f"/v1/models/half_plus{path}"), get(server, f"/model-serving/half_plus{path}")
        assert (theirs.status_code, theirs.content) == (ours.status_code, ours.content), path
    for model in ("half_plus", "half_plus/versions/1", "half_plus/versions/9", "nothing"):
        for body in ({"instances": [[1.0]]}, {"inputs": [[1.0]]}, {}, b"{"):
            ours, theirs = predict(server, model, body), predict(server, model, body, "/model-serving")
            assert (theirs.status_code, theirs.content) == (ours.status_code, ours.content), (model, body)


# --- predict ---


def test_rows_of_one_input(server: Running) -> None:
    """G12: plain values and nested lists, also keyed by the input."""
    assert answered(server, "words", {"instances": ["foo", "bar", "baz"]}) == {"predictions": ["FOO", "BAR", "BAZ"]}
    assert answered(server, "cubes", {"instances": [[[1, 2]], [[3, 4]]]}) == {"predictions": [[[1, 2]], [[3, 4]]]}
    assert answered(server, "half_plus_two", {"instances": [1.0, 2.0, 5.0]}) == {"predictions": [2.5, 3.0, 4.5]}
    assert answered(server, "half_plus_two", {"instances": [{"x": [1.0]}, {"x": [2]}]}) == {"predictions": [[2.5], [3.0]]}


def test_rows_of_several_inputs(server: Running) -> None:
    """G13, G16: the tag, signal, sensor example; an object per row because there are several outputs. With its stray bracket it is 400."""
    expected = [{"total": 15, "mean": 2.5, "tag_bytes": FOO}, {"total": 15, "mean": 5.75, "tag_bytes": BAR}]
    assert answered(server, "beacon", {"instances": ROWS}) == {"predictions": expected}
    printed = json.dumps({"instances": ROWS}).replace("[[4, 5], [6, 8]]", "[[4, 5], [6, 8]]]")
    stray = predict(server, "beacon", printed.encode())
    assert stray.status_code == 400
    assert "JSON Parse error" in refused(stray)


def test_columns(server: Running) -> None:
    """G14, G17: a value, or an object of values; the example gives the same numbers as in row form."""
    assert answered(server, "half_plus_two", {"inputs": [[1.0], [2.0]]}) == {"outputs": [[2.5], [3.0]]}
    assert answered(server, "half_plus_two", {"inputs": {"x": [[1.0]]}}) == {"outputs": [[2.5]]}
    by_column = answered(server, "beacon", {"inputs": COLUMNS})["outputs"]
    assert by_column == {"total": [15, 15], "mean": [2.5, 5.75], "tag_bytes": [FOO, BAR]}
    by_row = answered(server, "beacon", {"instances": ROWS})["predictions"]
    assert {key: [row[key] for row in by_row] for key in by_column} == by_column


def test_columns_need_not_have_one_length(server: Running) -> None:
    """G15: one tag, two signals, three sensors."""
    columns = {"tag": ["foo"], "signal": SIGNALS, "sensor": [*SENSORS, [[0, 0], [0, 0]]]}
    outputs = answered(server, "beacon", {"inputs": columns})["outputs"]
    assert outputs == {"total": [15, 15], "mean": [2.5, 5.75, 0.0], "tag_bytes": [FOO]}


def test_outputs(server: Running) -> None:
    """G16, G17: one output is answered bare, several by name, in either form."""
    image = [0.0] * 78 + [1.0] * 78 + [0.0] * 628
    (row,) = answered(server, "mnist", {"instances": [image]})["predictions"]
    columns = answered(server, "mnist", {"inputs": [image]})["outputs"]
    assert row["classes"] == 1
    assert columns == {"classes": [1], "probabilities": [row["probabilities"]]}
    assert answered(server, "floats", {"instances": [[1.5, 2.0]]}) == {"predictions": [[1.5, 2.0]]}
    assert answered(server, "floats", {"inputs": [[1.5, 2.0]]}) == {"outputs": [[1.5, 2.0]]}


@pytest.mark.parametrize("prefix", ["/model-serving", "/v1/models"])
def test_the_sample_client(server: Running, prefix: str) -> None:
    """G18: what Gradient's sample does with requests, word for word."""
    vector = [0.0] * 784
    response = requests.post(f"{server.url}{prefix}/mnist:predict", json={"inputs": [vector]}, timeout=60)
    assert response.status_code == 200
    outputs = response.json()["outputs"]
    assert len(outputs["classes"]) == 1
    assert sum(outputs["probabilities"][0]) == pytest.approx(1)


@pytest.mark.parametrize("name", ["", "serving_default"])
def test_the_signature_may_be_named(server: Running, name: str) -> None:
    """G6: "" and serving_default are the default signature; an unknown one is 400 and named."""
    assert answered(server, "half_plus", {"signature_name": name, "instances": [2.0]}) == {"predictions": [4.0]}
    unknown = predict(server, "half_plus", {"signature_name": "no", "instances": [2.0]})
    assert (unknown.status_code, refused(unknown)) == (400, 'Serving signature name: "no" not found in signature def')


def test_versions(server: Running) -> None:
    """G19: the version of the path answers, the highest without one, an unknown one is 404, for predict and metadata alike."""
    assert answered(server, "half_plus", {"instances": [2.0]}) == {"predictions": [4.0]}
    assert answered(server, "half_plus/versions/1", {"instances": [2.0]}) == {"predictions": [2.0]}
    assert answered(server, "half_plus/versions/003", {"instances": [2.0]}) == {"predictions": [4.0]}
    text = "Servable not found for request: Specific(half_plus, 2)"
    for answer in (predict(server, "half_plus/versions/2", {"instances": [2.0]}), get(server, "/v1/models/half_plus/versions/2/metadata")):
        assert (answer.status_code, refused(answer)) == (404, text)
    label = predict(server, "half_plus/labels/stable", {"instances": [2.0]})
    assert (label.status_code, refused(label)) == (400, "Unrecognized servable version label: stable")


def test_base64_both_ways(server: Running) -> None:
    """G20: elements go in as {"b64"} and come back so from an output called ..._bytes, in either form. ONNX itself holds only text."""
    for content in (b"", "zero \0, ünïcödé".encode(), b"long" * 30_000):
        item = {"b64": base64.b64encode(content).decode()}
        assert answered(server, "picture", {"instances": [item]}) == {"predictions": [item]}
        assert answered(server, "picture", {"inputs": [item]}) == {"outputs": [item]}
        assert answered(server, "picture", {"inputs": {"image": [item, item]}}) == {"outputs": [item, item]}
    for wrong, text in (("?", "Unable to base64 decode"), ("//79", "must be UTF-8 text")):
        answer = predict(server, "picture", {"instances": [{"b64": wrong}]})
        assert answer.status_code == 400
        assert text in refused(answer)


def test_what_is_not_a_number_both_ways(server: Running) -> None:
    """G20: the bare words NaN, Infinity and -Infinity, read and written."""
    answer = predict(server, "floats", b'{"instances": [[NaN, Infinity, -Infinity, 0.2]]}')
    assert answer.text == '{"predictions":[[NaN,Infinity,-Infinity,0.2]]}'
    (row,) = json.loads(answer.text)["predictions"]
    assert math.isnan(row[0])
    assert row[1:3] == [math.inf, -math.inf]


def test_compressed_requests(server: Running) -> None:
    """A gzip body is inflated; one that is not gzip is an empty document, which is 400."""
    url = f"{server.url}/v1/models/half_plus:predict"
    headers = {"Content-Encoding": "gzip"}
    body = gzip.compress(json.dumps({"instances": [2.0]}).encode())
    assert requests.post(url, data=body, headers=headers, timeout=60).json() == {"predictions": [4.0]}
    bad = requests.post(url, data=b"plain", headers=headers, timeout=60)
    assert bad.status_code == 400
    assert "The document is empty" in refused(bad)


@pytest.mark.parametrize("model", ["flowers", "trees", "leaves"])
def test_models_of_every_runtime(server: Running, model: str) -> None:
    """scikit-learn, XGBoost and LightGBM answer status, metadata and predict as ONNX models do."""
    assert get(server, f"/v1/models/{model}").json()["model_version_status"][0]["state"] == "AVAILABLE"
    assert get(server, f"/v1/models/{model}/metadata").json()["model_spec"]["version"] == "1"
    predictions = answered(server, model, {"instances": build.IRIS_CENTRES.tolist()})["predictions"]
    found = []
    for row in predictions:
        scores = next((v for v in row.values() if isinstance(v, list)), None) if isinstance(row, dict) else row
        assert scores is not None
        found.append(scores.index(max(scores)))
    assert found == [0, 1, 2]


# --- errors ---

BOTH_KEYS = "expecting only one of 'inputs' or 'instances' keys to exist"
WRONG = {
    "empty": ("floats", b"", "JSON Parse error: The document is empty"),
    "malformed": ("floats", b'{"instances": [1,}', "JSON Parse error: Invalid value. at offset: 17"),
    "not-an-object": ("floats", b"[]", "Is not object"),
    "signature-type": ("floats", {"signature_name": 1}, "'signature_name' key must be a string value."),
    "neither": ("floats", {}, "Missing 'inputs' or 'instances' key"),
    "both": ("floats", {"inputs": [1], "instances": [1]}, BOTH_KEYS),
    "both-null": ("floats", b'{"inputs":null,"instances":null}', BOTH_KEYS),
    "no-list": ("floats", {"instances": {"x": 1}}, "Expecting 'instances' to be an list/array"),
    "no-rows": ("floats", {"instances": []}, "No values in 'instances' array"),
    "plain-rows": ("beacon", {"instances": [1]}, "instances is a plain list, but expecting list of objects"),
    "plain-columns": ("beacon", {"inputs": [1]}, "inputs is a plain value/list, but expecting an object"),
    "unknown-input": ("floats", {"instances": [{"k": 1}]}, "does not have named input: k"),
    "missing-input": ("beacon", {"instances": [{"tag": "a"}]}, "keys must be equal to: sensor,signal,tag"),
    "missing-column": ("beacon", {"inputs": {"tag": ["a"], "signal": SIGNALS}}, "Missing named input: sensor in 'inputs' object."),
    "type": ("floats", {"instances": [["a"]]}, 'JSON Value: "a" Type: String is not of expected type: float'),
    "ragged": ("floats", {"inputs": [[1, 2], [3]]}, "Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
    "sizes": ("floats", {"instances": [[1, 2], [1, 2, 3]]}, "Expecting tensor size: 2 but got: 3"),
    "deep": ("floats", b"[" * 100_000, "JSON Parse error"),
    "model": ("beacon", {"inputs": {**COLUMNS, "signal": [[1]]}}, "signal"),
}


@pytest.mark.parametrize(("model", "body", "text"), WRONG.values(), ids=list(WRONG))
def test_a_wrong_body_is_400(server: Running, model: str, body: Any, text: str) -> None:
    """G2, G11: one key, a text in TensorFlow Serving's words, status 400."""
    answer = predict(server, model, body)
    assert answer.status_code == 400
    assert text in refused(answer)


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "/v1/models", 400, "Missing model name in request."),
        ("GET", "/v1/models/floats:predict", 400, "Malformed request: GET /v1/models/floats:predict"),
        ("POST", "/v1/models/floats/metadata", 400, "Malformed request: POST /v1/models/floats/metadata"),
        ("POST", "/v1/models/floats:guess", 400, "Malformed request: POST /v1/models/floats:guess"),
        ("GET", "/v1/models/floats/versions/one", 400, "Malformed request: GET /v1/models/floats/versions/one"),
        ("GET", "/v1/models/floats/", 400, "Malformed request: GET /v1/models/floats/"),
        ("DELETE", "/v1/models/floats", 400, "Malformed request: DELETE /v1/models/floats"),
        ("GET", "/v1/models/floats/versions/99999999999999999999", 400, "Failed to convert version: 99999999999999999999 to numeric."),
        ("POST", "/v1/models/nothing:predict", 404, "Servable not found for request: Latest(nothing)"),
        ("GET", "/v1/models/nothing/metadata", 404, "Servable not found for request: Latest(nothing)"),
        ("POST", "/v1/models/broken:predict", 503, "broken"),
        ("POST", "/v1/models/floats:classify", 400, "key 'examples' is expected and was not found"),
        ("POST", "/model-serving/floats:regress", 400, "key 'examples' is expected and was not found"),
    ],
)
def test_paths_that_are_refused(server: Running, method: str, path: str, status: int, text: str) -> None:
    """G2: wrong methods, verbs, versions and names; there is no 405 in this protocol."""
    answer = requests.request(method, f"{server.url}{path}", data=b'{"instances": [1.0]}', timeout=60)
    assert answer.status_code == status
    assert text in refused(answer)


def test_an_error_leaves_the_connection_usable(server: Running) -> None:
    """Good and bad requests alternate on one connection."""
    with requests.Session() as session:
        url = f"{server.url}/v1/models/half_plus:predict"
        for i in range(10):
            assert session.post(url, data=b"{", timeout=60).status_code == 400
            assert session.post(url, json={"instances": [i]}, timeout=60).json() == {"predictions": [i / 2 + 3]}
        assert session.get(f"{server.url}/v1/models/nothing", timeout=60).status_code == 404


# --- many at once, and curl ---


def test_64_threads_get_their_own_answers(server: Running) -> None:
    """Every answer belongs to its request, whatever was joined with it, in both forms and beside failing ones."""

    def ask(thread: int) -> None:
        with requests.Session() as session:
            for i in range(12):
                value = thread * 100 + i
                url = f"{server.url}/v1/models/half_plus:predict"
                row = session.post(url, json={"instances": [value, value + 1]}, timeout=60)
                assert row.json() == {"predictions": [value / 2 + 3, (value + 1) / 2 + 3]}
                column = session.post(url, json={"inputs": [[value]]}, timeout=60)
                assert column.json() == {"outputs": [[value / 2 + 3]]}
                wrong = session.post(url, json={"inputs": [[value, value]]}, timeout=60)
                assert wrong.status_code == 400

    with ThreadPoolExecutor(64) as pool:
        for done in [pool.submit(ask, thread) for thread in range(64)]:
            done.result()


def curl(*arguments: str) -> Any:
    done = subprocess.run(["curl", "-sS", "--fail-with-body", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_curl(server: Running) -> None:
    """G3, G4, G12, G14: curl as the documents use it, with the content type of a form."""
    base = f"{server.url}/v1/models/half_plus_two"
    assert curl("-d", '{"instances": [1.0, 2.0, 5.0]}', "-X", "POST", f"{base}:predict") == {"predictions": [2.5, 3.0, 4.5]}
    assert curl("-d", '{"inputs": [[80.0]]}', f"{base}/versions/123:predict") == {"outputs": [[42.0]]}
    assert curl(base)["model_version_status"][0]["state"] == "AVAILABLE"
    assert curl(f"{base}/metadata")["model_spec"]["name"] == "half_plus_two"
    gradient = f"{server.url}/model-serving/half_plus_two:predict"
    assert curl("-H", "Content-Type: text/plain", "-d", '{"instances": [4]}', gradient) == {"predictions": [4.0]}
