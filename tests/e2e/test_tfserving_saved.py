"""TensorFlow Serving's REST over real sockets, with real SavedModels: classify, regress, predict of every kind of signature, graphs' own errors."""

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.e2e.running import Running, serving
from tests.models import savedmodels

MODELS = ("half_plus_two", "half_plus_two_tf2", "classifier", "tagged", "unknown_rank", "picky", "identities", "image", "missing_op")
TWO = [{"petal": [1.0, 2.0]}, {"petal": [0.0, 1.0], "name": "x", "count": 3}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One process for all of them: TensorFlow takes half a gigabyte."""
    folder = tmp_path_factory.mktemp("saved")
    for name in MODELS:
        built = savedmodels.path(name)
        base = folder / "models" / name
        base.mkdir(parents=True)
        (base / built.name).symlink_to(built)
    with serving(folder, str(folder / "models"), "--engine", "local") as running:
        yield running


def post(server: Running, path: str, body: Any, **headers: str) -> requests.Response:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return requests.post(f"{server.url}/v1/models/{path}", data=data, headers=headers, timeout=60)


def answered(server: Running, path: str, body: Any, **headers: str) -> Any:
    answer = post(server, path, body, **headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(server: Running, path: str, body: Any) -> str:
    answer = post(server, path, body)
    assert answer.status_code == 400, answer.text
    text = answer.json()["error"]
    assert isinstance(text, str)
    return text


def regress(signature: str, *examples: Any, **more: Any) -> dict[str, Any]:
    return {"signature_name": signature, "examples": list(examples), **more}


def test_g10_regress(server: Running) -> None:
    """G5, G6, G10: by signature, with and without version, of both generations of exports; one number per example, in order."""
    body = regress("regress_x_to_y", {"x": 80.0}, {"x": [1.5]})
    for path in ("half_plus_two", "half_plus_two/versions/123"):
        assert answered(server, f"{path}:regress", body) == {"results": [42.0, 2.75]}
    assert answered(server, "half_plus_two:regress", regress("regress_x_to_y2", {"x": 80.0})) == {"results": [43.0]}
    assert answered(server, "half_plus_two_tf2:regress", body) == {"results": [42.0, 2.75]}
    deployed = requests.post(f"{server.url}/model-serving/half_plus_two:regress", json=body, timeout=60)
    assert deployed.json() == {"results": [42.0, 2.75], "result": [42.0, 2.75]}
    packed = gzip.compress(json.dumps(body).encode())
    assert answered(server, "half_plus_two:regress", packed, **{"Content-Encoding": "gzip"}) == {"results": [42.0, 2.75]}


def test_g9_classify(server: Running) -> None:
    """G5, G9: the default signature; labels with scores, scores alone, labels alone."""
    (first, second) = answered(server, "classifier:classify", {"examples": TWO})["results"]
    assert [label for label, _ in first] == list(savedmodels.FLOWERS)
    assert sum(score for _, score in second) == pytest.approx(1, abs=1e-5)
    assert answered(server, "half_plus_two:classify", regress("classify_x_to_y", {"x": 80.0})) == {"results": [[["", 42.0]]]}
    only = answered(server, "classifier:classify", {"signature_name": "classes_only", "examples": TWO[:1]})
    assert only == {"results": [[[label, 0.0] for label in savedmodels.FLOWERS]]}


def test_g7_g8_features(server: Running) -> None:
    """G7, G8: TensorFlow reads numbers, texts and base64 as they were meant; the context reaches every example, whose own values win."""
    body = {"context": {"petal": [0.5, 0.5], "count": 7}, "examples": [{}, {"count": 2}, {"name": {"b64": "/w=="}}]}
    assert answered(server, "classifier:regress", {"signature_name": "count", **body}) == {"results": [7.0, 2.0, 7.0]}
    assert answered(server, "classifier:regress", {"signature_name": "regress", **body}) == {"results": [1.0, 1.0, 1.0]}


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        ("half_plus_two:regress", regress("regress_x_to_y", {"x": 80}), "Data type: int64 but expected type: float"),
        (
            "half_plus_two:regress",
            regress("regress_x_to_y", {"z": 80.0}),
            "Feature: x (data type: float) is required but could not be found.",
        ),
        ("half_plus_two:regress", {"examples": [{"x": 80.0}]}, "No regression inputs found in SignatureDef: "),
        ("half_plus_two:regress", regress("regress_x2_to_y3", {"x": 80.0}), "expected FP32"),
        ("half_plus_two:regress", regress("nothing", {"x": 80.0}), "No signature was found with the name: nothing"),
        ("half_plus_two:predict", {"signature_name": "nothing", "instances": [1.0]}, 'Serving signature name: "nothing" not found'),
        ("half_plus_two:predict", {"signature_name": "regress_x_to_y", "instances": ["abc"]}, "Could not parse example input"),
        (
            "classifier:classify",
            {"signature_name": "classify_flat", "examples": TWO},
            "Expected Tensor shape: [batch_size num_classes] but got [2]",
        ),
        (
            "classifier:classify",
            {"signature_name": "classify_short", "examples": TWO},
            "Input batch size did not match output batch size: 2 vs. 1",
        ),
        ("classifier:regress", {"signature_name": "regress_wide", "examples": TWO}, "[batch_size] or [batch_size, 1] but got [2,3]"),
        (
            "classifier:regress",
            {"signature_name": "regress_short", "examples": TWO},
            "Input batch size did not match output batch size: 2 vs. 1",
        ),
        ("classifier:regress", {"signature_name": "name", "examples": TWO}, "No regression outputs found in SignatureDef: "),
        ("classifier:classify", {"examples": [{"petal": [1.0]}]}, "Values size: 1 but output shape: [2]"),
        ("picky:predict", {"instances": [1.0, -1.0]}, "x must not be negative"),
        ("picky:predict", {"signature_name": "matrix", "instances": [[1.0, 2.0]]}, "Matrix size-incompatible: In[0]: [1,2], In[1]: [4,3]"),
        ("picky:predict", {"signature_name": "gather", "inputs": {"table": [1.0], "index": [5]}}, "indices[0] = 5 is not in [0, 1)"),
        ("image:predict", {"instances": [{"b64": "aGVsbG8="}]}, "Unknown image file format"),
        ("identities:predict", {"signature_name": "half", "instances": [1.0]}, "Conversion of JSON Value: 1.0 to type: half"),
    ],
)
def test_refusals(server: Running, path: str, body: Any, text: str) -> None:
    """Sections 5 and 6: what the request or the graph finds wrong is 400, in TensorFlow's words."""
    assert text in refused(server, path, body)


def test_shapes_are_the_graphs_business(server: Running) -> None:
    """The documented example, scalars, unknown ranks, fixed shapes that a graph does not insist on, columns of different length."""
    assert answered(server, "half_plus_two:predict", {"instances": [1.0, 2.0, 5.0]}) == {"predictions": [2.5, 3.0, 4.5]}
    assert answered(server, "half_plus_two:predict", {"inputs": [[1.0], [2.0]]}) == {"outputs": [[2.5], [3.0]]}
    assert answered(server, "unknown_rank:predict", {"inputs": 3.0}) == {"outputs": 6.0}
    assert answered(server, "unknown_rank:predict", {"instances": [[[1.0]]]}) == {"predictions": [[[2.0]]]}
    assert answered(server, "identities:predict", {"signature_name": "fixed", "inputs": [[1, 2, 3]]}) == {"outputs": [6.0]}
    uneven = {"signature_name": "gather", "inputs": {"table": [1.0, 2.0, 3.0], "index": [2]}}
    assert answered(server, "picky:predict", uneven) == {"outputs": [3.0]}


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("int8", [1, -128]),
        ("uint64", [2**64 - 1]),
        ("int64", [-(2**63)]),
        ("bool", [True, False]),
        ("float64", [0.1, 1e300]),
        ("float32", [0.2, 3.0]),
        ("string", ["é", ""]),
    ],
)
def test_types(server: Running, kind: str, values: list[Any]) -> None:
    """Values of each type come back as they went in."""
    assert answered(server, "identities:predict", {"signature_name": kind, "instances": values}) == {"predictions": values}


