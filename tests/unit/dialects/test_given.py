"""What a request gives as the inputs of a model: columns by name, matrices in their order, missing values, and words for what does not fit."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given as examples
from hypothesis import strategies as st

from dragoman.core import tensors as t
from dragoman.core.errors import Kind, ServingError
from dragoman.core.tensors import Blob, Form, Rows, Signature, Tensors, TensorSpec
from dragoman.dialects.given import Given, inputs_of, takes_text
from dragoman.dialects.json import NumberList, loads
from dragoman.dialects.tables import Bare, Named, Table

COLUMNS = Signature(
    inputs=(TensorSpec("a", t.FP64, (-1,)), TensorSpec("b", t.INT64, (-1, 1)), TensorSpec("c", t.BYTES, (-1,), optional=True)), batch=True
)
MATRIX = Signature(inputs=(TensorSpec("x", t.FP32, (-1, 2)),), batch=True)
ANY = Signature(inputs=(TensorSpec("X", None, (-1, 2)),), batch=True)
PAIR = Signature(inputs=(TensorSpec("l", t.FP32, (-1, 2)), TensorSpec("r", t.INT64, (-1, 2))), batch=True)
OPEN = Signature(batch=True)


def fields(properties: dict[str, Any], *required: str, **more: Any) -> Signature:
    """Of a model of rows."""
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return Signature(Form.ROWS, tuple(TensorSpec(name, None, (-1,)) for name in properties), batch=True, input_schema=schema, **more)


ROWS = fields(
    {"x": {"type": "number"}, "n": {"type": "integer"}, "s": {"type": "string"}, "o": {"type": "string", "default": "d"}}, "x", "n", "s"
)


def rows(names: list[str] | None, *cells: list[Any]) -> Table:
    return Table.of_rows(names, list(cells), "the data")


def tensors(given: Given, signature: Signature, **options: Any) -> dict[str, Any]:
    """Name -> nested list of what the model gets; every array is one that a model may own."""
    made = inputs_of(given, signature, "m", **options)
    assert isinstance(made, Tensors)
    for tensor in made.items:
        spec = signature.input_by_name.get(tensor.name)
        assert spec is None or spec.datatype in (None, tensor.datatype)
        assert tensor.array.dtype == tensor.datatype.numpy
        assert tensor.array.flags.c_contiguous
        assert tensor.array.flags.writeable
    return {tensor.name: tensor.array.tolist() for tensor in made.items}


def items(given: Given, signature: Signature = ROWS, **options: Any) -> list[Any]:
    made = inputs_of(given, signature, "m", **options)
    assert isinstance(made, Rows)
    return made.items


def refused(given: Given, signature: Signature, **options: Any) -> str:
    with pytest.raises(ServingError) as caught:
        inputs_of(given, signature, "m", **options)
    assert caught.value.kind is Kind.INVALID_INPUT
    assert "'m'" in caught.value.message
    return caught.value.message


# --- columns by name ---


def test_columns_are_picked_by_name() -> None:
    """The order is free, what is not asked for is left out, and what is optional may be missing."""
    table = rows(["extra", "b", "a"], [None, 1, 0.5], ["text", 2, 3])
    assert tensors(table, COLUMNS) == {"a": [0.5, 3.0], "b": [[1], [2]]}
    assert tensors(rows(["c", "a", "b"], ["é", 1, 1]), COLUMNS) == {"a": [1.0], "b": [[1]], "c": ["é".encode()]}


def test_an_optional_input_of_missing_values_is_not_there() -> None:
    """Where its type has none for them; a text beside a missing one still does not fit, and floats are NaN."""
    assert tensors(rows(["c", "a", "b"], [None, 1, 1], [None, 2, 2]), COLUMNS) == {"a": [1.0, 2.0], "b": [[1], [2]]}
    assert tensors(Named({"a": [1.0], "b": [1], "c": [None]}), COLUMNS) == {"a": [1.0], "b": [[1]]}
    assert tensors(Named({"a": [1.0], "b": [1], "c": None}), COLUMNS) == {"a": [1.0], "b": [[1]]}
    assert "a missing value came" in refused(rows(["c", "a", "b"], [None, 1, 1], ["x", 2, 2]), COLUMNS)
    assert "a missing value came" in refused(rows(["a", "b"], [1, None]), COLUMNS)
    floats = Signature(inputs=(TensorSpec("f", t.FP32, (-1,), optional=True), TensorSpec("g", t.FP32, (-1,))), batch=True)
    (missing, _) = tensors(rows(["f", "g"], [None, 1]), floats).values()
    assert math.isnan(missing[0])


def test_long_tables_are_picked_by_name_too() -> None:
    """As boxes of numbers, with the same result: floats out of the box, integers beside decimals the slow way."""
    data = [[i, i / 2, i] for i in range(4000)]
    table = Table.of_rows(["b", "a", "z"], loads(json.dumps({"data": data}).encode())["data"], "it")
    assert type(table.rows()) is NumberList
    made = tensors(table, COLUMNS)
    assert made == {"a": [i / 2 for i in range(4000)], "b": [[i] for i in range(4000)]}


def test_missing_columns_are_told() -> None:
    """All of them, and what is expected; not what was sent."""
    assert refused(rows(["q"], ["secret"]), COLUMNS) == "model 'm' lacks the inputs 'a', 'b'; it expects 'a', 'b', 'c'"
    assert refused(rows(["a"], [1]), COLUMNS) == "model 'm' lacks the input 'b'; it expects 'a', 'b', 'c'"
    assert "names none; it expects 'a', 'b', 'c'" in refused(rows(None, [1, 2]), COLUMNS)


def test_columns_by_place_where_that_is_allowed() -> None:
    """If there are as many as inputs."""
    table = rows(None, [1, 2, "x"])
    assert tensors(table, COLUMNS, by_place=True) == {"a": [1.0], "b": [[2]], "c": [b"x"]}
    assert "names none" in refused(rows(None, [1, 2]), COLUMNS, by_place=True)
    assert items(rows(None, [1, 2, "x", "y"]), by_place=True) == [{"x": 1.0, "n": 2, "s": "x", "o": "y"}]


def test_whole_tensors_in_cells() -> None:
    """Inputs of more dimensions come as columns of lists."""
    table = Table.of_records([{"l": [1, 2], "r": [3, 4]}, {"r": [7, 8], "l": [5, 6]}], "it")
    assert tensors(table, PAIR) == {"l": [[1.0, 2.0], [5.0, 6.0]], "r": [[3, 4], [7, 8]]}
    assert tensors(Named({"r": [[3, 4]], "l": [[1, 2]], "other": {"a": 1}}), PAIR) == {"l": [[1.0, 2.0]], "r": [[3, 4]]}


# --- matrices ---


@pytest.mark.parametrize(
    "given",
    [
        rows(["q", "p"], [1, 2], [3, 4.5]),
        rows(None, [1, 2], [3, 4.5]),
        rows(["x"], [[1, 2]], [[3, 4.5]]),
        rows(["pixels"], [[1, 2]], [[3, 4.5]]),
        Table.of_records([{"q": 1, "p": 2}, {"q": 3, "p": 4.5}], "it"),
        Table.of_columns({"q": [1, 3], "p": [2, 4.5]}, "it"),
        Table.of_records([{"x": [1, 2]}, {"x": [3, 4.5]}], "it"),
        Named({"q": [1, 3], "p": [2, 4.5]}),
        Named({"x": [[1, 2], [3, 4.5]]}),
        Bare([[1, 2], [3, 4.5]]),
    ],
)
def test_one_matrix_takes_every_form(given: Given) -> None:
    """A model of one matrix gets it in the order in which it came, or under its own name."""
    assert tensors(given, MATRIX) == {"x": [[1.0, 2.0], [3.0, 4.5]]}


def test_the_only_input_may_be_a_column() -> None:
    """Under its name, as the only column of another name, or without a name; texts and numbers alike."""
    text = Signature(inputs=(TensorSpec("t", t.BYTES, (-1,)),), batch=True)
    narrow = Signature(inputs=(TensorSpec("x", t.FP32, (-1, 1)),), batch=True)
    for given in (rows(["t", "z"], ["a", 1], ["b", 2]), rows(["q"], ["a"], ["b"]), Bare(["a", "b"]), Named({"t": ["a", "b"]})):
        assert tensors(given, text) == {"t": [b"a", b"b"]}
    for given in (rows(["z", "x"], [9, 1], [9, 2]), rows(["q"], [1], [2]), Bare([1, 2]), Bare([[1], [2]])):
        assert tensors(given, narrow) == {"x": [[1.0], [2.0]]}


def test_models_without_a_batch() -> None:
    """One row is the tensor itself; a single value is a value of no dimensions."""
    scalar = Signature(inputs=(TensorSpec("x", t.FP32, ()),))
    vector = Signature(inputs=(TensorSpec("x", t.FP32, (3,)),))
    for given in (Bare(2), Named({"x": 2}), rows(["x"], [2]), Bare([2])):
        assert tensors(given, scalar) == {"x": 2.0}
    for given in (Bare([1, 2, 3]), rows(None, [1, 2, 3]), Bare([[1, 2, 3]])):
        assert tensors(given, vector) == {"x": [1.0, 2.0, 3.0]}


def test_other_shapes_are_left_to_the_check_of_the_gateway() -> None:
    """It names both shapes; nothing is cut or stretched here."""
    assert tensors(Bare([[1, 2, 3]]), MATRIX) == {"x": [[1.0, 2.0, 3.0]]}
    assert tensors(Bare([[[1, 2]]]), MATRIX) == {"x": [[[1.0, 2.0]]]}


def test_models_that_declare_nothing() -> None:
    """Their inputs are named as the request names them, and typed as its values are."""
    assert tensors(rows(["a", "b"], [1, "x"], [2, "y"]), OPEN) == {"a": [1, 2], "b": [b"x", b"y"]}
    assert tensors(Named({"a": [True], "b": 1.5}), OPEN) == {"a": [True], "b": 1.5}
    assert tensors(Bare([[1, 2]]), OPEN) == {"input": [[1, 2]]}


def test_several_inputs_have_names() -> None:
    """Bare values are for models of one input."""
    assert refused(Bare([[1, 2]]), PAIR) == "model 'm' has 2 inputs, which must be named: 'l', 'r'"
    assert refused(Named({"wrong": [[1, 2]]}), MATRIX) == "model 'm' lacks the input 'x'; it expects 'x'"


@pytest.mark.parametrize("given", [Bare([]), Named({}), rows(["a"]), Table.of_records([], "it")])
@pytest.mark.parametrize("signature", [COLUMNS, MATRIX, ROWS, OPEN])
def test_no_rows(given: Given, signature: Signature) -> None:
    """Frameworks fail at nothing in ways of their own."""
    assert " no " in refused(given, signature)


# --- values ---


def test_integers_are_widened() -> None:
    """Where floats are declared, and nowhere else is anything changed."""
    assert tensors(Bare([[1, 2]]), MATRIX) == {"x": [[1.0, 2.0]]}
    told = refused(rows(["a", "b"], [1, 2.5]), COLUMNS)
    assert told == "input 'b' of model 'm', row 0: a number that is no integer came where INT64 takes integers"
    assert "no integer" in refused(rows(["a", "b"], [1, 2.0]), COLUMNS)


@pytest.mark.parametrize("datatype", [t.FP16, t.BF16, t.FP32, t.FP64])
def test_missing_numbers_are_nan(datatype: t.Datatype) -> None:
    """In columns and matrices of every float."""
    (tensor,) = inputs_of(Bare([[1, None], [None, 2.5]]), Signature(inputs=(TensorSpec("x", datatype, (-1, 2)),), batch=True), "m").items
    array = tensor.array
    if datatype is t.BF16:
        array = (array.astype(np.uint32) << 16).view(np.float32)
    assert np.isnan(array).tolist() == [[False, True], [True, False]]
    assert array[0, 0] == 1
    assert array[1, 1] == 2.5


def test_missing_numbers_of_any_type() -> None:
    """Where no type is declared they make the others floats."""
    made = tensors(rows(["p", "q"], [1, None], [3, 4]), ANY)["X"]
    assert made[1] == [3.0, 4.0]
    assert math.isnan(made[0][1])


@pytest.mark.parametrize(
    ("value", "datatype", "words"),
    [
        (None, t.INT64, "a missing value came where INT64 takes integers"),
        (None, t.BYTES, "a missing value came where BYTES takes strings"),
        (None, t.BOOL, "a missing value came where BOOL takes true or false"),
        ("5", t.FP32, "a value of the type String came where FP32 takes numbers"),
        ("5", t.FP16, "FP16 takes numbers, in lists that form a box"),
        (True, t.FP32, "a value of the type True came where FP32 takes numbers"),
        (1, t.BOOL, "a value of the type Number came where BOOL takes true or false"),
        (1, t.BYTES, "a value of the type Number came where BYTES takes strings"),
        (300, t.UINT8, "a number is out of range for UINT8"),
        (-1, t.UINT64, "a number is out of range for UINT64"),
        ({"a": 1}, t.FP32, "a value of the type Object came where FP32 takes numbers"),
        ([1, 2], t.FP32, "the lists do not form a box"),
        (1, t.COMPLEX64, "takes nothing that JSON can carry"),
    ],
)
def test_what_does_not_fit_is_told_without_the_data(value: Any, datatype: t.Datatype, words: str) -> None:
    """The place and the type, never the value."""
    signature = Signature(inputs=(TensorSpec("k", datatype, (-1,)), TensorSpec("o", t.FP32, (-1,))), batch=True)
    told = refused(rows(["k", "o"], [value, 1], [value, 1] if value != [1, 2] else [3, 1]), signature)
    assert words in told
    assert told.startswith("input 'k' of model 'm'")


def test_columns_of_a_matrix_are_named() -> None:
    """By the name that the client gave them."""
    assert refused(rows(["p", "q"], [1, 2], [3, "no"]), MATRIX).startswith("column 'q' of the input of model 'm', row 1: a value")
    assert refused(Bare([[1, 2], ["no", 1]]), MATRIX).startswith("input 'x' of model 'm', row 1: a value")


def test_a_text_among_missing_values_is_not_a_number() -> None:
    """Neither is it made one."""
    assert "String" in refused(Bare([[None, "5"]]), MATRIX)


def test_binary_columns_are_base64() -> None:
    """MLflow's word for them; bytes that a codec has decoded already stay."""
    signature = Signature(inputs=(TensorSpec("f", t.BYTES, (-1,), native="binary"),), batch=True)
    assert tensors(rows(["f"], ["AP8="], ["aGk="]), signature) == {"f": [b"\0\xff", b"hi"]}
    assert tensors(Bare([b"AP8="]), signature) == {"f": [b"AP8="]}
    assert "not base64" in refused(rows(["f"], ["?"]), signature)


