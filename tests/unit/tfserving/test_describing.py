"""Model status and metadata."""

from typing import Any

import pytest

from dragoman.core import tensors as t
from dragoman.core.errors import Kind
from dragoman.core.lifecycle import State
from dragoman.core.tensors import DATATYPES, Form, Signature, TensorSpec
from dragoman.dialects.tfserving.answers import STATES
from dragoman.dialects.tfserving.messages import TYPE_NAMES
from tests.fakes_tfs import Client, Toy, half_plus, signature


def version(number: str, state: str = "AVAILABLE", code: str = "OK", text: str = "") -> dict[str, Any]:
    return {"version": number, "state": state, "status": {"error_code": code, "error_message": text}}


def tensor(dtype: str, name: str, *sizes: str) -> dict[str, Any]:
    dimensions = [{"size": size, "name": ""} for size in sizes]
    return {"dtype": dtype, "name": name, "tensor_shape": {"dim": dimensions, "unknown_rank": False}}


def signatures(client: Client, name: str) -> Any:
    return client.send("GET", f"/v1/models/{name}/metadata").json["metadata"]["signature_def"]["signature_def"]


def test_g3_status_lists_all_versions_highest_first() -> None:
    """Versions are strings, ordered as numbers."""
    client = Client({"m/2": half_plus(2), "m/10": half_plus(2), "m/9": half_plus(2)})
    reply = client.send("GET", "/v1/models/m")
    assert reply.status == 200
    assert reply.json == {"model_version_status": [version("10"), version("9"), version("2")]}


def test_g3_status_of_one_version() -> None:
    """With a version or a label in the path only that version is listed."""
    client = Client({"m/2": half_plus(2), "m/10": half_plus(2)}, labels={"m": {"stable": "2"}})
    for path in ("/v1/models/m/versions/2", "/v1/models/m/versions/002", "/v1/models/m/labels/stable"):
        assert client.send("GET", path).json == {"model_version_status": [version("2")]}


@pytest.mark.parametrize(
    ("state", "kind", "expected"),
    [
        (State.LOADING, None, version("2", "LOADING")),
        (State.DRAINING, None, version("2", "UNLOADING")),
        (State.GONE, None, version("2", "END")),
        (State.FAILED, None, version("2", "END", "UNKNOWN", "the reason")),
        (State.FAILED, Kind.INVALID_INPUT, version("2", "END", "INVALID_ARGUMENT", "the reason")),
        (State.FAILED, Kind.UNSUPPORTED, version("2", "END", "UNIMPLEMENTED", "the reason")),
        (State.FAILED, Kind.NOT_FOUND, version("2", "END", "NOT_FOUND", "the reason")),
        (State.GONE, Kind.MODEL_FAILED, version("2", "END", "INTERNAL", "the reason")),
    ],
)
def test_states(state: State, kind: Kind | None, expected: dict[str, Any]) -> None:
    """Every state has its word; only a failure has a code, that of its kind, and a text."""
    client = Client({"m/1": half_plus(2)})
    client.tell("m", "2", state, "the reason", kind)
    assert client.send("GET", "/v1/models/m").json["model_version_status"] == [expected, version("1")]


def test_a_version_that_waits() -> None:
    """What is wanted, and for which nothing has been done yet, has not begun to load."""
    client = Client({"m/1": half_plus(2)})
    client.tell("m", "2", State.LOADING, waiting=True)
    assert client.send("GET", "/v1/models/m/versions/2").json == {"model_version_status": [version("2", "START")]}


def test_states_are_total() -> None:
    """No state of a version is without a word."""
    assert set(STATES) == set(State)


def test_versions_that_are_no_numbers() -> None:
    """Versions of other layouts are listed, though no path of this protocol can address them."""
    client = Client({"m/v2": half_plus(2), "m/3": half_plus(3)})
    assert [each["version"] for each in client.send("GET", "/v1/models/m").json["model_version_status"]] == ["3", "v2"]
    assert client.send("GET", "/v1/models/m/versions/v2").error == "Malformed request: GET /v1/models/m/versions/v2"


def test_g4_metadata() -> None:
    """The whole document, with the default signature under its own name."""
    shaped = {
        "inputs": {"x": tensor("DT_FLOAT", "x:0", "-1", "1")},
        "outputs": {"y": tensor("DT_FLOAT", "y:0", "-1", "1")},
        "method_name": "tensorflow/serving/predict",
        "defaults": {},
    }
    reply = Client({"half_plus_two/123": half_plus(2)}).send("GET", "/v1/models/half_plus_two/metadata")
    assert reply.status == 200
    assert reply.json == {
        "model_spec": {"name": "half_plus_two", "signature_name": "", "version": "123"},
        "metadata": {"signature_def": {"signature_def": {"serving_default": shaped, "plus_one": shaped}}},
    }


def test_g4_metadata_of_a_version() -> None:
    """Without a version the latest answers; model_spec tells which one did."""
    client = Client({"m/1": half_plus(2), "m/2": half_plus(3)}, labels={"m": {"old": "1"}})
    told = {
        path: client.send("GET", f"/v1/models/m{path}/metadata").json["model_spec"]["version"]
        for path in ("", "/versions/1", "/labels/old")
    }
    assert told == {"": "2", "/versions/1": "1", "/labels/old": "1"}


@pytest.mark.parametrize("name", sorted(DATATYPES))
def test_metadata_datatypes(name: str) -> None:
    """Every datatype has TensorFlow's name in capitals."""
    renamed = {"FP32": "FLOAT", "FP64": "DOUBLE", "FP16": "HALF", "BF16": "BFLOAT16", "BYTES": "STRING"}
    toy = Toy({"": signature([TensorSpec("x", DATATYPES[name], (2,))], [])}, lambda _, __: [])
    told = signatures(Client({"m": toy}), "m")["serving_default"]["inputs"]
    assert told == {"x": tensor(f"DT_{renamed.get(name, name)}", "x:0", "2")}
    assert len(TYPE_NAMES) == len(DATATYPES)


def test_metadata_of_loose_signatures() -> None:
    """Unknown rank, scalar, any datatype, a runtime's own tensor names and a method name."""
    inputs = [TensorSpec("a", t.INT64, None), TensorSpec("b", t.BOOL, ()), TensorSpec("c", None, (-1, 4), native="serving_c:0")]
    toy = Toy({"": signature(inputs, [], method="tensorflow/serving/regress")}, lambda _, __: [])
    told = signatures(Client({"m": toy}), "m")["serving_default"]
    assert told["method_name"] == "tensorflow/serving/regress"
    assert told["inputs"]["a"]["tensor_shape"] == {"dim": [], "unknown_rank": True}
    assert told["inputs"]["b"] == tensor("DT_BOOL", "b:0")
    assert told["inputs"]["c"] == tensor("DT_DOUBLE", "serving_c:0", "-1", "4")


def test_metadata_lists_callable_signatures() -> None:
    """A signature that the artifact itself calls serving_default is listed once; schemas of other operations are not listed."""
    one = signature([TensorSpec("x", t.FP32, (1,))], [])
    toy = Toy({"": one, "serving_default": one, "other": one, "@demo": Signature(form=Form.ROWS)}, lambda _, __: [])
    assert list(signatures(Client({"m": toy}), "m")) == ["serving_default", "other"]
