"""Row form and column form, and the examples that users of Gradient's deployments knew."""

from typing import Any

import numpy as np
import pytest

from dragoman.core import tensors as t
from dragoman.core.tensors import Tensors, TensorSpec
from tests.fakes_tfs import Client, Toy, beacon, digits, echo, half_plus, signature

ROWS = [
    {"tag": "foo", "signal": [1, 2, 3, 4, 5], "sensor": [[1, 2], [3, 4]]},
    {"tag": "bar", "signal": [3, 4, 1, 2, 5], "sensor": [[4, 5], [6, 8]]},
]
COLUMNS = {
    "tag": ["foo", "bar"],
    "signal": [[1, 2, 3, 4, 5], [3, 4, 1, 2, 5]],
    "sensor": [[[1, 2], [3, 4]], [[4, 5], [6, 8]]],
}


def client() -> Client:
    models = {"string": echo(t.BYTES), "float": echo(t.FP32), "half": half_plus(2), "beacon": beacon(), "mnist": digits()}
    return Client(models)


def fed(models: Client, name: str, inputs: dict[str, Any] | list[Any], key: str) -> dict[str, tuple[t.Datatype, list[int], Any]]:
    """What the model got: name -> datatype, shape, values."""
    toy = models.gateway.find(name).servable
    assert isinstance(toy, Toy)
    assert models.predict(name, {key: inputs}).status == 200
    request = toy.seen[-1]
    assert isinstance(request.inputs, Tensors)
    assert not request.strict
    assert request.dialect == "tfserving"
    return {each.name: (each.datatype, list(each.array.shape), each.array.tolist()) for each in request.inputs.items}


@pytest.mark.parametrize(
    ("model", "rows", "shape"),
    [
        ("string", ["foo", "bar", "baz"], [3]),
        ("float", [[[1, 2]], [[3, 4]]], [2, 1, 2]),
        ("float", [1.0], [1]),
        ("float", [[], []], [2, 0]),
        ("float", [[[]]], [1, 1, 0]),
    ],
)
def test_g12_plain_rows(model: str, rows: list[Any], shape: list[int]) -> None:
    """One input: rows are its values, stacked along a new first dimension, and come back as they are."""
    ours = client()
    assert fed(ours, model, rows, "instances")["x"][1] == shape
    assert ours.predict(model, {"instances": rows}).json == {"predictions": rows}


def test_g12_rows_as_objects_of_one_input() -> None:
    """One input may be named in every row all the same."""
    assert client().predict("half", {"instances": [{"x": 1.0}, {"x": 2.0}]}).json == {"predictions": [2.5, 3.0]}
    assert client().predict("half", {"instances": [{"x": [1.0]}, {"x": [2.0]}]}).json == {"predictions": [[2.5], [3.0]]}


def test_g13_rows_of_several_inputs() -> None:
    """The tag, signal, sensor example: each input is stacked, with the signature's datatype."""
    ours = client()
    assert fed(ours, "beacon", ROWS, "instances") == {
        "tag": (t.BYTES, [2], [b"foo", b"bar"]),
        "signal": (t.INT64, [2, 5], COLUMNS["signal"]),
        "sensor": (t.FP32, [2, 2, 2], COLUMNS["sensor"]),
    }


def test_g13_example_as_printed() -> None:
    """The page that shows the example has one bracket too many; as printed it is not JSON."""
    text = '{"instances": [{"tag": "bar", "signal": [3, 4, 1, 2, 5]], "sensor": [[4, 5], [6, 8]]}]}'
    reply = client().predict("beacon", text)
    assert reply.status == 400
    assert reply.error.startswith("JSON Parse error: ")


def test_g14_columns_feed_the_same_as_rows() -> None:
    """The column form of the example feeds the same tensors, and the answers have the same numbers."""
    ours = client()
    assert fed(ours, "beacon", COLUMNS, "inputs") == fed(ours, "beacon", ROWS, "instances")
    rows = ours.predict("beacon", {"instances": ROWS}).json["predictions"]
    columns = ours.predict("beacon", {"inputs": COLUMNS}).json["outputs"]
    assert {name: [row[name] for row in rows] for name in rows[0]} == columns


@pytest.mark.parametrize(
    ("model", "inputs", "shape"),
    [
        ("float", 1.5, []),
        ("float", [1.5], [1]),
        ("float", [[1, 2], [3, 4]], [2, 2]),
        ("float", [], [0]),
        ("float", {"x": 1.5}, []),
        ("float", {"x": [[1.5]]}, [1, 1]),
        ("string", "foo", []),
        ("string", {"b64": "Zm9v"}, []),
        ("string", {"x": {"b64": "Zm9v"}}, []),
    ],
)
def test_g14_single_value(model: str, inputs: Any, shape: list[int]) -> None:
    """One input: a bare value of any shape, named or not; base64 objects are values, not names."""
    assert fed(client(), model, inputs, "inputs")["x"][1] == shape


def test_g15_columns_of_unequal_length() -> None:
    """Columns need not share their first dimension."""
    inputs = {**COLUMNS, "tag": ["one", "two", "three"], "signal": [[1, 1, 1, 1, 1]]}
    reply = client().predict("beacon", {"inputs": inputs})
    assert reply.status == 200
    assert reply.json["outputs"]["total"] == [5]
    assert len(reply.json["outputs"]["tag_bytes"]) == 3


def test_g15_scalar_columns() -> None:
    """Columns may be scalars, and so may outputs."""
    reply = client().predict("beacon", {"inputs": {"tag": "foo", "signal": 3, "sensor": 4}})
    assert reply.json == {"outputs": {"total": 3, "mean": 4.0, "tag_bytes": {"b64": "Zm9v"}}}


