"""Requests against signatures: what fits passes, and what does not is refused in words that name the model and the tensor."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.checks import check, fits
from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import InferRequest
from dragoman.core.tensors import BF16, BYTES, DATATYPES, FP32, INT64, UINT16, Datatype, Rows, Signature, Tensor, Tensors, TensorSpec

PAIR = Signature(
    inputs=(TensorSpec("x", FP32, (-1, 2)), TensorSpec("n", INT64, (-1,)), TensorSpec("scale", FP32, (1,), optional=True)),
    outputs=(TensorSpec("y", FP32, (-1, 2)), TensorSpec("z", FP32, (-1,))),
)
ONE = Signature(inputs=(TensorSpec("x", FP32, (-1, 2)),), outputs=(TensorSpec("y", FP32, (-1, 2)),), batch=True)
TWO = Signature(inputs=(TensorSpec("a", FP32, (-1, 2)), TensorSpec("b", BYTES, (-1,))), batch=True)


def tensor(name: str, shape: tuple[int, ...], datatype: Datatype = FP32) -> Tensor:
    return Tensor(name, datatype, np.zeros(shape, datatype.numpy))


def ask(*tensors: Tensor, **fields: Any) -> InferRequest:
    return InferRequest(Tensors(list(tensors)), **fields)


def refused(request: InferRequest, signature: Signature, max_size: int = 0, what: str = "") -> str:
    """The message of the refusal."""
    with pytest.raises(ServingError) as caught:
        check(request, signature, "m", max_size)
    assert caught.value.kind is Kind.INVALID_INPUT
    assert caught.value.what == what
    assert "'m'" in caught.value.message
    return caught.value.message


FITTING = {
    "exact": (ask(tensor("x", (3, 2))), ONE),
    "no rows": (ask(tensor("x", (0, 2))), ONE),
    "optional left out": (ask(tensor("x", (3, 2)), tensor("n", (7,), INT64)), PAIR),
    "any order": (ask(tensor("n", (7,), INT64), tensor("x", (3, 2))), PAIR),
    "optional given": (ask(tensor("x", (3, 2)), tensor("n", (0,), INT64), tensor("scale", (1,))), PAIR),
    "two": (ask(tensor("a", (3, 2)), tensor("b", (3,), BYTES)), TWO),
    "wanted output": (ask(tensor("x", (3, 2)), outputs=("y",)), ONE),
    "scalar": (ask(tensor("x", ())), Signature(inputs=(TensorSpec("x", FP32, ()),))),
    "unknown rank": (ask(tensor("x", (1, 2, 3))), Signature(inputs=(TensorSpec("x", FP32, None),))),
    "any datatype": (ask(tensor("x", (1,), BYTES)), Signature(inputs=(TensorSpec("x", None, (-1,)),))),
    "nothing declared": (ask(tensor("anything", (1,)), outputs=("any",)), Signature()),
    "rows": (InferRequest(Rows([1, "a"])), ONE),
}


@pytest.mark.parametrize(("request_", "signature"), FITTING.values(), ids=FITTING)
def test_what_fits_passes(request_: InferRequest, signature: Signature) -> None:
    """None of these is refused."""
    check(request_, signature, "m")


def test_an_unknown_input_is_named_with_those_that_exist() -> None:
    """A typing error is seen at once."""
    assert refused(ask(tensor("X", (1, 2))), ONE) == "model 'm' has no input 'X'; its inputs are 'x'"


def test_a_wrong_datatype_is_named_with_the_right_one() -> None:
    """Datatypes are compared, not their layouts: BF16 is not UINT16."""
    assert refused(ask(tensor("x", (1, 2), INT64)), ONE) == "input 'x' of model 'm' has datatype INT64, expected FP32"
    bits = Signature(inputs=(TensorSpec("x", BF16, (-1,)),))
    assert "has datatype UINT16, expected BF16" in refused(ask(tensor("x", (1,), UINT16)), bits)


@pytest.mark.parametrize("shape", [(2,), (1, 3), (1, 2, 1), (), (1, 0)])
def test_a_wrong_shape_is_shown_beside_the_right_one(shape: tuple[int, ...]) -> None:
    """Rank and every fixed dimension count; the message says what -1 means."""
    message = refused(ask(tensor("x", shape)), ONE)
    assert message.startswith(f"input 'x' of model 'm' has shape {list(shape)}, expected [-1, 2]")
    assert "the first is the batch" in message


def test_unequal_batches_are_refused() -> None:
    """Both tensors and both sizes are named."""
    message = refused(ask(tensor("a", (3, 2)), tensor("b", (2,), BYTES)), TWO)
    assert message == "inputs of model 'm' disagree on the batch size: 'b' has 2, 'a' has 3"


def test_first_dimensions_of_a_model_without_batches_may_differ() -> None:
    """They are no batch."""
    check(ask(tensor("x", (5, 2)), tensor("n", (1,), INT64)), PAIR, "m")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ([tensor("x", (1, 2))], "model 'm' needs the input 'n', which the request lacks"),
        ([], "model 'm' needs the inputs 'x', 'n', which the request lacks"),
        ([tensor("x", (1, 2)), tensor("scale", (1,))], "model 'm' needs the input 'n', which the request lacks"),
    ],
    ids=["one", "all", "as many as are needed but not the right ones"],
)
def test_missing_inputs_are_named(tensors: list[Tensor], message: str) -> None:
    """All that are missing, but not the optional ones."""
    assert refused(ask(*tensors), PAIR) == message


def test_an_unknown_output_is_named_with_those_that_exist() -> None:
    """Dialects answer this differently, so it says that it is about an output."""
    message = refused(ask(tensor("x", (1, 2)), tensor("n", (1,), INT64), outputs=("y", "w")), PAIR, what="output")
    assert message == "model 'm' has no output 'w'; its outputs are 'y', 'z'"


@pytest.mark.parametrize(("rows", "problem"), [(5, "batch size 5 for model 'm' is above its max_batch_size 4"), (0, "at least 1")])
def test_the_largest_batch(rows: int, problem: str) -> None:
    """Where a configuration bounds the batch, more and none are refused, and the bound itself is not."""
    assert problem in refused(ask(tensor("x", (rows, 2))), ONE, max_size=4)
    check(ask(tensor("x", (4, 2))), ONE, "m", 4)
    check(ask(tensor("x", (1, 2))), ONE, "m", 4)


def test_the_largest_batch_is_no_matter_of_models_without_batches() -> None:
    """There the first dimension is just a dimension."""
    check(ask(tensor("x", (9, 2)), tensor("n", (9,), INT64)), PAIR, "m", 4)


def test_shapes_can_be_left_to_the_model() -> None:
    """TensorFlow Serving's clients may send other shapes; names and datatypes still count."""
    check(ask(tensor("x", (2,)), strict=False), ONE, "m")
    check(ask(tensor("a", (3, 9)), tensor("b", (2,), BYTES), strict=False), TWO, "m", 1)
    assert "datatype" in refused(ask(tensor("x", (2,), INT64), strict=False), ONE)
    assert "no input" in refused(ask(tensor("y", (2,)), strict=False), ONE)


