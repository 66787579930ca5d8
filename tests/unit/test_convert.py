"""Rows to tensors and back, both ways, for models of either form."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.convert import input_rows, input_tensors, inwards, output_rows, output_tensors
from dragoman.core.errors import Kind, ServingError
from dragoman.core.files import decode_files, decoded
from dragoman.core.rows import checked
from dragoman.core.tensors import (
    BF16,
    BOOL,
    BYTES,
    COMPLEX64,
    FP16,
    FP32,
    FP64,
    INT8,
    INT32,
    INT64,
    UINT8,
    Array,
    Blob,
    Datatype,
    Failure,
    Form,
    Rows,
    Signature,
    Tensor,
    Tensors,
    TensorSpec,
)

FILE = {"type": "string", "format": "uri"}
MODEL = Signature(
    Form.ROWS,
    (
        TensorSpec("text", BYTES, (-1,)),
        TensorSpec("count", INT64, (-1,), optional=True),
        TensorSpec("scale", FP64, (-1,), optional=True),
        TensorSpec("wide", BOOL, (-1,), optional=True),
        TensorSpec("picture", BYTES, (-1,), optional=True),
        TensorSpec("nested", BYTES, (-1,), optional=True),
        TensorSpec("numbers", FP64, (-1, -1), optional=True),
        TensorSpec("words", BYTES, (-1, -1), optional=True),
    ),
    (TensorSpec("answer", BYTES, (-1,)), TensorSpec("score", FP64, (-1,))),
    batch=True,
    input_schema={
        "type": "object",
        "properties": {
            "text": {"type": "string"},
            "count": {"type": "integer", "maximum": 9},
            "scale": {"type": "number"},
            "wide": {"type": "boolean"},
            "picture": FILE,
            "nested": {"type": "object", "properties": {"a": {"type": "integer"}}},
            "numbers": {"type": "array", "items": {"type": "number"}},
            "words": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["text"],
    },
)


def objects(*values: Any) -> Array:
    made: Array = np.empty(len(values), object)
    made[:] = values
    return made


def tensor(name: str, datatype: Datatype, values: Any) -> Tensor:
    return Tensor(name, datatype, values if isinstance(values, np.ndarray) else np.array(values, datatype.numpy))


TEXT = tensor("text", BYTES, objects(b"one", "zwö".encode()))


def rows_of(*tensors: Tensor) -> list[dict[str, Any]]:
    return input_rows(Tensors([TEXT, *tensors]), MODEL, "m")


def refused(*tensors: Tensor) -> str:
    with pytest.raises(ServingError) as caught:
        input_rows(Tensors(list(tensors)), MODEL, "m")
    assert caught.value.kind is Kind.INVALID_INPUT
    assert "'m'" in caught.value.message
    return caught.value.message


# --- tensors to rows of a model ---


def test_element_i_is_row_i() -> None:
    """Text, numbers, booleans, files and JSON, each as the field's schema says, as plain Python values."""
    rows = rows_of(
        tensor("count", INT64, [1, 2]),
        tensor("scale", FP64, [0.5, 2]),
        tensor("wide", BOOL, [True, False]),
        tensor("picture", BYTES, objects(b"\x89PNG", b"data:image/gif;base64,R0lG")),
        tensor("nested", BYTES, objects(b'{"a": "1", "b": 2}', b'{"a": 3}')),
    )
    assert rows == [
        {"text": "one", "count": 1, "scale": 0.5, "wide": True, "picture": Blob(b"\x89PNG"), "nested": {"a": 1}},
        {"text": "zwö", "count": 2, "scale": 2.0, "wide": False, "picture": Blob(b"GIF", "image/gif"), "nested": {"a": 3}},
    ]
    assert {type(v) for row in rows for v in row.values()} == {str, int, float, bool, Blob, dict}


