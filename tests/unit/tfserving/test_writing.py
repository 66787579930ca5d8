"""Tensors to JSON, strings and base64 in both directions (G20)."""

import base64
import json
import math
from typing import Any

import numpy as np
import pytest

from dragoman.core import tensors as t
from dragoman.core.tensors import DATATYPES, Tensor
from tests.fakes_tfs import Client, answering, array, echo


def written(*outputs: Tensor, rows: bool = False) -> bytes:
    reply = Client({"m": answering(*outputs)}).predict("m", {"instances" if rows else "inputs": [1]})
    assert reply.status == 200, reply.body
    return reply.body


def value(datatype: str, values: Any) -> str:
    """The JSON text of one output."""
    body = written(Tensor("y", DATATYPES[datatype], np.array(values, DATATYPES[datatype].numpy))).decode()
    assert body.startswith('{"outputs":')
    return body[len('{"outputs":') : -1]


@pytest.mark.parametrize(
    ("datatype", "number", "text"),
    [
        ("FP32", 0.2, "0.2"),
        ("FP32", 3, "3.0"),
        ("FP32", -0.0, "-0.0"),
        ("FP32", 0.1 + 0.2, "0.3"),
        ("FP32", 1 / 3, "0.33333334"),
        ("FP32", 1435774380, "1435774336.0"),
        ("FP32", -123456789, "-123456792.0"),
        ("FP32", 67108872, "67108872.0"),
        ("FP32", 16777217, "16777216.0"),
        ("FP64", 1435774380, "1435774380.0"),
        ("FP64", 0.2, "0.2"),
        ("FP64", 1 / 3, "0.3333333333333333"),
        ("FP64", 3, "3.0"),
        ("FP32", math.nan, "NaN"),
        ("FP32", math.inf, "Infinity"),
        ("FP64", -math.inf, "-Infinity"),
        ("INT8", -128, "-128"),
        ("INT64", -(2**63), "-9223372036854775808"),
        ("UINT64", 2**64 - 1, "18446744073709551615"),
        ("UINT16", 65535, "65535"),
        ("BOOL", True, "true"),
        ("BOOL", False, "false"),
    ],
)
def test_numbers(datatype: str, number: Any, text: str) -> None:
    """Each number from its own width; whole floats keep their point; NaN and infinities are bare tokens; scalars are bare."""
    assert value(datatype, number) == text
    assert value(datatype, [number, number]) == f"[{text},{text}]"
    assert value(datatype, [[number]]) == f"[[{text}]]"
    assert value(datatype, [number] * 500) == f"[{','.join([text] * 500)}]"
    other = Tensor("n", DATATYPES["INT64"], np.array([123456789]))
    rows = written(Tensor("y", DATATYPES[datatype], np.array([number], DATATYPES[datatype].numpy)), other, rows=True).decode()
    assert rows == f'{{"predictions":[{{"y":{text},"n":123456789}}]}}'


@pytest.mark.parametrize(
    ("width", "number"), [("FP32", n) for n in (9e6, 1e16, 1e-7, 3.4028235e38)] + [("FP64", n) for n in (9e6, 1e16, 1e300)]
)
def test_large_and_small_floats(width: str, number: float) -> None:
    """Any spelling is fine as long as the same float is read back and it is spelled as a float."""
    text = value(width, number)
    assert np.array(float(text), DATATYPES[width].numpy) == np.array(number, DATATYPES[width].numpy)
    assert "." in text or "e" in text


@pytest.mark.parametrize("datatype", ["FP16", "BF16", "COMPLEX64", "COMPLEX128"])
def test_datatypes_that_are_not_written(datatype: str) -> None:
    """400 and TensorFlow's name of the type, in both forms."""
    name = {"FP16": "half", "BF16": "bfloat16"}.get(datatype, datatype.lower())
    output = Tensor("y", DATATYPES[datatype], np.zeros(1, DATATYPES[datatype].numpy))
    for key in ("inputs", "instances"):
        reply = Client({"m": answering(output)}).predict("m", {key: [1]})
        assert (reply.status, reply.error) == (400, f"Failed to write JSON value for tensor type: {name}")


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((0,), []), ((2, 0), [[], []]), ((0, 2), []), ((2, 0, 3), [[], []]), ((2, 1, 0), [[[]], [[]]])],
)
def test_empty_outputs(shape: tuple[int, ...], expected: list[Any]) -> None:
    """Outputs without elements keep their nesting; a batch of nothing is an empty list."""
    empty, text = Tensor("a", t.FP32, np.zeros(shape, "f4")), Tensor("b", t.BYTES, np.empty(shape, object))
    for output in (empty, text):
        assert json.loads(written(output)) == {"outputs": expected}
        assert json.loads(written(output, rows=True)) == {"predictions": expected}
    both = [{"a": row, "b": row} for row in expected]
    assert json.loads(written(empty, text, rows=True)) == {"predictions": both}


@pytest.mark.parametrize("shape", [(3,), (3, 1), (3, 2), (3, 1, 1), (3, 2, 2), (1, 2, 3, 4), (2, 1, 3, 1)])
def test_rows_of_several_outputs(shape: tuple[int, ...]) -> None:
    """Each row holds its piece of every output, of any rank and datatype."""
    count = math.prod(shape)
    floats = (np.arange(count, dtype="f4") / 4).reshape(shape)
    floats.flat[0] = math.inf
    words = array([f"w{i},[]".encode() for i in range(count)], "O").reshape(shape)
    outputs = [
        Tensor("f", t.FP32, floats),
        Tensor("i", t.INT64, np.arange(count).reshape(shape) - 2),
        Tensor("b", t.BOOL, (np.arange(count) % 2 == 0).reshape(shape)),
        Tensor('quo"te', t.BYTES, words),
        Tensor("flat", t.FP64, np.arange(shape[0]) / 3),
    ]
    rows = json.loads(written(*outputs, rows=True))["predictions"]
    texts = np.array([w.decode() for w in words.ravel().tolist()], object).reshape(shape).tolist()
    assert [row["f"] for row in rows] == floats.tolist()
    assert [row["i"] for row in rows] == outputs[1].array.tolist()
    assert [row["b"] for row in rows] == outputs[2].array.tolist()
    assert [row['quo"te'] for row in rows] == texts
    assert [row["flat"] for row in rows] == outputs[4].array.tolist()
    assert list(rows[0]) == ["f", "i", "b", 'quo"te', "flat"]