@examples(
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x))
)
def test_any_value_is_taken_or_refused(value: Any) -> None:
    """By every kind of signature and in every form."""
    forms: list[Given] = [Bare(value), Named({"x": value, "a": value, "b": [value]}), rows(["a", "x"], [value, value])]
    for signature in (COLUMNS, MATRIX, ANY, PAIR, OPEN, ROWS):
        for form in forms:
            assert outcome(form, signature) in (None, Kind.INVALID_INPUT)


def outcome(given: Given, signature: Signature) -> Kind | None:
    """The kind of error, None for none."""
    try:
        inputs_of(given, signature, "m")
    except ServingError as error:
        return error.kind
    return None


# --- rows ---


def test_rows_by_name() -> None:
    """One object per row with the fields that are declared, coerced as everywhere."""
    assert items(rows(["s", "z", "n", "x"], ["a", 0, 1, 2])) == [{"x": 2.0, "n": 1, "s": "a", "o": "d"}]
    assert items(Table.of_records([{"x": 1, "n": 2, "s": "a", "o": "e"}], "it")) == [{"x": 1.0, "n": 2, "s": "a", "o": "e"}]
    assert items(Named({"x": [1, 2], "n": 3, "s": ["a", "b"], "z": [1, 2, 3]})) == [
        {"x": 1.0, "n": 3, "s": "a", "o": "d"},
        {"x": 2.0, "n": 3, "s": "b", "o": "d"},
    ]