def test_unknown_columns_are_ignored() -> None:
    """A column that the model does not know is left out, as in TensorFlow Serving."""
    assert client().predict("half", {"inputs": {"x": [[1.0]], "y": "anything"}}).json == {"outputs": [[2.5]]}


def test_g16_predictions() -> None:
    """One output: bare values. Several: a list of objects."""
    ours = client()
    assert ours.predict("half", {"instances": [[1.0], [2.0]]}).json == {"predictions": [[2.5], [3.0]]}
    assert ours.predict("beacon", {"instances": ROWS}).json == {
        "predictions": [
            {"total": 15, "mean": 2.5, "tag_bytes": {"b64": "Zm9v"}},
            {"total": 15, "mean": 5.75, "tag_bytes": {"b64": "YmFy"}},
        ]
    }


def test_g17_outputs() -> None:
    """One output: the bare tensor. Several: an object."""
    ours = client()
    assert ours.predict("half", {"inputs": [[1.0], [2.0]]}).json == {"outputs": [[2.5], [3.0]]}
    assert ours.predict("beacon", {"inputs": COLUMNS}).json == {
        "outputs": {"total": [15, 15], "mean": [2.5, 5.75], "tag_bytes": [{"b64": "Zm9v"}, {"b64": "YmFy"}]}
    }


def test_g18_mnist_client() -> None:
    """The sample client's request: one vector of 784 numbers under "inputs"."""
    image = np.arange(784).reshape(28, 28) % 255
    vector = [number for line in image.tolist() for number in line]
    reply = client().send("POST", "/model-serving/mnist:predict", {"inputs": [vector]})
    assert reply.status == 200
    assert reply.json == {"outputs": {"classes": [7], "probabilities": [[0.0] * 7 + [1.0, 0.0, 0.0]]}}


@pytest.mark.parametrize("name", [None, "", "serving_default"])
def test_g6_default_signature(name: str | None) -> None:
    """No signature name, an empty one and "serving_default" mean the default."""
    body: dict[str, Any] = {"instances": [1.0]}
    if name is not None:
        body["signature_name"] = name
    assert client().predict("half", body).json == {"predictions": [2.5]}


def test_g6_named_signature() -> None:
    """Another signature is run by its name, and the model learns which."""
    assert client().predict("half", {"signature_name": "plus_one", "instances": [1.0]}).json == {"predictions": [3.5]}


def test_signature_that_is_really_called_serving_default() -> None:
    """When the artifact has a signature of that name, it is that one that runs."""
    one = signature([TensorSpec("x", t.FP32, None)], [])
    toy = Toy({"": one, "serving_default": one}, lambda inputs, name: [t.Tensor(name or "-", t.FP32, inputs.items[0].array)])
    ours = Client({"m": toy})
    assert ours.predict("m", {"signature_name": "serving_default", "inputs": 1}).status == 200
    assert toy.seen[-1].signature == "serving_default"


def test_other_keys_are_ignored() -> None:
    """Keys beside the three are nobody's business, whatever they hold."""
    assert client().predict("half", {"instances": [1.0], "examples": [[[{"a": None}]]], "x": 1}).json == {"predictions": [2.5]}


OPTIONAL = signature([TensorSpec("x", t.FP32, None), TensorSpec("z", t.FP32, None, optional=True)], [TensorSpec("n", t.INT64, None)])


def counting() -> Client:
    """A model with an optional input, which answers how many inputs it got, per row."""
    return Client({"m": Toy({"": OPTIONAL}, lambda i, _: [t.Tensor("n", t.INT64, np.full(i.items[0].array.shape[:1], len(i.items)))])})


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ({"instances": [{"x": 1}, {"x": 1}]}, {"predictions": [1, 1]}),
        ({"instances": [{"z": 1, "x": 1}, {"x": 1, "z": 1}]}, {"predictions": [2, 2]}),
        ({"inputs": {"x": [1]}}, {"outputs": [1]}),
        ({"inputs": {"x": [1], "z": [2]}}, {"outputs": [2]}),
    ],
)
def test_optional_inputs(body: Any, answer: Any) -> None:
    """An optional input may be left out, in row form of all rows."""
    assert counting().predict("m", body).json == answer


@pytest.mark.parametrize("rows", [[{"x": 1, "z": 1}, {"x": 1}], [{"x": 1}, {"x": 1, "z": 1}]])
def test_optional_input_in_some_rows(rows: list[Any]) -> None:
    """All rows have the same inputs."""
    reply = counting().predict("m", {"instances": rows})
    assert reply.status == 400
    assert "keys must be equal to: x" in reply.error


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({"instances": [[1, 2]]}, ["input"]),
        ({"inputs": [1, 2]}, ["input"]),
        ({"instances": [{"b": 1, "a": 2}]}, ["b", "a"]),
        ({"inputs": {"b": 1, "a": [2]}}, ["b", "a"]),
    ],
)
def test_models_that_declare_no_inputs(body: Any, names: list[str]) -> None:
    """Inputs are then what the request names; a plain value is called "input"."""
    toy = Toy({"": signature([], [])}, lambda inputs, _: [t.Tensor("y", t.INT64, np.zeros(1, "i8"))])
    assert Client({"m": toy}).predict("m", body).status == 200
    inputs = toy.seen[-1].inputs
    assert isinstance(inputs, Tensors)
    assert [each.name for each in inputs.items] == names