@pytest.mark.parametrize("datatype", [INT8, INT32, INT64, UINT8])
def test_any_width_of_a_kind_will_do(datatype: Datatype) -> None:
    """INT32 for a whole number is as good as INT64, and whole numbers are numbers."""
    assert [row["count"] for row in rows_of(tensor("count", datatype, [1, 2]))] == [1, 2]
    assert [row["scale"] for row in rows_of(tensor("scale", datatype, [1, 2]))] == [1.0, 2.0]


@pytest.mark.parametrize("datatype", [FP16, FP32, BF16])
def test_narrow_floats_are_numbers(datatype: Datatype) -> None:
    """BF16 arrives as its bits and becomes what they mean."""
    values = np.array([0x3F80, 0x4000], np.uint16) if datatype is BF16 else np.array([1, 2], datatype.numpy)
    assert [row["scale"] for row in rows_of(Tensor("scale", datatype, values))] == [1.0, 2.0]


def test_columns_of_one_are_columns() -> None:
    """Clients of tensor models send [n, 1]; that is one element per row, too."""
    rows = input_rows(Tensors([Tensor("text", BYTES, objects(b"a", b"b").reshape(2, 1))]), MODEL, "m")
    assert [row["text"] for row in rows] == ["a", "b"]


def test_lists_are_the_other_dimensions() -> None:
    """Numbers stay an array, texts become lists."""
    rows = rows_of(tensor("numbers", FP32, [[1, 2, 3], [4, 5, 6]]), tensor("words", BYTES, objects(b"a", b"b").reshape(2, 1)))
    assert [row["numbers"].tolist() for row in rows] == [[1, 2, 3], [4, 5, 6]]
    assert [row["words"] for row in rows] == [["a"], ["b"]]


REFUSED: list[tuple[list[Tensor], str]] = [
    ([tensor("other", INT64, [1])], "has no input 'other'; its inputs are 'text', 'count'"),
    ([TEXT, tensor("count", FP64, [1.5, 2])], "input 'count' of model 'm' has datatype FP64, expected INT64"),
    ([TEXT, tensor("count", BYTES, objects(b"1", b"2"))], "has datatype BYTES, expected INT64"),
    ([TEXT, tensor("count", BOOL, [True, False])], "has datatype BOOL, expected INT64"),
    ([TEXT, tensor("wide", INT64, [1, 0])], "has datatype INT64, expected BOOL"),
    ([tensor("text", INT64, [1])], "has datatype INT64, expected BYTES"),
    ([TEXT, tensor("scale", COMPLEX64, [1, 2])], "has datatype COMPLEX64"),
    ([tensor("text", BYTES, objects(b"\xff"))], "holds bytes that are not UTF-8 text"),
    ([TEXT, tensor("nested", BYTES, objects(b"{}", b"{"))], "holds what is not JSON"),
    ([TEXT, tensor("nested", BYTES, objects(b"{}", b"[" * 100_000))], "holds what is not JSON"),
    ([TEXT, tensor("picture", BYTES, objects(b"x", b"data:;base64,!"))], "holds a data: URI that cannot be read"),
    ([TEXT, tensor("count", INT64, [1, 2, 3])], "disagree on the number of rows: 'count' has 3, 'text' has 2"),
    ([TEXT, tensor("count", INT64, 5)], "input 'count' of model 'm' is a single value"),
    ([TEXT, tensor("count", INT64, [[1, 2], [3, 4]])], "has shape [2, 2], expected 1 dimension, the first is the row"),
    ([TEXT, tensor("numbers", FP64, [1, 2])], "has shape [2], expected 2 dimensions, the first is the row"),
    ([tensor("count", INT64, [1])], "row 0, field 'text': field required"),
    ([TEXT, tensor("count", INT64, [1, 10])], "row 1, field 'count': ensure this value is less than or equal to 9"),
    ([tensor("text", BYTES, objects())], "at least 1 items"),
    ([], "at least 1 items"),
]


@pytest.mark.parametrize(("tensors", "words"), REFUSED, ids=range(len(REFUSED)))
def test_tensors_that_make_no_rows(tensors: list[Tensor], words: str) -> None:
    """The message names model and field, what came and what was expected."""
    assert words in refused(*tensors)