def test_rows_of_one_field() -> None:
    """Bare values are for it, also where others have defaults."""
    one = fields({"x": {"type": "string"}, "o": {"type": "integer", "default": 1}}, "x")
    assert items(Bare(["a", "b"]), one) == [{"x": "a", "o": 1}, {"x": "b", "o": 1}]
    assert items(Bare("a"), one) == [{"x": "a", "o": 1}]
    assert items(rows(None, ["a"]), one) == [{"x": "a", "o": 1}]
    lists = fields({"x": {"type": "array", "items": {"type": "number"}}}, "x")
    assert items(Bare([[1, 2], [3]]), lists) == [{"x": [1.0, 2.0]}, {"x": [3.0]}]
    assert items(rows(None, [1, 2]), lists) == [{"x": [1, 2]}]
    assert items(rows(None, [1]), lists) == [{"x": [1]}]
    assert "it expects 'x', 'n', 's', 'o'" in refused(Bare([1]), ROWS)


def test_missing_cells_of_rows() -> None:
    """NaN for a number that must be there, nothing for what may be missing, null where null is a value, else a refusal."""
    (row,) = items(rows(["x", "n", "s", "o"], [None, 1, "a", None]))
    assert math.isnan(row.pop("x"))
    assert row == {"n": 1, "s": "a", "o": "d"}
    assert "field 's': none is not an allowed value" in refused(rows(["x", "n", "s"], [1, 1, None]), ROWS)
    null = fields({"v": {"type": ["string", "null"]}, "w": {"type": "number", "nullable": True}, "u": {}}, "v", "w", "u")
    assert items(rows(["v", "w", "u"], [None, None, None]), null) == [{"v": None, "w": None, "u": None}]


