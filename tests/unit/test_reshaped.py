"""A model whose tensors have other shapes than its clients see."""

import numpy as np
import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import Call, ModelSpec
from dragoman.core.tensors import FP32, INT64, Rows, Shape, Signature, Tensor, Tensors, TensorSpec
from dragoman.hosting.reshaped import inner_spec, outer_model
from tests.fakes import FakeModel

INNER = Signature(
    inputs=(TensorSpec("x", FP32, (-1, 4)), TensorSpec("n", INT64, (-1,))), outputs=(TensorSpec("y", FP32, (-1, 4)),), reads=frozenset("t")
)
OUTER = Signature(
    inputs=(TensorSpec("x", FP32, (-1, 2, 2)), TensorSpec("n", None, (-1,))), outputs=(TensorSpec("y", None, (-1, 2, 2)),), batch=True
)
SPEC = ModelSpec("m", signature=OUTER, input_reshapes={"x": (-1, 4)}, output_reshapes={"y": (-1, 4)})


class Echo(FakeModel):
    """Gives back its first tensor as y in a chosen shape, and keeps what it was called with."""

    def __init__(self, shape: Shape | None = None, answer: Rows | None = None) -> None:
        super().__init__(signature=INNER)
        self.seen: list[Shape] = []
        self._shape = shape
        self._answer = answer

    def predict(self, call: Call) -> Tensors | Rows:
        if self._answer is not None:
            return self._answer
        assert isinstance(call.inputs, Tensors)
        self.seen += [t.array.shape for t in call.inputs.items]
        array = call.inputs.items[0].array
        return Tensors([Tensor("y", FP32, array if self._shape is None else array.reshape(self._shape))])


def call(*shape: int) -> Call:
    return Call(Tensors([Tensor("x", FP32, np.zeros(shape, "f4")), Tensor("n", INT64, np.zeros(shape[:1], "i8"))]))


def test_the_model_is_loaded_with_its_own_shapes() -> None:
    """Only the tensors that are reshaped change in what the runtime gets."""
    inner = inner_spec(SPEC).signature
    assert inner is not None
    assert [t.shape for t in (*inner.inputs, *inner.outputs)] == [(-1, 4), (-1,), (-1, 4)]
    assert inner.batch


def test_without_reshapes_nothing_is_wrapped() -> None:
    """The model itself is called."""
    plain, model = ModelSpec("m", signature=OUTER), FakeModel()
    assert inner_spec(plain) is plain
    assert outer_model(model, plain) is model
    assert outer_model(model, ModelSpec("m", input_reshapes={"x": (4,)})) is model


def test_clients_see_the_declared_shapes() -> None:
    """Datatypes that the declaration leaves out are the model's, and so are the parameters that it reads."""
    model = outer_model(Echo(), SPEC)
    seen = model.signatures[""]
    assert [t.shape for t in (*seen.inputs, *seen.outputs)] == [(-1, 2, 2), (-1,), (-1, 2, 2)]
    assert [t.datatype for t in (*seen.inputs, *seen.outputs)] == [FP32, INT64, FP32]
    assert (seen.batch, seen.reads) == (True, frozenset("t"))
    assert (model.platform, model.operations, model.concurrent) == ("fake", frozenset({"predict"}), True)


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_tensors_are_reshaped_both_ways(rows: int) -> None:
    """In any batch, an empty one too."""
    echo = Echo()
    outputs = outer_model(echo, SPEC).predict(call(rows, 2, 2))
    assert isinstance(outputs, Tensors)
    assert echo.seen == [(rows, 4), (rows,)]
    assert outputs.items[0].array.shape == (rows, 2, 2)


def test_an_input_that_does_not_fit_is_the_clients_fault() -> None:
    """It can come where shapes are not checked before."""
    with pytest.raises(ServingError, match=r"input 'x' of model 'm' has shape \[1, 3\], which cannot become \[-1, 4\]") as caught:
        outer_model(Echo(), SPEC).predict(call(1, 3))
    assert caught.value.kind is Kind.INVALID_INPUT


def test_an_output_that_does_not_fit_is_the_models_fault() -> None:
    """The declared shape is a promise to clients."""
    with pytest.raises(ServingError, match=r"output 'y' of model 'm' has shape \[1, 3\], which cannot become \[-1, 2, 2\]") as caught:
        outer_model(Echo((1, 3)), SPEC).predict(Call(Tensors([Tensor("z", FP32, np.zeros(3, "f4"))])))
    assert caught.value.kind is Kind.MODEL_FAILED


def test_rows_pass_through() -> None:
    """There is nothing to reshape."""
    answer = Rows([1])
    assert outer_model(Echo(answer=answer), SPEC).predict(Call(Rows([0]))) is answer


def test_closing_closes_the_model() -> None:
    """The wrapper holds nothing itself."""
    echo = Echo()
    outer_model(echo, SPEC).close()
    assert echo.closed
