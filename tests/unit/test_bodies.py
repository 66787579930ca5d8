"""MLRun's plain lists for every form of model, and whole requests behind protocols of tensors and rows."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dragoman.core.bodies import (
    answered_rows,
    answered_tensors,
    by_name,
    event,
    features,
    listed,
    named_point,
    plain_outputs,
    points_of,
    reply_outputs,
    requested,
    stamp,
    whole_request,
)
from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import InferRequest
from dragoman.core.tensors import BYTES, FP32, FP64, INT64, Form, JsonSchema, Reply, Rows, Signature, Tensor, Tensors, TensorSpec, Value
from dragoman.hosting.frames import new_tag
from dragoman.hosting.packing import FrameError, pack, unpack

MATRIX = Signature(Form.TENSORS, (TensorSpec("X", FP32, (-1, 4)),), (TensorSpec("label", INT64, (-1,)),), batch=True)
COLUMNS = Signature(Form.TENSORS, tuple(TensorSpec(name, FP64, (-1,)) for name in "abc"), batch=True)
SCALARS = Signature(Form.TENSORS, (TensorSpec("x", FP64, (-1,)),), batch=True)
IMAGES = Signature(Form.TENSORS, (TensorSpec("x", FP32, (-1, 2, 2, 1)),), batch=True)
ROWS = Signature(
    Form.ROWS, input_schema={"type": "object", "properties": {"n": {"type": "integer"}, "t": {"type": "string"}}, "required": ["n", "t"]}
)
WHOLE = Signature(Form.ROWS, tuple(TensorSpec(n, None, None) for n in "ba"), (TensorSpec("kind", None, None),), whole=True)


def refused(call: Any, *arguments: Any) -> ServingError:
    with pytest.raises(ServingError) as caught:
        call(*arguments)
    return caught.value


@pytest.mark.parametrize(
    ("signature", "inputs", "shape"),
    [
        (MATRIX, [[1, 2, 3, 4]] * 3, (3, 4)),
        (MATRIX, [5.1, 3.5, 1.4, 0.2], (1, 4)),
        (MATRIX, [{"X": [1, 2, 3, 4]}], (1, 4)),
        (COLUMNS, [[1, 2, 3], [4, 5, 6]], (2,)),
        (COLUMNS, [1, 2, 3], (1,)),
        (COLUMNS, [{"c": 3, "b": 2, "a": 1}], (1,)),
        (SCALARS, [1, 2, 3], (3,)),
        (IMAGES, [[[[1], [2]], [[3], [4]]]], (1, 2, 2, 1)),
    ],
)
def test_plain_lists_for_tensors(signature: Signature, inputs: list[Any], shape: tuple[int, ...]) -> None:
    """Data points by place, by name and bare; a flat list is one point where a point has several values (M8, M9)."""
    made = requested(inputs, signature, "m")
    assert isinstance(made, Tensors)
    assert [t.array.shape for t in made.items] == [shape] * len(signature.inputs)


def test_columns_keep_their_places() -> None:
    """The first value of a point is the first feature's."""
    made = requested([[1, 2, 3], [4, 5, 6]], COLUMNS, "m")
    assert isinstance(made, Tensors)
    assert {t.name: t.array.tolist() for t in made.items} == {"a": [1, 4], "b": [2, 5], "c": [3, 6]}


def test_columns_of_one_value() -> None:
    """A column of shape [n, 1], as models of tables have them, takes bare values and lists of one."""
    narrow = Signature(Form.TENSORS, tuple(TensorSpec(name, FP64, (-1, 1)) for name in "ab"), batch=True)
    for inputs in ([[1, 2], [3, 4]], [{"a": 1, "b": 2}, {"b": [4], "a": [3]}]):
        made = requested(inputs, narrow, "m")
        assert isinstance(made, Tensors)
        assert {t.name: t.array.tolist() for t in made.items} == {"a": [[1], [3]], "b": [[2], [4]]}


def test_plain_lists_for_rows() -> None:
    """A model of rows gets its fields by name."""
    assert requested([[1, "x"], {"n": 2, "t": "y"}], ROWS, "m") == Rows([{"n": 1, "t": "x"}, {"n": 2, "t": "y"}])
    assert requested([1, "x"], ROWS, "m") == Rows([{"n": 1, "t": "x"}])


@pytest.mark.parametrize(
    ("signature", "inputs", "words"),
    [
        (MATRIX, {"X": 1}, "the inputs for model 'm' must be a list, not an object"),
        (MATRIX, "text", "not a text"),
        (MATRIX, [], "no data point"),
        (MATRIX, [{"Y": 1}], "data point 0 for model 'm' lacks 'X'"),
        (COLUMNS, [[1, 2]], "data point 0 for model 'm' has 2 values, expected the 3 features 'a', 'b', 'c'"),
        (COLUMNS, [[1, 2, 3], 4], "data point 1 for model 'm' must be a list of its 3 features, not a number"),
        (COLUMNS, [["x", 2, 3]], "input 'a' of model 'm'"),
    ],
)
def test_lists_that_do_not_fit(signature: Signature, inputs: Value, words: str) -> None:
    """The message names the model, the data point and what was expected (M16)."""
    error = refused(requested, inputs, signature, "m")
    assert error.kind is Kind.INVALID_INPUT
    assert words in error.message