def test_rows_and_columns_of_several_inputs(server: Running) -> None:
    """Texts and numbers in, a text and a number out; the same in both forms."""
    columns = {"tag": ["foo", "bar"], "signal": [[1, 2, 3, 4, 5], [3, 4, 1, 2, 5]], "sensor": [[[1, 2], [3, 4]], [[4, 5], [6, 8]]]}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    assert answered(server, "tagged:predict", {"inputs": columns}) == {"outputs": {"label": ["foo!", "bar!"], "total": [25.0, 38.0]}}
    both = [{"label": "foo!", "total": 25.0}, {"label": "bar!", "total": 38.0}]
    assert answered(server, "tagged:predict", {"instances": rows}) == {"predictions": both}


def test_metadata_and_status(server: Running) -> None:
    """Every signature with its method and the graph's own names; a broken model's state has a code and a reason."""
    metadata = requests.get(f"{server.url}/v1/models/half_plus_two/metadata", timeout=60).json()
    signatures = metadata["metadata"]["signature_def"]["signature_def"]
    methods = {name: each["method_name"].rpartition("/")[2] for name, each in signatures.items()}
    assert methods == {
        "serving_default": "predict",
        "regress_x_to_y": "regress",
        "regress_x_to_y2": "regress",
        "regress_x2_to_y3": "regress",
        "classify_x_to_y": "classify",
    }
    shape = {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}
    assert signatures["classify_x_to_y"]["inputs"] == {"inputs": {"dtype": "DT_STRING", "name": "tf_example:0", "tensor_shape": shape}}
    unknown = requests.get(f"{server.url}/v1/models/unknown_rank/metadata", timeout=60).json()["metadata"]["signature_def"]["signature_def"]
    assert unknown["serving_default"]["inputs"]["x"]["tensor_shape"] == {"dim": [], "unknown_rank": True}
    (broken,) = requests.get(f"{server.url}/v1/models/missing_op", timeout=60).json()["model_version_status"]
    assert (broken["state"], broken["status"]["error_code"]) == ("END", "UNIMPLEMENTED")
    assert "ParseExampleV9" in broken["status"]["error_message"]


def test_metrics(server: Running) -> None:
    """Calls are counted by what they are."""
    answered(server, "half_plus_two:regress", regress("regress_x_to_y", {"x": 80.0}))
    refused(server, "picky:predict", {"instances": [-1.0]})
    page = requests.get(f"{server.url}/monitoring/prometheus/metrics", timeout=60).text
    assert ':tensorflow:serving:request_latency_count{model_name="half_plus_two",API="regress",entrypoint="REST"}' in page
    assert ':tensorflow:serving:request_count{model_name="picky",status="INVALID_ARGUMENT"}' in page