def test_layouts_of_memory() -> None:
    """Outputs may be views in any order and of either byte order."""
    base = np.arange(6, dtype=">f4").reshape(2, 3)
    for view in (base.T, base[:, ::2], np.asfortranarray(base), base[::-1]):
        assert json.loads(written(Tensor("y", t.FP32, view))) == {"outputs": view.tolist()}
        assert json.loads(written(Tensor("y", t.FP32, view), rows=True)) == {"predictions": view.tolist()}


def test_model_without_outputs() -> None:
    """A model that answers nothing is answered with nothing."""
    assert written() == b'{"outputs":{}}'
    assert written(rows=True) == b'{"predictions":[]}'


# --- strings and base64 ---

BINARY = bytes(range(256))


@pytest.mark.parametrize(
    ("sent", "held"),
    [
        ("Zm9v", b"foo"),
        ("Zm8=", b"fo"),
        ("Zm8", b"fo"),
        ("Zg==", b"f"),
        ("Zg", b"f"),
        (" Z\tm\r\n9 v ", b"foo"),
        (" Zg", b"f"),
        ("Z g = =", b"f"),
        ("", b""),
        ("  ", b""),
        ("+/+/", b"\xfb\xff\xbf"),
        (base64.b64encode(BINARY).decode(), BINARY),
    ],
)
def test_base64_taken(sent: str, held: bytes) -> None:
    """Padding may be left out, white space may stand anywhere, and nothing is nothing."""
    reply = Client({"m": echo(t.BYTES, output="y_bytes")}).predict("m", {"instances": [{"b64": sent}]})
    assert reply.json == {"predictions": [{"b64": base64.b64encode(held).decode()}]}


@pytest.mark.parametrize("sent", ["_-_-", "Z", "Zm9vY", "Zg=", "=", "=Zg=", "Zg==Zg==", "Zm9v!", "Zé==", "Z\u0000g="])
def test_base64_refused(sent: str) -> None:
    """The URL-safe alphabet, stray characters, wrong lengths and misplaced padding are 400."""
    reply = Client({"m": echo(t.BYTES)}).predict("m", {"inputs": [{"b64": sent}]})
    assert (reply.status, reply.error) == (400, "Unable to base64 decode")


@pytest.mark.parametrize(
    "body",
    [
        '{"instances": [{"b64":"AP8="}, "é"]}',
        '{"instances": [{"x": {"b64":"AP8="}}, {"x": "é"}]}',
        '{"inputs": [{"b64":"AP8="}, "é"]}',
        '{"inputs": {"x": [{"b64":"AP8="}, "é"]}}',
    ],
)
def test_g20_base64_beside_text(body: str) -> None:
    """Binary and text may stand side by side, wherever a value may."""
    for name, expected in (("y", [{"b64": "AP8="}, "é"]), ("y_bytes", [{"b64": "AP8="}, {"b64": "w6k="}])):
        reply = Client({"m": echo(t.BYTES, output=name)}).predict("m", body)
        assert list(reply.json.values()) == [expected]


def test_g20_nested_base64() -> None:
    """base64 objects at any depth."""
    nested = [[[{"b64": "AA=="}], ["b"]]]
    reply = Client({"m": echo(t.BYTES, output="out_bytes")}).predict("m", {"instances": nested})
    assert reply.json == {"predictions": [[[{"b64": "AA=="}], [{"b64": "Yg=="}]]]}


def test_g20_output_named_bytes() -> None:
    """The suffix decides by output, in both forms, and only for strings."""
    text, raw = array([b"a", b"\xff"], "O"), array([b"a", b"b"], "O")
    outputs = [Tensor("t", t.BYTES, text), Tensor("t_bytes", t.BYTES, raw), Tensor("n_bytes", t.INT64, np.arange(2))]
    assert json.loads(written(*outputs)) == {
        "outputs": {"t": ["a", {"b64": "/w=="}], "t_bytes": [{"b64": "YQ=="}, {"b64": "Yg=="}], "n_bytes": [0, 1]}
    }
    assert json.loads(written(*outputs, rows=True))["predictions"][1] == {"t": {"b64": "/w=="}, "t_bytes": {"b64": "Yg=="}, "n_bytes": 1}


def test_g20_nonfinite_round_trip() -> None:
    """NaN and both infinities go through in both directions, beside ordinary numbers, in any nesting."""
    body = '{"instances": [[NaN, 1.5], [Infinity, -Infinity]]}'
    assert Client({"m": echo(t.FP32)}).predict("m", body).body == b'{"predictions":[[NaN,1.5],[Infinity,-Infinity]]}'


def test_text_that_looks_like_a_token() -> None:
    """Strings that hold NaN, null or brackets are strings, though tokens stand beside them."""
    words = ["NaN", "null", 'say "Infinity"', "[,]", "\\"]
    assert Client({"m": echo(t.BYTES)}).predict("m", '{"unused": NaN, "instances": ' + json.dumps(words) + "}").json == {
        "predictions": words
    }
