"""Which JSON values make which arrays, and which error names which offender."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.tensors import (
    BF16,
    BOOL,
    BYTES,
    COMPLEX64,
    DATATYPES,
    FP16,
    FP32,
    FP64,
    INT8,
    INT16,
    INT32,
    INT64,
    UINT8,
    UINT16,
    UINT32,
    UINT64,
    Datatype,
)
from dragoman.dialects.json import MAX_DEPTH, RAGGED, Fault, NumberList, NumbersError, array_of

INTEGER_TYPES = [INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64]
IN_JSON = [*INTEGER_TYPES, FP32, FP64, BOOL, BYTES]
ONE_OF: dict[str, Any] = {"int": 1, "uint": 1, "float": 1.5, "bool": True, "bytes": "a"}


def refusal(value: object, datatype: Datatype) -> NumbersError:
    with pytest.raises(NumbersError) as caught:
        array_of(value, datatype)
    return caught.value


@pytest.mark.parametrize("datatype", IN_JSON, ids=str)
def test_nesting_is_the_shape(datatype: Datatype) -> None:
    """A bare element is 0-d, lists add dimensions, and the dtype is the datatype's own."""
    one = ONE_OF[datatype.kind]
    for value, shape in [(one, ()), ([one], (1,)), ([[one, one], [one, one], [one, one]], (3, 2)), ([[[one]]], (1, 1, 1))]:
        array = array_of(value, datatype)
        assert array.shape == shape
        assert array.dtype == datatype.numpy
        assert array.ravel()[0] == (one.encode() if datatype is BYTES else one)


@pytest.mark.parametrize("datatype", IN_JSON, ids=str)
@pytest.mark.parametrize(("value", "shape"), [([], (0,)), ([[], []], (2, 0)), ([[[]], [[]]], (2, 1, 0)), ([[]], (1, 0))])
def test_empty_lists_are_dimensions_of_zero(value: list[Any], shape: tuple[int, ...], datatype: Datatype) -> None:
    """An empty tensor keeps its other dimensions."""
    array = array_of(value, datatype)
    assert array.shape == shape
    assert array.dtype == datatype.numpy


@pytest.mark.parametrize("datatype", IN_JSON, ids=str)
def test_arrays_are_the_callers_own(datatype: Datatype) -> None:
    """A model may write into its inputs; two calls never share memory."""
    value = [[ONE_OF[datatype.kind]] * 3] * 2
    first, second = array_of(value, datatype), array_of(value, datatype)
    first[0, 0] = 0
    assert first.flags.writeable
    assert first.flags.aligned
    assert first.flags.c_contiguous
    assert second[0, 0] != 0


@pytest.mark.parametrize("datatype", INTEGER_TYPES, ids=str)
def test_integers_are_taken_to_the_ends_of_their_range_and_no_further(datatype: Datatype) -> None:
    """The least and the greatest value come through exactly; one beyond either is an error, not a wrap."""
    limits = np.iinfo(datatype.numpy)
    ends = [int(limits.min), int(limits.max)]
    assert array_of(ends, datatype).tolist() == ends
    for beyond in (limits.min - 1, limits.max + 1):
        error = refusal([0, int(beyond)], datatype)
        assert (error.fault, error.path, error.value, error.json_type) == (Fault.RANGE, (1,), str(beyond), "Number")
        assert str(error) == f"{beyond} at [1] is out of range for {datatype}"


@pytest.mark.parametrize(
    ("value", "datatype", "json_type", "text"),
    [
        ("5", FP32, "String", '"5"'),
        (True, FP32, "True", "true"),
        (False, FP64, "False", "false"),
        (None, FP32, "Null", "null"),
        ({"a": 1}, FP32, "Object", '{"a":1}'),
        (1.0, INT64, "Number", "1.0"),
        (1.5, INT8, "Number", "1.5"),
        (1e19, UINT64, "Number", "1e+19"),
        (float("nan"), INT8, "Number", "NaN"),
        (float("-inf"), INT64, "Number", "-Infinity"),
        (True, INT32, "True", "true"),
        ("1", UINT8, "String", '"1"'),
        (0, BOOL, "Number", "0"),
        (1, BOOL, "Number", "1"),
        ("true", BOOL, "String", '"true"'),
        (5, BYTES, "Number", "5"),
        (None, BYTES, "Null", "null"),
        ({"b64": "YQ=="}, BYTES, "Object", '{"b64":"YQ=="}'),
    ],
)
def test_elements_of_another_type_are_refused(value: object, datatype: Datatype, json_type: str, text: str) -> None:
    """Nothing is coerced: no numbers from text, no truth from numbers, no integers from decimals."""
    good = ONE_OF[datatype.kind]
    for whole, path in [(value, ()), ([value], (0,)), ([good, value], (1,)), ([[good, good], [value, good]], (1, 0))]:
        error = refusal(whole, datatype)
        assert (error.fault, error.path, error.level) == (Fault.TYPE, path, len(path))
        assert (error.json_type, error.value, error.datatype) == (json_type, text, datatype)