def test_names_come_before_datatypes_and_shapes() -> None:
    """Of several faults the first in this order is told: it is the likeliest cause of the others."""
    assert "datatype" in refused(ask(tensor("x", (9,), INT64)), ONE)
    assert "no input" in refused(ask(tensor("y", (9,), INT64)), ONE)


@given(st.lists(st.integers(0, 2**63 - 1), max_size=4), st.lists(st.integers(-1, 2**63 - 1), max_size=4))
def test_fitting_is_dimension_by_dimension(shape: list[int], declared: list[int]) -> None:
    """Equal rank, and each dimension equal or free; numbers of any size."""
    expected = len(shape) == len(declared) and all(d in (-1, s) for s, d in zip(shape, declared, strict=True))
    assert fits(tuple(shape), tuple(declared)) == expected


@given(
    st.lists(st.tuples(st.sampled_from("xyn"), st.sampled_from(list(DATATYPES.values())), st.lists(st.integers(0, 3), max_size=3))),
    st.sampled_from([ONE, TWO, PAIR]),
    st.booleans(),
    st.integers(0, 2),
)
def test_nothing_but_a_refusal_comes_of_any_request(
    given_: list[tuple[str, Datatype, list[int]]], signature: Signature, strict: bool, max_size: int
) -> None:
    """Any tensors pass or are INVALID_INPUT naming the model; nothing crashes."""
    tensors = {name: tensor(name, tuple(shape), datatype) for name, datatype, shape in given_}
    request_ = ask(*tensors.values(), strict=strict)
    refusal = None
    try:
        check(request_, signature, "the model", max_size)
    except ServingError as error:
        refusal = error
    if refusal is None:
        assert {s.name for s in signature.inputs if not s.optional} <= set(tensors)
    else:
        assert refusal.kind is Kind.INVALID_INPUT
        assert "'the model'" in refusal.message
