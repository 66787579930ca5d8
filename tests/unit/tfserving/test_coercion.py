"""JSON values to tensors, datatype by datatype: what is taken, exactly as what, and what is refused."""

import math
from typing import Any

import numpy as np
import pytest

from dragoman.core import tensors as t
from dragoman.core.tensors import DATATYPES, Datatype, Tensors
from tests.fakes_tfs import Client, Toy, echo

NAN = float("nan")


def client(datatype: Datatype | None) -> tuple[Client, Toy]:
    toy = Toy(echo(datatype).signatures, lambda _, __: [t.Tensor("y", t.BOOL, np.zeros(1, "?"))])
    return Client({"m": toy}), toy


def read(datatype: Datatype | None, literal: str) -> t.Tensor:
    """The tensor that a literal becomes, which is the same in both forms."""
    ours, toy = client(datatype)
    reply = ours.predict("m", f'{{"inputs":{literal}}}')
    assert reply.status == 200, reply.body
    columns = toy.seen[-1].inputs
    assert ours.predict("m", f'{{"instances":[{literal}]}}').status == 200
    rows = toy.seen[-1].inputs
    assert isinstance(columns, Tensors)
    assert isinstance(rows, Tensors)
    (column,), (row,) = columns.items, rows.items
    assert row.datatype is column.datatype
    assert row.array.dtype == column.array.dtype == column.datatype.numpy
    assert row.array.shape == (1, *column.array.shape)
    np.testing.assert_equal(row.array.tolist()[0], column.array.tolist())
    return column


@pytest.mark.parametrize(
    ("datatype", "literal", "value"),
    [
        ("FP32", "1", 1.0),
        ("FP32", "1.0", 1.0),
        ("FP32", "1e3", 1000.0),
        ("FP32", "-0.0", -0.0),
        ("FP32", "0.2", float(np.float32(0.2))),
        ("FP32", "1435774380", 1435774336.0),
        ("FP32", "18446744073709551616", 18446744073709551616.0),
        ("FP32", "1e39", math.inf),
        ("FP32", "-1e39", -math.inf),
        ("FP32", "NaN", NAN),
        ("FP32", "Infinity", math.inf),
        ("FP32", "-Infinity", -math.inf),
        ("FP32", "Inf", math.inf),
        ("FP32", "-Inf", -math.inf),
        ("FP64", "1", 1.0),
        ("FP64", "0.2", 0.2),
        ("FP64", "9007199254740993", 9007199254740992.0),
        ("FP64", "1e308", 1e308),
        ("FP64", "NaN", NAN),
        ("INT8", "-128", -128),
        ("INT8", "127", 127),
        ("INT16", "-32768", -32768),
        ("INT16", "32767", 32767),
        ("INT32", "-2147483648", -(2**31)),
        ("INT32", "2147483647", 2**31 - 1),
        ("UINT8", "0", 0),
        ("UINT8", "255", 255),
        ("INT64", "-9223372036854775808", -(2**63)),
        ("INT64", "9223372036854775807", 2**63 - 1),
        ("INT64", "9007199254740993", 9007199254740993),
        ("UINT32", "4294967295", 2**32 - 1),
        ("UINT64", "18446744073709551615", 2**64 - 1),
        ("BOOL", "true", True),
        ("BOOL", "false", False),
        ("BYTES", '""', b""),
        ("BYTES", '"foo"', b"foo"),
        ("BYTES", '"\\u00e9\\u0000"', b"\xc3\xa9\x00"),
        ("BYTES", '"🐊"', b"\xf0\x9f\x90\x8a"),
    ],
)
def test_taken(datatype: str, literal: str, value: Any) -> None:
    """A literal and the value it becomes, to the last digit."""
    got = read(DATATYPES[datatype], literal).array[()]
    assert type(got)(value) == got or (math.isnan(got) and math.isnan(value))
    if datatype.startswith("FP"):
        assert math.copysign(1, got) == math.copysign(1, value)


NUMBERS = {"FP32": "float", "FP64": "double"}
SIGNED = {"INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64"}
UNSIGNED = {"UINT8": "uint8", "UINT32": "uint32", "UINT64": "uint64"}
NAMES = {**NUMBERS, **SIGNED, **UNSIGNED, "BOOL": "bool", "BYTES": "string"}

REFUSED = [
    *[
        (d, literal, kind)
        for d in NUMBERS
        for literal, kind in [('"NaN"', "String"), ('"1"', "String"), ("true", "True"), ("null", "Null")]
    ],
    *[
        (d, literal, kind)
        for d in [*SIGNED, *UNSIGNED]
        for literal, kind in [
            ("1.0", "Number"),
            ("1e3", "Number"),
            ('"1"', "String"),
            ("false", "False"),
            ("null", "Null"),
            ("NaN", "Number"),
        ]
    ],
    *[(d, "-1", "Number") for d in UNSIGNED],
    ("INT8", "128", "Number"),
    ("INT8", "300", "Number"),
    ("INT16", "32768", "Number"),
    ("INT32", "2147483648", "Number"),
    ("INT32", "-2147483649", "Number"),
    ("UINT8", "256", "Number"),
    ("INT64", "9223372036854775808", "Number"),
    ("UINT32", "4294967296", "Number"),
    ("UINT64", "18446744073709551616", "Number"),
    ("BOOL", "0", "Number"),
    ("BOOL", "1", "Number"),
    ("BOOL", '"true"', "String"),
    ("BYTES", "1", "Number"),
    ("BYTES", "null", "Null"),
    ("BYTES", "true", "True"),
]