def test_features_by_name() -> None:
    """In the order of the schema, whatever the order of keys; extra keys are dropped (M10, M12)."""
    assert listed([{"c": 3, "a": 1, "b": [2], "z": 0}], features(COLUMNS), "m") == [[1, [2], 3]]
    assert listed({"c": 3, "a": 1, "b": 2}, features(COLUMNS), "m") == [1, 2, 3]
    assert listed([], features(COLUMNS), "m") == []


@pytest.mark.parametrize(
    ("inputs", "names", "words"),
    [
        ([{"a": 1}], [], "names no features"),
        ([{"a": 1}], ["a", "b"], "data point 0 for model 'm' lacks 'b'; its features are 'a', 'b'"),
        ([{"a": 1, "b": 2}, [1, 2]], ["a", "b"], "data point 1 for model 'm' must be an object"),
        ("a", ["a"], "must be a list of objects, not a text"),
    ],
)
def test_features_that_do_not_fit(inputs: Value, names: list[str], words: str) -> None:
    """Without a schema, with a missing key, in a wrong form (M11)."""
    assert words in refused(listed, inputs, names, "m").message
    assert words in refused(by_name, inputs, names, "m").message


def test_data_points_by_name_have_their_features_and_no_more() -> None:
    """One object is one data point, as it is for lists; extra keys are dropped and the order is that of the features."""
    assert by_name([{"c": 3, "a": 1, "b": [2], "z": 0}], features(COLUMNS), "m") == [{"a": 1, "b": [2], "c": 3}]
    assert by_name({"c": 3, "a": 1, "b": 2}, features(COLUMNS), "m") == [{"a": 1, "b": 2, "c": 3}]
    assert by_name([], features(COLUMNS), "m") == []


def test_moments_are_written_as_mlrun_writes_them() -> None:
    """With microseconds and the time zone, also where they are zero."""
    assert stamp(0.0) == "1970-01-01 00:00:00.000000+00:00"
    assert stamp(1769860800.25) == "2026-01-31 12:00:00.250000+00:00"


def test_plain_outputs() -> None:
    """One value per point; objects by name where a model has several outputs; texts, no bytes (M27)."""
    label, text = Tensor("label", INT64, np.array([1, 2])), Tensor("text", BYTES, np.array([b"a", b"b"], object))
    assert plain_outputs(Tensors([label]), MATRIX, "m") == [1, 2]
    assert plain_outputs(Tensors([text]), MATRIX, "m") == ["a", "b"]
    assert plain_outputs(Tensors([label, text]), MATRIX, "m") == [{"label": 1, "text": "a"}, {"label": 2, "text": "b"}]
    assert plain_outputs(Rows([{"output": np.array([1.5])}, {"output": 2}]), ROWS, "m") == [[1.5], 2]
    assert plain_outputs(Rows([Reply({"outputs": {"a": [1]}, "id": "x"})]), WHOLE, "m") == {"a": [1]}


def test_points_of_tensors() -> None:
    """One tensor as it is nested; several by the names of the features, else as they came (section 13)."""
    a, b = Tensor("a", FP32, np.array([[1], [2]], "f4")), Tensor("b", BYTES, np.array([b"x", b"y"], object))
    assert points_of(Tensors([a]), WHOLE) == [[1.0], [2.0]]
    assert points_of(Tensors([a, b]), WHOLE) == [["x", 1.0], ["y", 2.0]]
    assert points_of(Tensors([a, Tensor("z", INT64, np.array([5, 6]))]), WHOLE) == [[1.0, 5], [2.0, 6]]
    assert points_of(Tensors([a, Tensor("z", INT64, np.array([5, 6, 7]))]), WHOLE) == [[[1.0], [2.0]], [5, 6, 7]]


def test_points_by_place_and_by_name() -> None:
    """What a protocol of rows makes of a data point: its features by name; without a schema whatever it is, in the one field there is."""
    free = Signature(Form.ROWS, (TensorSpec("inputs", None, None),), whole=True)
    assert features(free) == []
    assert named_point([1, 2], WHOLE) == {"b": 1, "a": 2}
    assert [named_point(point, WHOLE) for point in ([1], 5, {"a": 1})] == [[1], 5, {"a": 1}]
    assert [named_point(point, free) for point in ([1], {"a": 1}, {"inputs": 1})] == [[1], {"inputs": {"a": 1}}, {"inputs": 1}]
    assert named_point([1, 2], ROWS) == [1, 2]
    assert points_of(Rows([{"inputs": [1, 2]}, {"inputs": {"a": 1}}]), free) == [[1, 2], {"a": 1}]