def test_floats_take_integers_and_decimals_together() -> None:
    """A list written partly without points is one of floats; what FP32 cannot hold is rounded, and beyond its range is infinity."""
    assert array_of([1, 2.5], FP32).tolist() == [1.0, 2.5]
    assert array_of([1435774380], FP32).tolist() == [1435774336.0]
    assert array_of([2**53 + 1], FP64).tolist() == [2.0**53]
    assert array_of([1e39, -1e39], FP32).tolist() == [float("inf"), float("-inf")]
    assert np.isnan(array_of([float("nan")], FP32)).all()


def test_an_integer_beyond_every_double_is_out_of_range() -> None:
    """Python integers have no end; a caller that parsed some itself gets an error and not an OverflowError."""
    assert refusal([10**400], FP64).fault is Fault.RANGE


def test_text_becomes_utf8_and_bytes_stay() -> None:
    """BYTES holds bytes of any length, NULs included; a codec may have put decoded bytes among the strings."""
    array = array_of([["é", ""], [b"\xff\x00", "a\x00"]], BYTES)
    assert array.tolist() == [[b"\xc3\xa9", b""], [b"\xff\x00", b"a\x00"]]
    assert array_of("x", BYTES)[()] == b"x"


def test_bytes_are_not_numbers() -> None:
    """Decoded base64 in a numeric tensor is refused like the text that it was."""
    error = refusal([b"abc"], FP32)
    assert (error.fault, error.json_type, error.value) == (Fault.TYPE, "String", '"abc"')


def test_a_lone_surrogate_is_not_text() -> None:
    """It has no UTF-8 form, so it is refused, and the message can itself be encoded."""
    error = refusal(["a", "\ud800"], BYTES)
    assert (error.fault, error.path) == (Fault.TYPE, (1,))
    assert str(error).encode()


@pytest.mark.parametrize(
    ("value", "fault", "path", "expected", "got"),
    [
        ([[1, 2], [3]], Fault.LENGTH, (1,), 2, 1),
        ([[1], [2, 3]], Fault.LENGTH, (1,), 1, 2),
        ([[1], []], Fault.LENGTH, (1,), 1, 0),
        ([[], [1]], Fault.LENGTH, (1,), 0, 1),
        ([[[1, 2], [3, 4]], [[5, 6]]], Fault.LENGTH, (1,), 2, 1),
        ([[[1, 2], [3, 4]], [[5, 6], [7]]], Fault.LENGTH, (1, 1), 2, 1),
        ([1, [2]], Fault.LIST, (1,), 1, 0),
        ([[1, 2], [3, [4]]], Fault.LIST, (1, 1), 2, 0),
        ([[1], 2], Fault.ELEMENT, (1,), 2, 0),
        ([[], 2], Fault.ELEMENT, (1,), 2, 0),
        ([[[1]], [2]], Fault.ELEMENT, (1, 0), 3, 0),
        ([[[]], [[], []]], Fault.LENGTH, (1,), 1, 2),
    ],
)
def test_lists_that_are_not_a_box_are_refused(value: object, fault: Fault, path: tuple[int, ...], expected: int, got: int) -> None:
    """The first path sets the shape; the first list or element that leaves it is named with its level and lengths."""
    error = refusal(value, FP32)
    assert (error.fault, error.path, error.expected, error.got) == (fault, path, expected, got)
    assert fault in RAGGED


def test_the_first_offender_in_the_text_is_named() -> None:
    """Whatever else is wrong behind it."""
    assert refusal([[1, 2], ["x", 2], [3]], FP32).path == (1, 0)
    assert refusal([[1, 2], [3], ["x", 2]], FP32).path == (1,)
    assert refusal([1, 300, "x"], INT8).fault is Fault.RANGE


def walked(value: object, datatype: Datatype) -> tuple[Fault, tuple[int, ...]] | None:
    """The first offender as a plain walk through the text meets it."""
    shape: list[int] = []
    node: Any = value
    while isinstance(node, list):
        shape.append(len(node))
        node = node[0] if node else None

    def visit(item: Any, path: tuple[int, ...]) -> tuple[Fault, tuple[int, ...]] | None:
        if isinstance(item, list):
            if len(path) == len(shape):
                return Fault.LIST, path
            if len(item) != shape[len(path)]:
                return Fault.LENGTH, path
            return next(filter(None, (visit(inner, (*path, index)) for index, inner in enumerate(item))), None)
        if len(path) != len(shape):
            return Fault.ELEMENT, path
        if type(item) is not int and not (type(item) is float and datatype.kind == "float"):
            return Fault.TYPE, path
        return None if datatype.kind == "float" or -128 <= item <= 127 else (Fault.RANGE, path)

    return visit(value, ())


elements = st.sampled_from([1, 1, 1, 1, 2.5, 300, "x", None, True])


@given(
    st.lists(elements, max_size=3)
    | st.lists(st.lists(elements | st.just([1]), min_size=2, max_size=2) | elements, max_size=4)
    | st.lists(st.lists(st.lists(elements, min_size=1, max_size=2), min_size=1, max_size=2), max_size=4),
    st.sampled_from([FP32, INT8]),
)
def test_the_offender_is_the_one_that_a_walk_meets_first(value: object, datatype: Datatype) -> None:
    """The search goes level by level; what it finds is the same."""
    expected = walked(value, datatype)
    if expected is None:
        assert array_of(value, datatype).tolist() == value
    else:
        error = refusal(value, datatype)
        assert (error.fault, error.path) == expected