@pytest.mark.parametrize(("datatype", "literal", "kind"), REFUSED)
def test_refused(datatype: str, literal: str, kind: str) -> None:
    """A literal that the datatype does not take is 400 and names both."""
    ours, _ = client(DATATYPES[datatype])
    told = f" Type: {kind} is not of expected type: {NAMES[datatype]}"
    for body in (f'{{"inputs":{literal}}}', f'{{"instances":[{literal}]}}', f'{{"inputs":{{"x":[[{literal}]]}}}}'):
        reply = ours.predict("m", body)
        assert reply.status == 400
        assert reply.error.endswith(told)


@pytest.mark.parametrize(("datatype", "name"), [("FP16", "half"), ("BF16", "bfloat16"), ("UINT16", "uint16"), ("COMPLEX64", "complex64")])
@pytest.mark.parametrize(("value", "first"), [("1.0", "1.0"), ("[1.5, 2]", "1.5"), ("[[3]]", "3"), ("[]", "[]"), ('"s"', '"s"')])
def test_datatypes_that_json_cannot_carry(datatype: str, name: str, value: str, first: str) -> None:
    """Column form is 501, row form 400, and both quote the first element."""
    ours, _ = client(DATATYPES[datatype])
    text = f"Conversion of JSON Value: {first} to type: {name}"
    reply = ours.predict("m", f'{{"inputs":{value}}}')
    assert (reply.status, reply.error) == (501, text)
    reply = ours.predict("m", f'{{"instances":[{value}]}}')
    assert (reply.status, reply.error) == (400, f"Failed to process element: 0 of 'instances' list. Error: UNIMPLEMENTED: {text}")


def test_long_half_rows() -> None:
    """A list long enough to be kept packed is refused the same way."""
    ours, _ = client(t.FP16)
    numbers = [0.5] * 20_000
    assert ours.predict("m", {"inputs": numbers}).error == "Conversion of JSON Value: 0.5 to type: half"
    assert ours.predict("m", {"instances": [numbers]}).status == 400


@pytest.mark.parametrize(
    ("literal", "datatype", "values"),
    [
        ("[1, 2]", t.INT64, [1, 2]),
        ("[1, 2.0]", t.FP64, [1.0, 2.0]),
        ("[[1], [2.5]]", t.FP64, [[1.0], [2.5]]),
        ("[NaN]", t.FP64, [NAN]),
        ("[9223372036854775807]", t.INT64, [2**63 - 1]),
        ("[9223372036854775808, 1]", t.FP64, [2.0**63, 1.0]),
        ("[true, false]", t.BOOL, [True, False]),
        ('["a", {"b64": "Yg=="}]', t.BYTES, [b"a", b"b"]),
        ('"a"', t.BYTES, b"a"),
        ("3", t.INT64, 3),
        ("[]", t.FP64, []),
    ],
)
def test_inputs_of_any_datatype(literal: str, datatype: Datatype, values: Any) -> None:
    """An input that takes any datatype gets the one that its elements are written in."""
    got = read(None, literal)
    assert got.datatype is datatype
    np.testing.assert_array_equal(got.array, np.array(values, datatype.numpy))


@pytest.mark.parametrize("numbers", [[1] * 20_000, [[1.5] * 100] * 200, [1] * 20_000 + [2.5]], ids=["ints", "floats", "mixed"])
def test_long_inputs_of_any_datatype(numbers: list[Any]) -> None:
    """Long lists are judged like short ones, alone, in named columns and in named rows."""
    flat = [x for row in numbers for x in (row if isinstance(row, list) else [row])]
    expected = t.INT64 if all(type(x) is int for x in flat) else t.FP64
    ours, toy = client(None)
    for body in ({"inputs": numbers}, {"instances": numbers}, {"inputs": {"x": numbers}}, {"instances": [{"x": numbers}, {"x": numbers}]}):
        assert ours.predict("m", body).status == 200
        inputs = toy.seen[-1].inputs
        assert isinstance(inputs, Tensors)
        assert inputs.items[0].datatype is expected
        assert inputs.items[0].array.ravel()[: len(flat)].tolist() == flat


@pytest.mark.parametrize(
    ("literal", "text"),
    [
        ('[1, "a"]', '"a" Type: String is not of expected type: double'),
        ("[1, true]", "true Type: True is not of expected type: double"),
        ("null", "null Type: Null is not of expected type: double"),
        ('["a", 1]', '"a" Type: String is not of expected type: double'),
        ('[{"c": 1}]', '{"c":1} not formatted correctly for base64 data'),
    ],
)
def test_mixtures_for_any_datatype(literal: str, text: str) -> None:
    """Elements that go with no one datatype are refused by name."""
    ours, _ = client(None)
    assert ours.predict("m", f'{{"inputs":{literal}}}').error == f"JSON Value: {text}"


def test_one_datatype_for_all_rows() -> None:
    """Rows of one column share a datatype: one decimal makes all of them FP64."""
    ours, toy = client(None)
    assert ours.predict("m", {"instances": [{"x": 1}, {"x": 2.5}]}).status == 200
    inputs = toy.seen[-1].inputs
    assert isinstance(inputs, Tensors)
    assert inputs.items[0].datatype is t.FP64


def test_inputs_are_the_models_own() -> None:
    """Arrays are writable and contiguous, whatever way they were read."""
    ours, toy = client(t.FP32)
    for numbers in ([1.0, 2.0], [[0.5] * 100] * 100):
        for body in ({"inputs": numbers}, {"instances": numbers}):
            assert ours.predict("m", body).status == 200
            inputs = toy.seen[-1].inputs
            assert isinstance(inputs, Tensors)
            assert inputs.items[0].array.flags.c_contiguous
            assert inputs.items[0].array.flags.writeable
