"""Rows against a schema: coercion, defaults, limits and problems, in the words of pydantic 1."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.errors import Kind, ServingError
from dragoman.core.rows import MOST_PROBLEMS, checked, output_schema, row_schema
from dragoman.core.tensors import BYTES, FP32, INT64, Blob, Form, Signature, TensorSpec

FILE = {"type": "string", "format": "uri"}
SCHEMA = {
    "type": "object",
    "properties": {
        "prompt": {"type": "string", "minLength": 2, "maxLength": 8},
        "steps": {"type": "integer", "minimum": 1, "maximum": 50, "default": 20},
        "scale": {"type": "number"},
        "wide": {"type": "boolean", "default": False},
        "style": {"type": "string", "choices": ["oil", "ink"], "default": "oil"},
        "seed": {"type": "integer"},
        "picture": FILE,
        "masked": {"type": "object", "properties": {"image": FILE, "mask": FILE}, "required": ["image", "mask"]},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 3},
        "weights": {"type": "object", "additionalProperties": {"type": "number"}},
    },
    "required": ["prompt"],
}
SIGNATURE = Signature(form=Form.ROWS, input_schema=SCHEMA)


def of(**properties: Any) -> Signature:
    return Signature(form=Form.ROWS, input_schema={"type": "object", "properties": properties, "required": list(properties)})


def refused(rows: object, signature: Signature = SIGNATURE) -> ServingError:
    with pytest.raises(ServingError) as caught:
        checked(rows, signature, "m")
    assert caught.value.kind is Kind.INVALID_INPUT
    assert "'m'" in caught.value.message
    return caught.value


def problem(rows: object, signature: Signature = SIGNATURE) -> tuple[Any, ...]:
    """The only problem as (path, code, message, context)."""
    (found,) = refused(rows, signature).problems
    return found.path, found.code, found.message, found.context


def test_defaults_are_filled_in_and_unknown_keys_dropped() -> None:
    """A field without a default that may be missing stays out; null for it is the same as leaving it out."""
    expected = {"prompt": "hello", "steps": 20, "wide": False, "style": "oil"}
    assert checked([{"prompt": "hello", "other": 1, "seed": None}], SIGNATURE, "m") == [expected]


def test_rows_and_defaults_are_not_shared() -> None:
    """Neither the sender's row nor the schema's default changes when the model changes its row."""
    signature = Signature(
        form=Form.ROWS, input_schema={"type": "object", "properties": {"x": {"type": "array", "items": {}, "default": [1]}}}
    )
    sent: dict[str, Any] = {}
    (row,) = checked([sent], signature, "m")
    row["x"].append(2)
    assert sent == {}
    assert checked([{}], signature, "m") == [{"x": [1]}]


COERCED: list[tuple[str, Any, Any]] = [
    ("integer", 7, 7),
    ("integer", "7", 7),
    ("integer", " 7 ", 7),
    ("integer", 2.7, 2),
    ("integer", True, 1),
    ("number", 7, 7.0),
    ("number", "1e3", 1000.0),
    ("number", False, 0.0),
    ("string", 5, "5"),
    ("string", 2.5, "2.5"),
    ("string", True, "True"),
    ("string", b"caf\xc3\xa9", "café"),
    ("boolean", "yes", True),
    ("boolean", "TRUE", True),
    ("boolean", "off", False),
    ("boolean", 1, True),
    ("boolean", 0.0, False),
]


@pytest.mark.parametrize(("kind", "given_", "expected"), COERCED)
def test_coercion(kind: str, given_: Any, expected: Any) -> None:
    """What pydantic 1 turns, is turned, into exactly the declared type."""
    (row,) = checked([{"x": given_}], of(x={"type": kind}), "m")
    assert row == {"x": expected}
    assert type(row["x"]) is type(expected)


WRONG: list[tuple[str, Any, str, str]] = [
    ("integer", "7.0", "type_error.integer", "value is not a valid integer"),
    ("integer", float("nan"), "type_error.integer", "value is not a valid integer"),
    ("integer", float("inf"), "type_error.integer", "value is not a valid integer"),
    ("integer", "9" * 5000, "type_error.integer", "value is not a valid integer"),
    ("integer", [1], "type_error.integer", "value is not a valid integer"),
    ("number", "x", "type_error.float", "value is not a valid float"),
    ("number", 10**400, "type_error.float", "value is not a valid float"),
    ("number", {}, "type_error.float", "value is not a valid float"),
    ("string", [], "type_error.str", "str type expected"),
    ("string", b"\xff", "type_error.str", "str type expected"),
    ("string", 10**5000, "type_error.str", "str type expected"),
    ("boolean", 2, "type_error.bool", "value could not be parsed to a boolean"),
    ("boolean", "perhaps", "type_error.bool", "value could not be parsed to a boolean"),
    ("boolean", [], "type_error.bool", "value could not be parsed to a boolean"),
    ("object", [], "type_error.dict", "value is not a valid dict"),
    ("array", {}, "type_error.list", "value is not a valid list"),
    ("integer", None, "type_error.none.not_allowed", "none is not an allowed value"),
]


@pytest.mark.parametrize(("kind", "value", "code", "message"), WRONG, ids=range(len(WRONG)))
def test_wrong_types(kind: str, value: Any, code: str, message: str) -> None:
    """The place, the code and the text that clients know; never a crash, however large the number."""
    assert problem([{"x": value}], of(x={"type": kind})) == ((0, "x"), code, message, {})


LIMITS: list[tuple[dict[str, Any], str, str, dict[str, Any]]] = [
    ({}, "value_error.missing", "field required", {}),
    ({"prompt": None}, "type_error.none.not_allowed", "none is not an allowed value", {}),
    ({"prompt": "a"}, "value_error.any_str.min_length", "ensure this value has at least 2 characters", {"limit_value": 2}),
    ({"prompt": "a" * 9}, "value_error.any_str.max_length", "ensure this value has at most 8 characters", {"limit_value": 8}),
]


@pytest.mark.parametrize(("row", "code", "message", "context"), LIMITS)
def test_required_and_length(row: dict[str, Any], code: str, message: str, context: dict[str, Any]) -> None:
    """Missing, null, too short, too long."""
    assert problem([row]) == ((0, "prompt"), code, message, context)


def test_numbers_have_limits() -> None:
    """Below, above, and what is no number at all."""
    low = problem([{"prompt": "hello", "steps": 0}])
    assert low == ((0, "steps"), "value_error.number.not_ge", "ensure this value is greater than or equal to 1", {"limit_value": 1})
    high = problem([{"prompt": "hello", "steps": 51}])
    assert high == ((0, "steps"), "value_error.number.not_le", "ensure this value is less than or equal to 50", {"limit_value": 50})
    assert problem([{"x": float("nan")}], of(x={"type": "number", "minimum": 0}))[1] == "value_error.number.not_ge"


def test_choices_are_enforced() -> None:
    """Tungsten requirement T31: a value that is not among the choices is refused, after coercion."""
    path, code, message, context = problem([{"prompt": "hello", "style": "wax"}])
    assert (path, code) == ((0, "style"), "value_error.const")
    assert message == "unexpected value; permitted: 'oil', 'ink'"
    assert context == {"given": "wax", "permitted": ["oil", "ink"]}
    assert checked([{"x": "2"}], of(x={"type": "integer", "choices": [1, 2]}), "m") == [{"x": 2}]


def test_the_list_itself() -> None:
    """No list, an empty list (Tungsten requirement T31), and items that are no objects."""
    for rows in ({"prompt": "x"}, "x", None, 5, ({"prompt": "hello"},)):
        assert problem(rows) == ((), "type_error.list", "value is not a valid list", {})
    assert problem([]) == ((), "value_error.list.min_items", "ensure this value has at least 1 items", {"limit_value": 1})
    assert problem([[]]) == ((0,), "type_error.dict", "value is not a valid dict", {})
    assert problem([None]) == ((0,), "type_error.none.not_allowed", "none is not an allowed value", {})


def test_all_problems_of_all_rows_come_at_once() -> None:
    """In order of rows and fields; the message tells the first and how many more there are."""
    error = refused([{"prompt": "hello"}, {"steps": "x", "scale": []}, 5])
    assert [p.path for p in error.problems] == [(1, "prompt"), (1, "steps"), (1, "scale"), (2,)]
    assert error.message == "input of model 'm', row 1, field 'prompt': field required (and 3 more)"


def test_the_number_of_problems_is_bounded() -> None:
    """A hundred thousand bad rows are not worth a hundred thousand problems, nor the time to find them."""
    assert len(refused([{}] * 100_000).problems) == MOST_PROBLEMS
    assert len(refused([{"x": ["a"] * 100_000}], of(x={"type": "array", "items": {"type": "integer"}})).problems) == MOST_PROBLEMS


def test_nested_fields() -> None:
    """Paths lead into objects, lists and mappings."""
    rows = [{"prompt": "hello", "masked": {"image": "aGk="}, "tags": ["a", []], "weights": {"a": 1, "b": "x"}}]
    assert [(p.path, p.code) for p in refused(rows).problems] == [
        ((0, "masked", "mask"), "value_error.missing"),
        ((0, "tags", 1), "type_error.str"),
        ((0, "weights", "b"), "type_error.float"),
    ]
    assert problem([{"prompt": "hello", "tags": ["a"] * 4}])[1:] == (
        "value_error.list.max_items",
        "ensure this value has at most 3 items",
        {"limit_value": 3},
    )
    assert problem([{"x": [None]}], of(x={"type": "array", "items": {"type": "integer"}}))[0:2] == (
        (0, "x", 0),
        "type_error.none.not_allowed",
    )


def test_null_where_it_is_allowed() -> None:
    """A field that says so, or declares no type, takes null as a value."""
    signature = of(a={"type": "integer", "nullable": True}, b={"type": ["string", "null"]}, c={})
    assert checked([{"a": None, "b": None, "c": None}], signature, "m") == [{"a": None, "b": None, "c": None}]
    assert checked([{"a": "1", "b": 2, "c": [object]}], signature, "m") == [{"a": 1, "b": "2", "c": [object]}]


GOOD_FILES = [
    "data:image/png;base64,iVBORw0KGgo=",
    "data:,hello",
    "aGVsbG8=",
    "aGVsbG8",
    "_-_-",
    "http://example.com/a.png",
    "HTTPS://example.com/a.png",
    Blob(b"x", "image/png"),
]


@pytest.mark.parametrize("value", GOOD_FILES, ids=lambda v: str(v)[:20])
def test_files_are_accepted(value: Any) -> None:
    """Content, or a text that says where it is, stays as it came."""
    assert checked([{"x": value}], of(x=FILE), "m") == [{"x": value}]


def test_bytes_are_a_file() -> None:
    """Protocols with binary data bring files as bytes."""
    assert checked([{"x": b"\x00\xff"}], of(x=FILE), "m") == [{"x": Blob(b"\x00\xff")}]


BAD_FILES = [
    ("file:///etc/passwd", "Unsupported URI scheme"),
    ("FILE:/etc/passwd", "Unsupported URI scheme"),
    ("file://host/etc/passwd", "Remote files are not supported"),
    ("ftp://example.com/x", "Unsupported URI scheme"),
    ("gopher:x", "Unsupported URI scheme"),
    ("data:image/png;base64", "Invalid file input"),
    ("../x.png", "Invalid file input"),
    ("", "Invalid file input"),
    ("not base64!", "Invalid file input"),
    (5, "Invalid file input"),
    ([], "Invalid file input"),
    ({"b64": "aGk="}, "Invalid file input"),
]


@pytest.mark.parametrize(("value", "message"), BAD_FILES, ids=lambda v: str(v)[:20])
def test_files_are_refused(value: Any, message: str) -> None:
    """Tungsten requirement T35: nothing of the server's own disk; one more element in the path, as the original has it."""
    assert problem([{"x": value}], of(x=FILE)) == ((0, "x", "__root__"), "value_error", message, {})


