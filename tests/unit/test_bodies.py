"""The schemas of inference in the OpenAPI document: they take what the codecs take, and refuse what they refuse, as far as they can say it."""

from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.console import bodies
from dragoman.core.samples import instances, v2_inputs
from dragoman.core.tensors import BF16, BOOL, BYTES, DATATYPES, FP32, INT8, UINT16, Datatype, Signature, TensorSpec

IRIS = Signature(inputs=(TensorSpec("X", FP32, (-1, 4)),), outputs=(TensorSpec("label", FP32, (-1,)),), batch=True)
TWO = Signature(inputs=(TensorSpec("a", INT8, (-1,)), TensorSpec("b", BYTES, (-1, 2), optional=True)), batch=True)


def takes(schema: bodies.Schema, document: Any) -> bool:
    return jsonschema_rs.validator_for(schema).is_valid(document)


def x(**changes: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "data": [1, 2.5, 3, 4], **changes}]}


@pytest.mark.parametrize(
    "document",
    [
        x(),
        x(data=[[1, 2, 3, 4]]),
        x(shape=[0, 4], data=[]),
        x(parameters={"binary_data_size": 16}),
        {**x(), "id": "7", "parameters": {"timeout": 5}, "outputs": [{"name": "label", "parameters": {"binary_data": True}}], "other": 1},
    ],
)
def test_v2_requests_that_fit(document: Any) -> None:
    """Names, datatypes and shapes are the model's; the list of elements is anything."""
    assert takes(bodies.v2_request(IRIS), document)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"inputs": []},
        {"inputs": x()["inputs"] * 2},
        x(name="Y"),
        x(datatype="FP64"),
        x(shape=[1, 3]),
        x(shape=[4]),
        x(shape=[-1, 4]),
        x(data=1.0),
        {**x(), "id": 7},
        {**x(), "parameters": {"timeout": []}},
        {**x(), "outputs": [{"name": "nothing"}]},
    ],
)
def test_v2_requests_that_do_not_fit(document: Any) -> None:
    """What the server refuses for its names, types and ranks is refused by the schema."""
    assert not takes(bodies.v2_request(IRIS), document)


def test_several_inputs_in_any_order_and_optional_ones() -> None:
    """Each input has a schema of its own; how many may be left out is known."""
    a = {"name": "a", "shape": [1], "datatype": "INT8", "data": [1]}
    b = {"name": "b", "shape": [1, 2], "datatype": "BYTES", "data": ["x", "y"]}
    schema = bodies.v2_request(TWO)
    assert takes(schema, {"inputs": [a]})
    assert takes(schema, {"inputs": [b, a]})
    assert not takes(schema, {"inputs": []})
    assert not takes(schema, {"inputs": [a, b, a]})


def test_datatypes_that_go_as_binary_data_only() -> None:
    """Their tensors need parameters, and have no data."""
    schema = bodies.v2_request(Signature(inputs=(TensorSpec("x", BF16, (1,)),)))
    tensor = {"name": "x", "shape": [1], "datatype": "BF16"}
    assert not takes(schema, {"inputs": [tensor]})
    assert takes(schema, {"inputs": [{**tensor, "parameters": {"binary_data_size": 2}}]})


@pytest.mark.parametrize(
    ("document", "fits"),
    [
        ({"instances": [[1, 2, 3, 4]]}, True),
        ({"instances": [[1, 2, 3, 4]], "signature_name": "serving_default"}, True),
        ({"inputs": [[1, 2, 3, 4], [0, 0, 0, 0.5]]}, True),
        ({"inputs": {"X": [[1, 2, 3, 4]]}}, True),
        ({"instances": []}, False),
        ({"instances": [[1, 2, 3]]}, False),
        ({"instances": [["1", 2, 3, 4]]}, False),
        ({"instances": [[1, 2, 3, 4]], "inputs": []}, False),
        ({"instances": [[1, 2, 3, 4]], "signature_name": "other"}, False),
        ({"inputs": {}}, False),
        ({}, False),
    ],
)
def test_tensorflow_serving_with_one_input(document: Any, fits: bool) -> None:
    """Bare rows, a bare column or a column by name; one of the two forms, not both."""
    schema = bodies.tfs_request(IRIS)
    assert schema is not None
    assert takes(schema, document) == fits


@pytest.mark.parametrize(
    ("document", "fits"),
    [
        ({"instances": [{"a": 127}]}, True),
        ({"instances": [{"a": 1, "b": ["x", {"b64": "eA=="}]}]}, True),
        ({"inputs": {"a": [1, 2]}}, True),
        ({"instances": [{"a": 128}]}, False),
        ({"instances": [{"a": 1.5}]}, False),
        ({"instances": [{"b": ["x", "y"]}]}, False),
        ({"instances": [{"a": 1, "c": 1}]}, False),
        ({"instances": [{"a": 1, "b": ["x", {"b64": 1}]}]}, False),
        ({"instances": [1]}, False),
    ],
)
def test_tensorflow_serving_with_several_inputs(document: Any, fits: bool) -> None:
    """Rows are objects with the model's inputs; integers have the limits of their type; binary data is an object of one key."""
    schema = bodies.tfs_request(TWO)
    assert schema is not None
    assert takes(schema, document) == fits


def test_what_tensorflow_serving_cannot_be_asked() -> None:
    """There is no route for datatypes that its JSON does not have, and there are no rows of scalars."""
    assert bodies.tfs_request(Signature(inputs=(TensorSpec("x", UINT16, (-1,)),))) is None
    scalar = bodies.tfs_request(Signature(inputs=(TensorSpec("x", BOOL, ()),)))
    assert scalar is not None
    assert takes(scalar, {"inputs": True})
    assert not takes(scalar, {"instances": [True]})


def test_models_that_declare_little() -> None:
    """Unknown ranks and datatypes, or no inputs at all, leave the schema open."""
    open_signature = Signature(inputs=(TensorSpec("x", None, None), TensorSpec("y", None, (-1,))))
    tensor = {"shape": [3, 1], "datatype": "FP64", "data": [1, 2, 3]}
    assert takes(bodies.v2_request(open_signature), {"inputs": [{"name": "x", **tensor}, {"name": "y", **tensor, "shape": [3]}]})
    assert takes(bodies.v2_request(Signature()), {"inputs": [{"name": "any", **tensor}]})
    for signature in (open_signature, Signature()):
        schema = bodies.tfs_request(signature)
        assert schema is not None
        assert takes(schema, {"instances": [{"x": [[1]], "y": 1}]})


DATATYPE = st.sampled_from([each for each in DATATYPES.values() if each.kind != "complex"])


@given(st.lists(st.tuples(DATATYPE, st.lists(st.integers(-1, 3), max_size=3)), min_size=1, max_size=3), st.booleans())
def test_every_example_fits_its_schema(declared: list[tuple[Datatype, list[int]]], batch: bool) -> None:
    """What the document shows is what it describes."""
    specs = [TensorSpec(f"t{i}", d, (-1, *dims) if batch else tuple(dims)) for i, (d, dims) in enumerate(declared)]
    signature = Signature(inputs=tuple(specs), batch=batch)
    inputs, rows = v2_inputs(signature), instances(signature)
    if inputs is not None:
        assert takes(bodies.v2_request(signature), {"inputs": inputs})
    if rows is not None:
        schema = bodies.tfs_request(signature)
        assert schema is not None
        assert takes(schema, {"instances": rows})
