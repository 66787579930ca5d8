"""Arrays as JSON text: every datatype, layout and rank; what JSON cannot carry; and that reading undoes writing."""

import json
from typing import Any, Literal

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dragoman.core.tensors import (
    BF16,
    BOOL,
    BYTES,
    COMPLEX64,
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
    Array,
    Datatype,
)
from dragoman.dialects.json import NotJsonError, array_json, array_of, fragment, loads

INTEGER_TYPES = [INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64]


def text_of(array: Array, datatype: Datatype, *, nested: bool = True, nonfinite: Literal["null", "tokens", "error"] = "error") -> str:
    return array_json(array, datatype, nested=nested, nonfinite=nonfinite).decode()


def words(*items: bytes) -> Array:
    array: Array = np.empty(len(items), object)
    array[:] = items
    return array


@pytest.mark.parametrize(
    ("values", "datatype", "text"),
    [
        ([0.2, 3, -0.0, 1e-7], FP32, "[0.2,3.0,-0.0,1e-7]"),
        ([0.1, 9e6, 16777216], FP32, "[0.1,9000000.0,16777216.0]"),
        ([0.1, 1 / 3, 1e300], FP64, "[0.1,0.3333333333333333,1e+300]"),
        ([0.5, 65504], FP16, "[0.5,65504.0]"),
        ([True, False], BOOL, "[true,false]"),
        ([-128, 127], INT8, "[-128,127]"),
        ([2**63 - 1, -(2**63)], INT64, "[9223372036854775807,-9223372036854775808]"),
        ([2**64 - 1], UINT64, "[18446744073709551615]"),
    ],
)
def test_elements_are_written_exactly_and_shortly(values: list[Any], datatype: Datatype, text: str) -> None:
    """A float is the shortest text of its own width, and whole ones do not look like integers."""
    assert text_of(np.array(values, datatype.numpy), datatype) == text


def test_bf16_bits_are_written_as_their_numbers() -> None:
    """The array holds bits; the text holds the values."""
    bits = (np.array([1.0, -2.5, 0.0], "f4").view("u4") >> 16).astype("u2")
    assert text_of(bits, BF16) == "[1.0,-2.5,0.0]"
    assert text_of(np.array([0x7FC0], "u2"), BF16, nonfinite="tokens") == "[NaN]"


@pytest.mark.parametrize("datatype", [*INTEGER_TYPES, FP16, FP32, FP64, BOOL], ids=str)
def test_any_layout_gives_the_same_text(datatype: Datatype) -> None:
    """Transposed, strided, reversed, of the other byte order, read-only: only the values count."""
    base = np.arange(24).reshape(4, 6).astype(datatype.numpy)
    frozen = base.copy()
    frozen.flags.writeable = False
    views = [base.T, base[::2], base[:, ::-1], np.asfortranarray(base), base.astype(datatype.numpy.newbyteorder(">")), frozen]
    for view in views:
        expected = np.array(view.tolist(), datatype.numpy)
        assert text_of(view, datatype) == text_of(expected, datatype)
        assert text_of(view, datatype, nested=False) == text_of(expected.ravel(), datatype)
        assert json.loads(text_of(view, datatype)) == view.tolist()


@pytest.mark.parametrize("datatype", [*INTEGER_TYPES, FP16, FP32, FP64, BOOL, BYTES], ids=str)
def test_scalars_and_empty_arrays_have_their_form(datatype: Datatype) -> None:
    """0-d is a bare element or a list of one; dimensions of zero are empty lists."""
    one: Array = np.array(b"1" if datatype is BYTES else 1, datatype.numpy)
    element = {"bytes": '"1"', "bool": "true", "float": "1.0"}.get(datatype.kind, "1")
    assert text_of(one, datatype) == element
    assert text_of(one, datatype, nested=False) == f"[{element}]"
    for shape, text in [((0,), "[]"), ((2, 0), "[[],[]]"), ((0, 2), "[]"), ((1, 2, 0), "[[[],[]]]")]:
        assert text_of(np.empty(shape, datatype.numpy), datatype) == text
        assert text_of(np.empty(shape, datatype.numpy), datatype, nested=False) == "[]"


@pytest.mark.parametrize("datatype", [FP16, FP32, FP64], ids=str)
def test_what_is_not_finite_is_what_the_caller_chooses(datatype: Datatype) -> None:
    """null keeps a reply valid JSON, tokens are TensorFlow Serving's way, an error names the reason."""
    array = np.array([[1, np.nan], [np.inf, -np.inf]], datatype.numpy)
    assert text_of(array, datatype, nonfinite="null") == "[[1.0,null],[null,null]]"
    assert text_of(array, datatype, nonfinite="tokens") == "[[1.0,NaN],[Infinity,-Infinity]]"
    assert text_of(array.T, datatype, nonfinite="tokens") == "[[1.0,Infinity],[NaN,-Infinity]]"
    assert text_of(array.T, datatype, nonfinite="tokens", nested=False) == "[1.0,Infinity,NaN,-Infinity]"
    assert text_of(array[0, 1], datatype, nonfinite="tokens") == "NaN"
    assert text_of(np.array(-np.inf, datatype.numpy), datatype, nonfinite="tokens") == "-Infinity"
    with pytest.raises(NotJsonError, match="NaN"):
        text_of(array, datatype)


