"""Batches of allowed sizes: filled up to the next one, cut above the largest, and nobody sees it in an answer."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.keys import batch_key
from dragoman.core.model import BatchPolicy, Call, InferRequest, Model
from dragoman.core.tensors import BYTES, FP32, Array, Datatype, Form, Rows, Signature, Tensor, Tensors, TensorSpec, concat
from dragoman.hosting.batcher import ALONE
from dragoman.hosting.servable import place
from dragoman.hosting.sized import sized
from tests.fakes import FakeModel

OPEN = Signature(inputs=(TensorSpec("x", FP32, (-1, -1)),), outputs=(TensorSpec("y", FP32, (-1, -1)),), batch=True)
FIXED = Signature(inputs=(TensorSpec("x", FP32, (-1, 2)),), outputs=(TensorSpec("y", FP32, (-1, 2)),), batch=True)


class Sums(FakeModel):
    """y is x doubled, n (where it is to be) the rows that it saw in one scalar; keeps every tensor that it was called with."""

    def __init__(self, signature: Signature = OPEN, *, counts: bool = False) -> None:
        super().__init__(signature=signature)
        self._counts = counts
        self.seen: list[Array] = []

    def predict(self, call: Call) -> Tensors | Rows:
        if isinstance(call.inputs, Rows):
            return call.inputs
        array = call.inputs.items[0].array
        self.seen.append(array)
        y = Tensor("y", FP32, array * 2)
        return Tensors([y, Tensor("n", FP32, np.array(len(array), "f4"))] if self._counts else [y])


def tensors(array: Array, datatype: Datatype = FP32) -> Tensors:
    return Tensors([Tensor("x", datatype, array)])


def numbers(rows: int, columns: int = 2) -> Array:
    array: Array = np.arange(1, rows * columns + 1, dtype="f4").reshape(rows, columns)
    return array


def outputs_of(model: Model, array: Array) -> list[Array]:
    outputs = model.predict(Call(tensors(array)))
    assert isinstance(outputs, Tensors)
    return [t.array for t in outputs.items]


@pytest.mark.parametrize(("rows", "runs"), [(1, [4]), (4, [4]), (5, [8]), (8, [8]), (9, [8, 4]), (20, [8, 8, 4])])
def test_only_allowed_sizes_reach_the_model(rows: int, runs: list[int]) -> None:
    """The next larger one, and pieces of the largest; the rows that are asked for come back, in order."""
    model = Sums()
    policy = BatchPolicy(max_size=8, allowed=(4, 8))
    outputs = sized(model, policy).predict(Call(tensors(numbers(rows)), outputs=("y",)))
    assert isinstance(outputs, Tensors)
    assert [len(each) for each in model.seen] == runs
    np.testing.assert_array_equal(outputs.items[0].array, numbers(rows) * 2)


def test_filling_is_a_row_that_was_sent() -> None:
    """Zeros need not be valid input; a row of the batch is as valid as the batch."""
    model = Sums()
    outputs_of(sized(model, BatchPolicy(max_size=4, allowed=(4,))), np.array([[7.0, 8.0]], "f4"))
    np.testing.assert_array_equal(model.seen[0], [[7, 8]] * 4)


def test_an_output_without_a_batch_is_left_alone() -> None:
    """Cutting it would make something up."""
    y, n = outputs_of(sized(Sums(counts=True), BatchPolicy(max_size=4, allowed=(4,))), numbers(3))
    assert (y.shape, n.shape, n.item()) == ((3, 2), (), 4.0)


def test_cut_alone_fills_nothing_up() -> None:
    """Long requests run in pieces, short ones as they are."""
    model = Sums()
    wrapped = sized(model, BatchPolicy(max_size=4, cut=True))
    outputs_of(wrapped, numbers(3))
    (y,) = outputs_of(wrapped, numbers(6))
    assert [len(each) for each in model.seen] == [3, 4, 2]
    assert y.shape == (6, 2)


def test_a_batch_without_rows_is_not_filled_up() -> None:
    """There is no row to copy."""
    model = Sums()
    outputs_of(sized(model, BatchPolicy(max_size=4, allowed=(4,))), numbers(0))
    assert model.seen[0].shape == (0, 2)


def test_models_without_a_batch_are_not_wrapped() -> None:
    """Nor rows, nor anything under a policy that takes every size."""
    policy = BatchPolicy(max_size=4, allowed=(4,))
    for signature in (Signature(inputs=FIXED.inputs), Signature(form=Form.ROWS, batch=True)):
        model = Sums(signature)
        assert sized(model, policy) is model
    model = Sums()
    assert sized(model, BatchPolicy(max_size=4)) is model


def test_what_the_model_says_of_itself_is_seen() -> None:
    """Signatures, platform, operations; closing closes it."""
    model = Sums()
    wrapped = sized(model, BatchPolicy(max_size=4, allowed=(4,)))
    assert (wrapped.signatures, wrapped.platform, wrapped.operations) == (model.signatures, model.platform, model.operations)
    assert wrapped.concurrent == model.concurrent
    wrapped.close()
    assert model.closed


# --- tensors of different sizes in one batch ---


def key(array: Array, signature: Signature = OPEN) -> object:
    return batch_key(InferRequest(tensors(array)), signature, padded=True)


def test_sizes_left_open_need_only_be_alike() -> None:
    """Within a factor of two, so that filling up never takes much more than what was sent; other axes and empty tensors must be equal."""
    assert key(numbers(1, 5)) == key(numbers(3, 8))
    assert key(numbers(1, 5)) != key(numbers(1, 9))
    assert key(numbers(1, 1)) != key(numbers(1, 2), FIXED)
    assert key(numbers(1, 3), FIXED) != key(numbers(1, 4), FIXED)
    assert key(np.zeros((1, 0), "f4")) != key(numbers(1, 1))
    assert key(np.zeros((1, 3, 3), "f4")) != key(numbers(1, 3))


def test_without_the_policy_sizes_are_equal() -> None:
    """As ever."""
    five, six = (InferRequest(tensors(numbers(1, n))) for n in (5, 6))
    assert place(five, OPEN, BatchPolicy())[0] != place(six, OPEN, BatchPolicy())[0]
    assert place(five, OPEN, BatchPolicy(pad=True))[0] == place(six, OPEN, BatchPolicy(pad=True))[0]
    assert place(five, OPEN, BatchPolicy(max_size=1, pad=True))[0] is ALONE


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)), min_size=2, max_size=5))
def test_the_shorter_are_filled_up_with_their_first_element(shapes: list[tuple[int, int, int]]) -> None:
    """As TensorFlow Serving does it; what was sent is where it was."""
    arrays = [np.arange(1, np.prod(shape) + 1, dtype="f4").reshape(shape) * (at + 1) for at, shape in enumerate(shapes)]
    joined = concat([tensors(array) for array in arrays])
    assert isinstance(joined, Tensors)
    whole = joined.items[0].array
    assert whole.shape[1:] == (max(s[1] for s in shapes), max(s[2] for s in shapes))
    start = 0
    for array in arrays:
        share = whole[start : start + len(array)]
        np.testing.assert_array_equal(share[:, : array.shape[1], : array.shape[2]], array)
        assert share.sum() == array.sum() + (share.size - array.size) * array.flat[0]
        start += len(array)
    assert start == len(whole)


def test_texts_are_filled_up_too() -> None:
    """Object arrays of bytes, with bytes."""
    joined = concat([tensors(np.array([[b"a"]], object), BYTES), tensors(np.array([[b"b", b"c"]], object), BYTES)])
    assert isinstance(joined, Tensors)
    assert joined.items[0].array.tolist() == [[b"a", b"a"], [b"b", b"c"]]