# --- rows to tensors of a model ---

IRIS = Signature(inputs=(TensorSpec("x", FP32, (-1, 4)), TensorSpec("t", BYTES, (-1,), optional=True)), batch=True)


def test_rows_are_joined_along_the_batch_axis() -> None:
    """Bare values do where there is one input; an optional one that no row has is left out."""
    made = input_tensors([{"x": [1, 2, 3, 4.5]}, {"x": [5, 6, 7, 8], "t": None}], IRIS, "m")
    assert [t.name for t in made.items] == ["x"]
    assert made.items[0].array.dtype == np.float32
    assert made.items[0].array.tolist() == [[1, 2, 3, 4.5], [5, 6, 7, 8]]
    single = Signature(inputs=(TensorSpec("t", BYTES, (-1,)),), batch=True)
    assert input_tensors(["a", b"\xff", Blob(b"c")], single, "m").items[0].array.tolist() == [b"a", b"\xff", b"c"]


def test_arrays_are_stacked() -> None:
    """Rows that hold arrays are not taken apart, also narrower ones of the kind."""
    made = input_tensors([{"x": np.ones(4, np.float32)}, {"x": np.zeros(4, np.float32)}], IRIS, "m").items[0].array
    assert made.dtype == np.float32
    assert made.tolist() == [[1] * 4, [0] * 4]
    mixed = input_tensors([{"x": np.arange(4)}, {"x": [0.5] * 4}], IRIS, "m").items[0].array
    assert mixed.tolist() == [[0, 1, 2, 3], [0.5] * 4]


def test_without_a_batch_axis_one_row_is_the_request() -> None:
    """Its values are whole tensors; several rows are not one request."""
    signature = Signature(inputs=(TensorSpec("x", FP32, (2, 2)), TensorSpec("s", INT64, ())))
    made = input_tensors([{"x": [[1, 2], [3, 4]], "s": 5}], signature, "m").items
    assert [t.array.shape for t in made] == [(2, 2), ()]
    with pytest.raises(ServingError, match="takes one row at a time, not 2"):
        input_tensors([{"x": [[1, 2], [3, 4]], "s": 5}] * 2, signature, "m")


@pytest.mark.parametrize(
    ("values", "datatype"),
    [([1, 2], INT64), ([1, 2.5], FP64), ([True, False], BOOL), (["a", b"b"], BYTES), ([[1], [2]], INT64), ([np.ones(2, "f4")], FP32)],
)
def test_undeclared_datatypes_follow_the_values(values: list[Any], datatype: Datatype) -> None:
    """A model that takes anything gets what was sent."""
    signature = Signature(inputs=(TensorSpec("x", None, None),), batch=True)
    assert input_tensors([{"x": v} for v in values], signature, "m").items[0].datatype is datatype


WRONG_ROWS: list[tuple[list[Any], Datatype, str]] = [
    ([1.5], INT64, "1.5 came for INT64, which takes integers"),
    ([True], INT64, "True came for INT64"),
    ([300], UINT8, "300 is out of range for UINT8"),
    ([-1], UINT8, "-1 is out of range for UINT8"),
    ([2**63], INT64, "is out of range for INT64"),
    ([np.array([300])], UINT8, "300 is out of range for UINT8"),
    ([np.array([1.5])], INT64, "1.5 came for INT64"),
    ([10**400], FP64, "out of range for FP64"),
    ([1], BOOL, "1 came for BOOL"),
    (["1"], FP32, "'1' came for FP32"),
    ([5], BYTES, "5 came for BYTES"),
    (["\ud800"], BYTES, "half a surrogate pair"),
    ([[1, 2], [3]], INT64, "lists have different lengths: 1, 2"),
    ([[1], 2], INT64, "lists stand beside single values"),
    ([np.ones(2), np.ones(3)], FP64, "the rows have different shapes: [2], [3]"),
    ([{"a": 1}], INT64, "dict came for INT64"),
    ([1], COMPLEX64, "COMPLEX64 cannot be made of rows"),
]