def test_no_integer_of_a_row_is_cut() -> None:
    """2.5 is not 2, though 2.0 is."""
    assert items(rows(["x", "n", "s"], [1, 2.0, "a"]))[0]["n"] == 2
    told = refused(rows(["x", "n", "s"], [1, 2, "a"], [1, 2.5, "a"]), ROWS)
    assert told == "input 'n' of model 'm', row 1: a number that is no integer came"
    assert "integer" in refused(rows(["x", "n", "s"], [1, math.inf, "a"]), ROWS)


def test_missing_fields_of_rows() -> None:
    """A table without a column, and a record without a value."""
    assert refused(rows(["x"], [1]), ROWS) == "model 'm' lacks the inputs 'n', 's'; it expects 'x', 'n', 's', 'o'"
    assert "row 1, field 's': field required" in refused(Table.of_records([{"x": 1, "n": 1, "s": "a"}, {"x": 1, "n": 1}], "it"), ROWS)
    assert "different lengths" in refused_shape(Named({"x": [1, 2], "n": [1], "s": "a"}))


def refused_shape(given: Given) -> str:
    with pytest.raises(ServingError) as caught:
        inputs_of(given, ROWS, "m")
    return caught.value.message


def test_files_of_rows() -> None:
    """Base64 and bytes are content."""
    files = fields({"f": {"type": "string", "format": "uri"}}, "f", input_files={"f": "binary"})
    assert items(rows(["f"], ["AP8="]), files) == [{"f": Blob(b"\0\xff")}]
    assert items(Bare([b"\0"]), files) == [{"f": Blob(b"\0")}]


# --- text ---


def test_which_columns_are_text() -> None:
    """Of tensors by datatype, of rows by schema; every column of a matrix of texts."""
    assert [takes_text(COLUMNS)(name) for name in "abcz"] == [False, False, True, False]
    assert takes_text(Signature(inputs=(TensorSpec("x", t.BYTES, (-1, 2)),)))("whatever")
    assert not takes_text(MATRIX)("whatever")
    assert [takes_text(ROWS)(name) for name in "xnsz"] == [False, False, True, False]
    assert not takes_text(OPEN)("a")