def test_points_of_rows() -> None:
    """By the names of the features; a row of one field is its value."""
    assert points_of(Rows([{"a": 1, "b": 2}, {"q": 3}, 4]), WHOLE) == [[2, 1], 3, 4]


def test_a_whole_request() -> None:
    """Id, parameters and wanted outputs are in the body; without an id one is made."""
    made = whole_request([[1]], InferRequest(Rows([]), outputs=("y",), parameters={"p": 1}, id="7"))
    assert isinstance(made.inputs, Rows)
    row = made.inputs.items[0]
    assert row["body"] == {"inputs": [[1]], "id": "7", "parameters": {"p": 1}, "outputs": ["y"]}
    assert row["id"] == "7"
    assert event({})["id"] != event({})["id"]


def test_replies_as_rows() -> None:
    """A list, columns, or one value for one row; everything else is the model's failure."""
    assert answered_rows(Rows([Reply({"outputs": [1, 2]})]), 2, "m") == [1, 2]
    assert answered_rows(Rows([Reply({"outputs": {"a": [1, 2], "b": [[3], [4]]}})]), 2, "m") == [{"a": 1, "b": [3]}, {"a": 2, "b": [4]}]
    assert answered_rows(Rows([Reply("word")]), 1, "m") == ["word"]
    assert refused(answered_rows, Rows([Reply({"outputs": [1]})]), 2, "m").kind is Kind.MODEL_FAILED
    assert refused(answered_rows, Rows([1]), 1, "m").kind is Kind.MODEL_FAILED


def test_replies_as_tensors() -> None:
    """One tensor under the schema's first name, or one per key; datatypes from the values (section 13)."""
    made = answered_tensors(Rows([Reply({"outputs": [[1, 2], [3, 4]]})]), WHOLE, "m").items
    assert [(t.name, t.datatype, t.array.tolist()) for t in made] == [("kind", INT64, [[1, 2], [3, 4]])]
    made = answered_tensors(Rows([Reply({"outputs": {"p": [0.5], "t": ["x"]}})]), WHOLE, "m").items
    assert [(t.name, t.datatype, t.array.tolist()) for t in made] == [("p", FP64, [0.5]), ("t", BYTES, [b"x"])]


@pytest.mark.parametrize(
    ("outputs", "cells"),
    [
        ([[1], [2, 3]], [b"[1]", b"[2,3]"]),
        (["v2", 2, None], [b"v2", b"2", b"null"]),
        ([{"a": 1}], [b'{"a":1}']),
        ({"k": {"a": [1]}}, [b'{"a":[1]}']),
    ],
)
def test_replies_that_no_tensor_can_hold(outputs: Value, cells: list[bytes]) -> None:
    """Are BYTES: texts as they are, everything else JSON."""
    (made,) = answered_tensors(Rows([Reply({"outputs": outputs})]), WHOLE, "m").items
    assert (made.datatype, made.array.tolist()) == (BYTES, cells)


def test_a_status_of_user_code() -> None:
    """4xx is the caller's doing, 5xx the model's; the status goes along (M24)."""
    error = refused(reply_outputs, Reply("no such thing", 422), "m")
    assert (error.kind, error.status) == (Kind.INVALID_INPUT, 422)
    assert "no such thing" in error.message
    assert refused(reply_outputs, Reply({"error": "x"}, 503), "m").kind is Kind.MODEL_FAILED


def test_replies_travel() -> None:
    """Between a server and a model process, files and arrays in them included."""
    tag = new_tag()
    reply = Reply({"outputs": [b"x"]}, 201, "text/plain", {"x-a": "b"}, {"metrics": {"n": 1}})
    assert _sent({"rows": [reply]}, tag) == {"rows": [reply]}
    with pytest.raises(FrameError):
        _sent({"rows": [Reply(object())]}, tag)


def _sent(value: Value, tag: str) -> Value:
    text, buffers, _ = pack(value, tag)
    whole = text + bytes(-len(text) % 64) + b"".join(buffers)
    return unpack(np.frombuffer(whole, np.uint8), len(text), tag)


def test_a_single_feature_as_a_list_of_one() -> None:
    """[value] is a data point of a model with one feature that is a single value; a feature that is a list is the point itself."""
    flat = Signature(inputs=(TensorSpec("x", FP32, (-1,)),), batch=True)
    schema: JsonSchema = {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}
    made = requested([[1], [2]], flat, "m")
    assert isinstance(made, Tensors)
    assert made.items[0].array.tolist() == [1, 2]
    assert requested([[1], 2], Signature(Form.ROWS, input_schema=schema), "m") == Rows([{"x": 1}, {"x": 2}])
    one = replace(WHOLE, input_schema={"type": "object", "properties": {"x": {}}}, inputs=(TensorSpec("x", FP64, (-1,)),))
    assert points_of(Rows([{"x": 5}, {"x": [5, 6]}]), one) == [[5], [5, 6]]