@pytest.mark.parametrize(("values", "datatype", "words"), WRONG_ROWS, ids=range(len(WRONG_ROWS)))
def test_rows_that_make_no_tensor(values: list[Any], datatype: Datatype, words: str) -> None:
    """Nothing is cut, rounded or wrapped; the message names model and field."""
    signature = Signature(inputs=(TensorSpec("x", datatype, None),), batch=True)
    with pytest.raises(ServingError) as caught:
        input_tensors([{"x": v} for v in values], signature, "m")
    assert caught.value.kind is Kind.INVALID_INPUT
    assert caught.value.message.startswith("input 'x' of model 'm': ")
    assert words in caught.value.message


def test_rows_that_lack_something() -> None:
    """An input that only some rows have, a rank that is not the declared one, a row that is no object."""
    with pytest.raises(ServingError, match="input 't' of model 'm' is given in 1 of 2 rows"):
        input_tensors([{"x": [1] * 4}, {"x": [1] * 4, "t": "a"}], IRIS, "m")
    with pytest.raises(ServingError, match="has 0 dimensions, expected 1"):
        input_tensors([{"x": 1}], IRIS, "m")
    with pytest.raises(ServingError, match="must be an object with its 2 inputs, not list"):
        input_tensors([[1, 2, 3, 4]], IRIS, "m")


def test_inwards_gives_the_form_that_is_wanted() -> None:
    """What has that form already is passed on as it is."""
    tensors, rows = Tensors([TEXT]), Rows([{"x": [1, 2, 3, 4]}])
    assert inwards(tensors, IRIS, "m") is tensors
    assert inwards(rows, MODEL, "m") is rows
    assert inwards(tensors, MODEL, "m") == Rows([{"text": "one"}, {"text": "zwö"}])
    made = inwards(rows, IRIS, "m")
    assert isinstance(made, Tensors)


def test_bfloats_are_rounded_to_even() -> None:
    """As every framework does; NaN stays NaN."""
    signature = Signature(inputs=(TensorSpec("x", BF16, (-1,)),), batch=True)
    made = input_tensors([1.0, 1.00390625, 1.01171875, -2, float("nan"), float("inf")], signature, "m").items[0].array
    back = (made.astype(np.uint32) << 16).view(np.float32)
    assert back[:4].tolist() == [1.0, 1.0, 1.015625, -2.0]
    assert np.isnan(back[4])
    assert np.isinf(back[5])


# --- answers ---


def test_answers_of_tensor_models_as_rows() -> None:
    """One dict per element of the batch axis: numbers as Python's, more dimensions as arrays, texts, and files where it is no text."""
    outputs = Tensors([tensor("label", INT64, [1, 2]), tensor("p", FP32, [[0.5, 0.5], [1, 0]]), tensor("t", BYTES, objects(b"a", b"\xff"))])
    rows = output_rows(outputs, Signature(batch=True), "m")
    assert [row["label"] for row in rows] == [1, 2]
    assert [row["p"].tolist() for row in rows] == [[0.5, 0.5], [1.0, 0.0]]
    assert [row["t"] for row in rows] == ["a", Blob(b"\xff")]
    (whole,) = output_rows(outputs, Signature(), "m")
    assert whole["label"].tolist() == [1, 2]
    assert whole["t"] == ["a", Blob(b"\xff")]
    assert output_rows(Rows([1]), MODEL, "m") == [1]


def test_answers_without_one_element_per_row() -> None:
    """Are the model's failure; complex numbers have no place in rows."""
    uneven = Tensors([tensor("a", INT64, [1]), tensor("b", INT64, [1, 2])])
    with pytest.raises(ServingError, match="one element per row"):
        output_rows(uneven, Signature(batch=True), "m")
    with pytest.raises(ServingError, match="complex"):
        output_rows(Tensors([tensor("a", COMPLEX64, [1j])]), Signature(batch=True), "m")