@pytest.mark.parametrize("nonfinite", ["null", "tokens", "error"])
def test_finite_arrays_are_the_same_under_every_choice(nonfinite: Literal["null", "tokens", "error"]) -> None:
    """Text with the letters of null is no reason for an error."""
    assert text_of(np.array([1.5, 2]), FP64, nonfinite=nonfinite) == "[1.5,2.0]"
    assert text_of(words(b"null", b"NaN"), BYTES, nonfinite=nonfinite) == '["null","NaN"]'


def test_bytes_are_written_as_text() -> None:
    """UTF-8 with whatever JSON must escape, in any shape and layout."""
    array = words("é".encode(), b"", b'"\\', b"a\x00\n", "😀".encode(), b"x").reshape(2, 3)
    assert json.loads(text_of(array, BYTES)) == [["é", "", '"\\'], ["a\x00\n", "😀", "x"]]
    assert json.loads(text_of(array.T, BYTES)) == [["é", "a\x00\n"], ["", "😀"], ['"\\', "x"]]
    assert json.loads(text_of(array, BYTES, nested=False)) == ["é", "", '"\\', "a\x00\n", "😀", "x"]


def test_bytes_that_are_not_text_are_what_the_caller_chooses() -> None:
    """Replaced so that the reply can be sent, or an error."""
    array = words(b"a", b"\xff\xfe", b"\xed\xa0\x80")
    with pytest.raises(NotJsonError, match="UTF-8"):
        array_json(array, BYTES, nested=False, nonfinite="null")
    assert orjson.loads(array_json(array, BYTES, nested=False, nonfinite="null", text="replace"))[1] == "\ufffd\ufffd"


def test_complex_numbers_are_refused() -> None:
    """JSON has no form for them; the error names the datatype."""
    with pytest.raises(NotJsonError, match="COMPLEX64"):
        text_of(np.zeros(2, "c8"), COMPLEX64)


def test_fragments_are_written_into_replies() -> None:
    """The text is copied into the reply as it is."""
    array = np.array([[0.2, 1], [2, 3]], "f4")
    reply = {"outputs": [{"name": "y", "data": fragment(array, FP32, nested=False, nonfinite="null")}]}
    assert orjson.dumps(reply) == b'{"outputs":[{"name":"y","data":[0.2,1.0,2.0,3.0]}]}'
    odd = {"predictions": fragment(np.array([np.nan]), FP64, nested=True, nonfinite="tokens")}
    assert orjson.dumps(odd) == b'{"predictions":[NaN]}'
    replaced = fragment(words(b"\xff"), BYTES, nested=True, nonfinite="null", text="replace")
    assert orjson.loads(orjson.dumps([replaced])) == [["\ufffd"]]


def arrays(datatype: Datatype) -> st.SearchStrategy[Array]:
    shape = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
    if datatype is BYTES:
        return shape.flatmap(
            lambda dims: st.lists(st.text(max_size=4), min_size=int(np.prod(dims)), max_size=int(np.prod(dims))).map(
                lambda items: words(*(item.encode() for item in items)).reshape(dims)
            )
        )
    return hnp.arrays(datatype.numpy, shape)


@given(st.data(), st.sampled_from([*INTEGER_TYPES, FP32, FP64, BOOL, BYTES]))
def test_reading_undoes_writing(data: st.DataObject, datatype: Datatype) -> None:
    """To the last bit (one NaN for another), nested or flat, with tokens for what is not finite."""
    array = data.draw(arrays(datatype))
    nested = json_value(array, datatype, nested=True)
    flat = json_value(array, datatype, nested=False)
    expected = array.tolist()
    assert repr(array_of(nested, datatype).tolist()) == repr(expected if 0 not in array.shape else array_of(nested, datatype).tolist())
    assert repr(array_of(flat, datatype).tolist()) == repr(array.ravel().tolist())
    assert array_of(flat, datatype).reshape(array.shape).dtype == array.dtype


def json_value(array: Array, datatype: Datatype, *, nested: bool) -> Any:
    return loads(array_json(array, datatype, nested=nested, nonfinite="tokens"), nonfinite=True)


@given(st.data(), st.sampled_from([*INTEGER_TYPES, FP16, FP32, FP64, BOOL, BYTES]))
def test_replies_with_null_are_always_json(data: st.DataObject, datatype: Datatype) -> None:
    """Whatever a model computed, a strict reader accepts the text and finds as many elements."""
    array = data.draw(arrays(datatype))
    read = orjson.loads(array_json(array, datatype, nested=False, nonfinite="null", text="replace"))
    assert len(read) == array.size
    for value, written in zip(array.ravel().tolist(), read, strict=True):
        if datatype.kind == "float" and not np.isfinite(value):
            assert written is None
        else:
            # in the array's own width: 1e-45 is how the least FP32 is written, and as a double that is another number
            assert value == (written.encode() if datatype is BYTES else datatype.numpy.type(written))