def test_arrays_stay_where_they_fit() -> None:
    """An array that a tensor brought is not made a list when its kind and shape are right; else its elements are looked at."""
    schema = {"type": "array", "items": {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}}
    array = np.ones((3, 2), np.float32)
    (row,) = checked([{"x": array}], of(x=schema), "m")
    assert row["x"] is array
    assert [p.path for p in refused([{"x": np.ones((3, 3))}], of(x=schema)).problems] == [(0, "x", 0), (0, "x", 1), (0, "x", 2)]
    (row,) = checked([{"x": np.array([1.0, 2.0])}], of(x={"type": "array", "items": {"type": "integer"}}), "m")
    assert row["x"] == [1, 2]


def test_any_signature_has_a_schema_of_one_row() -> None:
    """Models of tensors too: without the batch axis where they have one, whole where they have none; unknown ranks take anything."""
    specs = (TensorSpec("x", FP32, (-1, 2)), TensorSpec("t", BYTES, (-1,), optional=True), TensorSpec("u", INT64, None))
    x = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
    batching = row_schema(Signature(inputs=specs, batch=True))
    assert batching == {"type": "object", "properties": {"x": x, "t": {"type": "string"}, "u": {}}, "required": ["x", "u"]}
    whole = row_schema(Signature(inputs=specs[:1]))
    assert whole["properties"]["x"] == {"type": "array", "items": x}
    assert output_schema(Signature(outputs=specs[:1], batch=True))["properties"]["x"] == x
    assert row_schema(SIGNATURE) is SCHEMA
    assert checked([{"x": ["1", 2], "u": [[1]]}], Signature(inputs=specs, batch=True), "m") == [{"x": [1.0, 2.0], "u": [[1]]}]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*SCHEMA["properties"], "x"]), inner, max_size=5),
    max_leaves=12,
)


@given(JSON)
def test_no_json_crashes_it(rows: Any) -> None:
    """Rows come out, or problems that a JSON answer can carry; and what came out is accepted once more, unchanged."""
    try:
        first = checked(rows, SIGNATURE, "m")
    except ServingError as refusal:
        told = [[p.path, p.code, p.message, p.context] for p in refusal.problems]
    else:
        told = [[repr(checked(first, SIGNATURE, "m")), repr(first)]]
        assert told[0][0] == told[0][1]
    assert json.dumps(told) != "[]"