def test_answers_of_row_models_as_tensors() -> None:
    """By the declared outputs; what is nested where one BYTES is declared is JSON, files are their content."""
    outputs = (TensorSpec("a", INT64, (-1,)), TensorSpec("f", BYTES, (-1,)), TensorSpec("n", BYTES, (-1,)), TensorSpec("l", FP64, (-1, -1)))
    rows = [
        {"a": 1, "f": Blob(b"\x89"), "n": {"x": [1, None], "f": Blob(b"x", "a/b")}, "l": [1, 2]},
        {"a": 2, "f": "t", "n": [], "l": [3, 4.5]},
    ]
    made = {t.name: t for t in output_tensors(Rows(rows), Signature(Form.ROWS, outputs=outputs, batch=True), "m").items}
    assert made["a"].array.tolist() == [1, 2]
    assert made["f"].array.tolist() == [b"\x89", b"t"]
    assert [json.loads(v) for v in made["n"].array] == [{"x": [1, None], "f": "data:a/b;base64,eA=="}, []]
    assert made["l"].array.tolist() == [[1, 2], [3, 4.5]]


def test_undeclared_answers_are_named_by_their_keys() -> None:
    """Else "output"; datatypes and shapes by the values."""
    signature = Signature(Form.ROWS, batch=True)
    made = {
        t.name: t for t in output_tensors(Rows([{"a": 1, "b": [0.5], "c": {"x": 1}}, {"a": 2, "b": [1], "c": {}}]), signature, "m").items
    }
    assert {name: (t.datatype, t.array.shape) for name, t in made.items()} == {"a": (INT64, (2,)), "b": (FP64, (2, 1)), "c": (BYTES, (2,))}
    bare = output_tensors(Rows(["x", "y"]), signature, "m").items
    assert [(t.name, t.datatype, t.array.tolist()) for t in bare] == [("output", BYTES, [b"x", b"y"])]
    same = Tensors([TEXT])
    assert output_tensors(same, signature, "m") is same


BROKEN: list[tuple[list[Any], str]] = [
    ([{"score": 1.0}], "did not answer the output 'answer'"),
    ([{"answer": "a", "score": "high"}], "output 'score' of model 'm': 'high' came for FP64"),
    ([{"answer": "\ud800", "score": 1.0}], "half a surrogate pair"),
    ([{"answer": "a", "score": None}], "null came for FP64"),
    ([Failure("that row failed", "trace")], "that row failed"),
]


@pytest.mark.parametrize(("rows", "words"), BROKEN, ids=range(len(BROKEN)))
def test_answers_that_break_the_signature(rows: list[Any], words: str) -> None:
    """Are MODEL_FAILED, naming the output; a failed row keeps its trace."""
    with pytest.raises(ServingError) as caught:
        output_tensors(Rows(rows), MODEL, "m")
    assert caught.value.kind is Kind.MODEL_FAILED
    assert words in caught.value.message
    assert caught.value.trace == ("trace" if isinstance(rows[0], Failure) else "")


# --- files as text ---


@pytest.mark.parametrize(
    ("text", "blob"),
    [
        ("data:image/png;base64,aGk=", Blob(b"hi", "image/png")),
        ("data:image/png;name=a;base64,aGk", Blob(b"hi", "image/png", "a")),
        ("data:;base64,aGk%3D", Blob(b"hi", "text/plain")),
        ("DATA:text/csv,a%2Cb", Blob(b"a,b", "text/csv")),
        ("data:,", Blob(b"", "text/plain")),
        ("aGk=", Blob(b"hi")),
        ("aGk", Blob(b"hi")),
        ("_-_-", Blob(b"\xff\xef\xfe")),
        ("http://example.com/x", None),
    ],
)
def test_texts_that_hold_files(text: str, blob: Blob | None) -> None:
    """Data URIs and base64, with the media type that they name; other URLs are somebody else's."""
    assert decoded(text) == blob