@pytest.mark.parametrize("datatype", [FP16, BF16, COMPLEX64], ids=str)
def test_some_datatypes_cannot_be_written_in_json(datatype: Datatype) -> None:
    """The message sends the client to binary data."""
    for value in ([1.0], NumberList(b"[1.0]")):
        error = refusal(value, datatype)
        assert error.fault is Fault.DATATYPE
        assert "binary" in str(error)


def test_depth_is_bounded() -> None:
    """As many levels as numpy can hold are fine, one more is an error, and thousands do not exhaust the stack."""

    def nested(levels: int) -> object:
        value: object = 1
        for _ in range(levels):
            value = [value]
        return value

    assert array_of(nested(MAX_DEPTH), FP32).ndim == MAX_DEPTH
    for levels in (MAX_DEPTH + 1, 5_000):
        error = refusal(nested(levels), FP32)
        assert (error.fault, error.expected) == (Fault.DEPTH, MAX_DEPTH)
        assert str(error) == f"lists are nested deeper than {MAX_DEPTH} levels"
    assert refusal([1, nested(5_000)], FP32).fault is Fault.LIST


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x", '"x" is not valid for FP32, which takes numbers'),
        (["x"], '"x" at [0] is not valid for FP32, which takes numbers'),
        ([[1], [2, 3]], "the list at [1] has 2 elements but the first one at that level has 1"),
        ([1, [2]], "there is a list at [1] where an element belongs"),
        ([[1], 2], "there is 2 at [1] where a list belongs"),
        ([[[[[[[[[None]]]]]]]]], "null at [0]...[0] is not valid for FP32, which takes numbers"),
    ],
)
def test_messages_say_what_and_where(value: object, text: str) -> None:
    """A codec without wording of its own can send `str(error)`."""
    assert str(refusal(value, FP32)) == text


def test_quoted_values_are_cut() -> None:
    """A hostile value does not come back whole."""
    error = refusal([{"a": list(range(10_000))}], FP32)
    assert len(error.value) == 256
    assert error.value.endswith("...")
    assert refusal([{"a": NumberList(b"[1,2]")}], FP32).value == '{"a":[1,2]}'


def test_packed_rows_are_stacked() -> None:
    """A column gathered from rows may hold packed lists, plain ones, or both."""
    packed, plain = NumberList(b"[[1,2],[3,4]]"), [[5, 6], [7, 8]]
    expected = [[[1, 2], [3, 4]], [[1, 2], [3, 4]]]
    assert array_of([packed, packed], FP32).tolist() == expected
    assert array_of([[packed], [packed]], INT8).tolist() == [[item] for item in expected]
    assert array_of([packed, plain], INT64).tolist() == [expected[0], plain]
    assert array_of([plain, packed], INT64).dtype == np.int64


def test_packed_rows_of_different_shape_are_ragged() -> None:
    """The error is the same as for plain lists."""
    error = refusal([NumberList(b"[1,2]"), NumberList(b"[1,2,3]")], FP32)
    assert (error.fault, error.path, error.expected, error.got) == (Fault.LENGTH, (1,), 2, 3)
    assert refusal([NumberList(b"[1,2]"), 5], FP32).fault is Fault.ELEMENT
    assert refusal([5, NumberList(b"[1,2]")], FP32).fault is Fault.LIST
    assert refusal([NumberList(b"[1,2]"), NumberList(b"[1,1.5]")], INT8).path == (1, 1)


def test_packed_rows_count_for_the_depth() -> None:
    """Stacking does not go beyond the limit either."""
    value: object = NumberList(b"[[1]]")
    for _ in range(MAX_DEPTH - 1):
        value = [value]
    assert refusal(value, FP32).fault is Fault.DEPTH


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**65), 2**65) | st.floats() | st.text(max_size=3) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=12,
)


@given(values, st.sampled_from(list(DATATYPES.values())))
def test_any_value_makes_an_array_of_its_own_values_or_a_numbers_error(value: object, datatype: Datatype) -> None:
    """No other exception, no coercion: what comes out reads back as what went in, and every error has a message."""
    error: NumbersError | None = None
    try:
        array = array_of(value, datatype)
    except NumbersError as exc:
        error = exc
    if error is not None:
        assert str(error).encode()
        assert error.json_type in {"Null", "False", "True", "Object", "Array", "String", "Number"}
        return
    assert array.dtype == datatype.numpy
    if datatype is BYTES:
        assert array.tolist() == encoded(value)
    elif datatype is not FP32:
        assert np.array_equal(array, np.array(value, datatype.numpy).reshape(array.shape), equal_nan=datatype is FP64)


def encoded(value: Any) -> Any:
    """Strings as UTF-8, at any depth."""
    return [encoded(item) for item in value] if isinstance(value, list) else value.encode() if isinstance(value, str) else value
