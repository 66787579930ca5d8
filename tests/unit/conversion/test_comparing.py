"""How a converted signature is compared with the original: samples, differences, refusals."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from dragoman.conversion.comparing import compare
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import Call
from dragoman.core.tensors import BF16, BYTES, DATATYPES, FP32, INT64, Array, Datatype, Shape, Signature, Tensor, Tensors, TensorSpec

KEY = "serving_default"


class Toy:
    """x -> y by a function."""

    operations = frozenset({"predict"})
    platform = "toy"
    concurrent = True

    def __init__(self, function: Callable[[Array], Array], datatype: Datatype = FP32, shape: Shape | None = (-1, 2)) -> None:
        self._function = function
        self.signatures: Mapping[str, Signature] = {
            KEY: Signature(inputs=(TensorSpec("x", datatype, shape),), outputs=(TensorSpec("y", datatype, shape),))
        }
        self.seen: list[Array] = []

    def predict(self, call: Call) -> Tensors:
        assert isinstance(call.inputs, Tensors)
        assert call.signature == KEY
        tensor = call.inputs.items[0]
        self.seen.append(tensor.array)
        return Tensors([Tensor("y", tensor.datatype, self._function(tensor.array))])

    def close(self) -> None:
        pass


def same(array: Array) -> Array:
    return array


@pytest.mark.parametrize("name", DATATYPES)
@pytest.mark.parametrize("shape", [(-1, 2), (), (2, 3), None], ids=str)
def test_samples_of_every_type_and_shape(name: str, shape: Shape | None) -> None:
    """Three rows and one, of the declared type and sizes; equal answers have no difference."""
    original = Toy(same, DATATYPES[name], shape)
    found = compare(original, Toy(same, DATATYPES[name], shape), KEY, None, 0)
    assert (found.absolute, found.relative, found.samples) == (0, 0, 2)
    assert all(array.dtype == DATATYPES[name].numpy for array in original.seen)
    if shape == (-1, 2):
        assert [array.shape for array in original.seen] == [(3, 2), (1, 2)]


def test_the_largest_difference() -> None:
    """Absolute, and in proportion to the largest number of the output."""
    found = compare(Toy(lambda x: x * 0 + 10), Toy(lambda x: x * 0 + np.float32(10.5)), KEY, None, 0.1)
    assert found.absolute == 0.5
    assert found.relative == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("one", "other", "datatype"),
    [
        (lambda x: x * 0 + 1, lambda x: x * 0 + np.float32(1.01), FP32),
        (lambda x: x * 0 + np.nan, lambda x: x * 0, FP32),
        (lambda x: x * 0, lambda x: x * 0 + np.inf, FP32),
        (lambda x: x, lambda x: x[:, :1], FP32),
        (lambda x: x * 0, lambda x: x * 0 + 1, INT64),
        (lambda x: x * 0, lambda x: x * 0 + 0x3F80, BF16),
        (lambda x: x, lambda x: x + b"!", BYTES),
    ],
)
def test_too_large_a_difference(one: Callable[[Array], Array], other: Callable[[Array], Array], datatype: Datatype) -> None:
    """Numbers, what is no number, shapes and texts: the output is named."""
    with pytest.raises(ServingError, match="'y' differs") as caught:
        compare(Toy(one, datatype), Toy(other, datatype), KEY, None, 1e-3)
    assert caught.value.kind is Kind.MODEL_FAILED


def test_what_is_no_number_on_both_sides_is_equal() -> None:
    """NaN and infinities."""
    odd = np.array([[np.nan, np.inf]], np.float32)
    assert compare(Toy(lambda x: odd[[0] * len(x)]), Toy(lambda x: odd[[0] * len(x)]), KEY, None, 0).absolute == 0


def test_other_sizes_are_tried() -> None:
    """A graph that takes only some sizes is found one."""

    def needs_sixteen(array: Array) -> Array:
        if array.shape[1] != 16:
            raise invalid("not 16")
        return array

    original = Toy(needs_sixteen, shape=(-1, -1))
    assert compare(original, Toy(same, shape=(-1, -1)), KEY, None, 0).samples == 2
    assert original.seen[-1].shape == (1, 16)


def test_no_sample_at_all() -> None:
    """Says what to do and why, in TensorFlow's words; a given sample is the way out, and its own errors are told."""

    def picky(array: Array) -> Array:
        if array.size != 7:
            raise invalid("seven\nit must be")
        return array

    toy = Toy(picky, shape=(-1, -1))
    with pytest.raises(ServingError, match="--sample: seven it must be"):
        compare(toy, toy, KEY, None, 0)
    assert compare(toy, toy, KEY, {"x": [[1] * 7]}, 0).samples == 1
    for given, words in (({"x": [[1]]}, "seven"), ({"z": [1]}, "'z'"), ({"x": [["a"]]}, "'x'"), ({"x": [[1], [1, 2]]}, "'x'")):
        with pytest.raises(ServingError, match=words) as caught:
            compare(toy, toy, KEY, given, 0)
        assert caught.value.kind is Kind.INVALID_INPUT


def test_given_texts_are_bytes() -> None:
    """As in JSON."""
    toy = Toy(same, BYTES, (-1,))
    given: dict[str, Any] = {"x": ["déjà", ""]}
    assert compare(toy, toy, KEY, given, 0).samples == 1
    assert toy.seen[0].tolist() == ["déjà".encode(), b""]


def test_too_large_for_a_random_sample() -> None:
    """Gigabytes are not made up."""
    toy = Toy(same, shape=(-1, 1 << 40))
    with pytest.raises(ServingError, match="--sample"):
        compare(toy, toy, KEY, None, 0)