@pytest.mark.parametrize("text", ["data:image/png", "data:;base64,a", "a", "a=b=", "data:;base64,\u00fc"])
def test_texts_that_hold_nothing(text: str) -> None:
    """Are a ValueError, whatever is wrong with them."""
    with pytest.raises(ValueError, match=r"base64|data:"):
        decoded(text)


def test_files_anywhere_in_a_row() -> None:
    """In lists, mappings and objects; a row without files is not copied; problems have the path of the file."""
    schema = {
        "type": "object",
        "properties": {
            "one": FILE,
            "many": {"type": "array", "items": FILE},
            "named": {"type": "object", "additionalProperties": FILE},
            "inner": {"type": "object", "properties": {"f": FILE, "n": {"type": "integer"}}},
            "text": {"type": "string"},
        },
    }
    signature = Signature(Form.ROWS, input_schema=schema)
    sent = {"one": "aGk=", "many": ["aGk=", Blob(b"x")], "named": {"a": "aGk="}, "inner": {"f": "aGk=", "n": 1}, "text": "aGk="}
    hi = Blob(b"hi")
    assert decode_files(checked([sent], signature, "m"), signature, "m") == [
        {"one": hi, "many": [hi, Blob(b"x")], "named": {"a": hi}, "inner": {"f": hi, "n": 1}, "text": "aGk="}
    ]
    with pytest.raises(ServingError) as caught:
        decode_files([{"many": ["aGk=", "a"]}], signature, "m")
    assert [(p.path, p.message) for p in caught.value.problems] == [((0, "many", 1, "__root__"), "Invalid file input")]
    with pytest.raises(ServingError, match="field 'one': URLs are not fetched here"):
        decode_files([{"one": "https://example.com"}], signature, "m")
    plain = Signature(Form.ROWS, input_schema={"type": "object", "properties": {"x": {"type": "array", "items": {}}}})
    row = {"x": [1]}
    assert decode_files([row], plain, "m")[0] is row


# --- properties ---

VALUES = {
    "text": st.text(),
    "count": st.integers(-(2**63), 9),
    "scale": st.floats(allow_nan=False),
    "wide": st.booleans(),
    "picture": st.binary().filter(lambda b: b[:5].lower() != b"data:").map(Blob),
}


@given(st.lists(st.fixed_dictionaries(VALUES), min_size=1, max_size=5))
def test_rows_survive_the_way_through_tensors(rows: list[dict[str, Any]]) -> None:
    """As tensors, and as rows again, they are the same."""
    rows = [{**row, "text": row["text"].encode("utf-8", "replace").decode()} for row in rows]
    sent = input_tensors(rows, Signature(inputs=MODEL.inputs[:5], batch=True), "m")
    assert input_rows(sent, MODEL, "m") == rows


NUMBERS = st.sampled_from([INT8, UINT8, INT32, INT64, FP32, FP64, BOOL])


@given(NUMBERS, st.integers(1, 4), st.integers(0, 3), st.data())
def test_tensors_survive_the_way_through_rows(datatype: Datatype, length: int, width: int, data: st.DataObject) -> None:
    """Any numbers of any rank, bit by bit."""
    count = length * width if width else length
    raw = data.draw(st.binary(min_size=count * datatype.size, max_size=count * datatype.size))
    array: Array = np.frombuffer(raw, np.uint8) % 2 == 1 if datatype is BOOL else np.frombuffer(raw, datatype.numpy)
    array = np.nan_to_num(array) if datatype.kind == "float" else array
    array = array.reshape(length, width) if width else array
    signature = Signature(inputs=(TensorSpec("x", datatype, None),), batch=True)
    rows = output_rows(Tensors([Tensor("x", datatype, array)]), Signature(batch=True), "m")
    (back,) = input_tensors(rows, signature, "m").items
    assert back.array.dtype == array.dtype
    assert back.array.tolist() == array.tolist()
