"""The classification extension (requirement O12): best first, values as C prints them, labels, clamped, JSON and binary."""

import struct
from typing import Any

import numpy as np
import pytest

from dragoman.core.tensors import BF16, BOOL, BYTES, FP16, FP32, FP64, INT8, INT64, UINT64, Signature, Tensor, Tensors, TensorSpec
from tests.unit.v2.client import FLOWER, Client, constant, entry, one_input, tensor

X = one_input([1.0], shape=(1,), name="x")


def top(k: int, name: str = "y", **parameters: Any) -> dict[str, Any]:
    """A request for the best k classes of one output."""
    return {**X, "outputs": [{"name": name, "parameters": {"classification": k, **parameters}}]}


def classes(value: Tensor, k: int, **fields: Any) -> Any:
    """The classes of a model that always answers `value`."""
    with Client([constant("c", value, **fields)]) as server:
        return server.infer("c", top(k)).outputs["y"]


def test_reply_with_labels_and_batch(server: Client) -> None:
    """BYTES of shape [batch, k], `value:index:label`; an index without a label has none."""
    outputs = [{"name": "probabilities", "parameters": {"classification": 3}}]
    output = server.infer("iris", one_input([FLOWER, [1.0] * 4], shape=(2, 4), outputs=outputs)).outputs["probabilities"]
    assert output == {
        "name": "probabilities",
        "shape": [2, 3],
        "datatype": "BYTES",
        "data": [
            "20.400000:1:versicolor",
            "10.200000:0:setosa",
            "5.100000:2",
            "8.000000:1:versicolor",
            "4.000000:0:setosa",
            "2.000000:2",
        ],
    }


def test_without_batch() -> None:
    """All elements of the tensor compete, whatever its shape."""
    output = classes(tensor("y", FP32, [[0.1, 0.7], [0.983188, -2]]), 3)
    assert output["shape"] == [3]
    assert output["data"] == ["0.983188:2", "0.700000:1", "0.100000:0"]


def test_trailing_dimensions_count_as_one() -> None:
    """With a batch, n is the product of all other dimensions."""
    scores = np.arange(12, dtype="f4").reshape(2, 2, 3)
    signature = Signature(inputs=(TensorSpec("x", FP32, (-1,)),), outputs=(TensorSpec("y", FP32, (-1, 2, 3)),), batch=True)
    with Client([entry("c", signature, lambda _: Tensors([Tensor("y", FP32, scores)]))]) as server:
        output = server.infer("c", {**top(2), "inputs": one_input([1, 2], shape=(2,), name="x")["inputs"]}).outputs["y"]
    assert output["shape"] == [2, 2]
    assert output["data"] == ["5.000000:5", "4.000000:4", "11.000000:5", "10.000000:4"]


@pytest.mark.parametrize(
    ("datatype", "values", "expected"),
    [
        (INT8, [-128, 127, 0], ["127:1", "0:2", "-128:0"]),
        (INT64, [(1 << 63) - 1, (1 << 63) - 2, -1], [f"{(1 << 63) - 1}:0", f"{(1 << 63) - 2}:1", "-1:2"]),
        (UINT64, [1, (1 << 64) - 1, (1 << 64) - 2], [f"{(1 << 64) - 1}:1", f"{(1 << 64) - 2}:2", "1:0"]),
        (FP64, [1e10, 1 / 3, -0.0], ["10000000000.000000:0", "0.333333:1", "-0.000000:2"]),
        (FP32, [float("nan"), 1.0, float("-inf")], ["1.000000:1", "nan:0", "-inf:2"]),
        (FP32, [float("inf"), 1.0, float("nan")], ["inf:0", "1.000000:1", "nan:2"]),
    ],
    ids=["INT8", "INT64", "UINT64", "FP64", "nan", "inf"],
)
def test_values_are_printed_as_c_does(datatype: Any, values: list[Any], expected: list[str]) -> None:
    """Six decimals for floats, integers without a point and exact; NaN is never best."""
    assert classes(tensor("y", datatype, values), 3)["data"] == expected


def test_ties_go_to_the_lower_index() -> None:
    """Also when there are many of them."""
    assert classes(tensor("y", FP32, [0.5] * 40), 3)["data"] == ["0.500000:0", "0.500000:1", "0.500000:2"]


def test_more_than_there_are() -> None:
    """k is clamped to n."""
    output = classes(tensor("y", FP32, [0.25, 0.75]), 1 << 62)
    assert output["shape"] == [2]
    assert output["data"] == ["0.750000:1", "0.250000:0"]


def test_zero_is_not_asked() -> None:
    """k = 0 gives the output as it is."""
    assert classes(tensor("y", FP32, [0.25, 0.75]), 0)["datatype"] == "FP32"


@pytest.mark.parametrize(("shape", "expected"), [((0,), [0]), ((0, 3), [0, 2]), ((2, 0), [2, 0])], ids=str)
def test_empty_outputs(shape: tuple[int, ...], expected: list[int]) -> None:
    """Nothing to classify is no error."""
    batch = len(shape) > 1
    signature = Signature(inputs=(TensorSpec("x", FP32, (1,)),), outputs=(TensorSpec("y", FP32, shape),), batch=batch)
    with Client([entry("c", signature, lambda _: Tensors([Tensor("y", FP32, np.empty(shape, "f4"))]))]) as server:
        output = server.infer("c", top(2)).outputs["y"]
    assert output["shape"] == expected
    assert output["data"] == []


def test_scalar_output_of_a_batching_model() -> None:
    """An output without dimensions has no batch to go by."""
    value = Tensor("y", FP32, np.array(2.5, "f4"))
    signature = Signature(inputs=(TensorSpec("x", FP32, (-1,)),), outputs=(TensorSpec("y", FP32, ()),), batch=True)
    with Client([entry("c", signature, lambda _: Tensors([value]))]) as server:
        assert server.infer("c", top(1)).outputs["y"] == {"name": "y", "shape": [1], "datatype": "BYTES", "data": ["2.500000:0"]}


def test_binary(server: Client) -> None:
    """Classes are BYTES on the wire too, with their lengths in front."""
    outputs = [{"name": "probabilities", "parameters": {"classification": 1, "binary_data": True}}]
    head, data = server.infer("iris", one_input(FLOWER, outputs=outputs)).split()
    text = b"20.400000:1:versicolor"
    assert data == struct.pack("<I", len(text)) + text
    assert head["outputs"][0]["shape"] == [1, 1]


@pytest.mark.parametrize("datatype", [BOOL, FP16, BF16, BYTES], ids=str)
def test_datatypes_without_an_order(datatype: Any) -> None:
    """400 that names the output and its datatype."""
    with Client([constant("c", tensor("y", datatype, [b"a"] if datatype is BYTES else [1]))]) as server:
        reply = server.infer("c", top(1))
    assert reply.status == 400
    assert "'y'" in reply.error
    assert str(datatype) in reply.error


def test_labels_beyond_ascii() -> None:
    """Labels are UTF-8."""
    signature = Signature(inputs=(TensorSpec("x", FP32, (1,)),), outputs=(TensorSpec("y", FP32, (2,), labels=("é", "b:c")),))
    with Client([entry("c", signature, lambda _: Tensors([tensor("y", FP32, [1, 2])]))]) as server:
        assert server.infer("c", top(2)).outputs["y"]["data"] == ["2.000000:1:b:c", "1.000000:0:é"]
