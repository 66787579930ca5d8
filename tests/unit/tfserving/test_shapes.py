"""Shapes are the model's business, with one courtesy: a last dimension of 1 may be left out."""

from typing import Any

import numpy as np
import pytest

from dragoman.core import tensors as t
from dragoman.core.tensors import Shape, Tensors, TensorSpec
from tests.fakes_tfs import Client, Toy, half_plus, signature


def summing(shape: Shape | None, *outputs: tuple[str, Shape | None, Shape]) -> Toy:
    """Takes `x` of a declared shape; answers zeros for each (name, declared shape, shape)."""
    made = [t.Tensor(name, t.FP32, np.zeros(actual, "f4")) for name, _, actual in outputs]
    specs = [TensorSpec(name, t.FP32, declared) for name, declared, _ in outputs]
    return Toy({"": signature([TensorSpec("x", t.FP32, shape)], specs)}, lambda _, __: made)


def fed_shape(toy: Toy) -> Shape:
    inputs = toy.seen[-1].inputs
    assert isinstance(inputs, Tensors)
    return tuple(inputs.items[0].array.shape)


@pytest.mark.parametrize("key", ["instances", "inputs"])
def test_the_documented_example(key: str) -> None:
    """[1.0, 2.0, 5.0] to an input declared [-1, 1] is answered [2.5, 3.0, 4.5], though the model insists on its rank."""
    reply = Client({"half_plus_two": half_plus(2)}).predict("half_plus_two", {key: [1.0, 2.0, 5.0]})
    assert reply.status == 200
    assert reply.json == {"predictions" if key == "instances" else "outputs": [2.5, 3.0, 4.5]}


@pytest.mark.parametrize(
    ("declared", "given", "fed"),
    [
        pytest.param((-1, 1), [1, 2, 3], (3, 1), id="last-one-is-added"),
        pytest.param((3, 1), [1, 2, 3], (3, 1), id="fixed-size"),
        pytest.param((-1, 2, 1), [[1, 2]], (1, 2, 1), id="rank-three"),
        pytest.param((1,), 5, (1,), id="scalar"),
        pytest.param((-1, 1), [[1], [2]], (2, 1), id="declared-rank-stays"),
        pytest.param((-1, 1), [], (0, 1), id="nothing"),
        pytest.param((2, 1), [1, 2, 3], (3,), id="other-sizes-do-not-fit"),
        pytest.param((-1, 4), [1, 2, 3, 4], (4,), id="last-is-not-one"),
        pytest.param((-1, -1), [1, 2, 3], (3,), id="last-is-unknown"),
        pytest.param((-1, 1, 1), [1, 2, 3], (3,), id="two-are-missing"),
        pytest.param((1, -1), [1, 2, 3], (3,), id="first-is-missing"),
        pytest.param(None, [1, 2, 3], (3,), id="unknown-rank"),
        pytest.param((), 5, (), id="declared-scalar"),
    ],
)
def test_what_is_widened(declared: Shape | None, given: Any, fed: Shape) -> None:
    """Exactly one dimension is added, at the end, and only where the signature says it is 1 and the others fit."""
    toy = summing(declared, ("y", None, (1,)))
    assert Client({"m": toy}).predict("m", {"inputs": given}).status == 200
    assert fed_shape(toy) == fed


@pytest.mark.parametrize(
    ("declared", "answered", "expected"),
    [
        pytest.param((-1, 1), (3, 1), [0.0, 0.0, 0.0], id="taken-off"),
        pytest.param((-1, 2), (3, 2), [[0.0, 0.0]] * 3, id="other-outputs-stay"),
        pytest.param((-1, -1), (3, 1), [[0.0]] * 3, id="only-declared-ones"),
        pytest.param((-1, 1, 1), (3, 1, 1), [[[0.0]]] * 3, id="only-of-the-input's-rank"),
        pytest.param(None, (3, 1), [[0.0]] * 3, id="unknown-rank-stays"),
        pytest.param((-1, 1), (3,), [0.0, 0.0, 0.0], id="model-answers-another-rank"),
        pytest.param((-1, 1), (3, 2), [[0.0, 0.0]] * 3, id="model-answers-another-size"),
    ],
)
def test_what_is_narrowed(declared: Shape | None, answered: Shape, expected: Any) -> None:
    """After a dimension was added, it is taken from the outputs that are declared with it."""
    client = Client({"m": summing((-1, 1), ("y", declared, answered))})
    assert client.predict("m", {"inputs": [1, 2, 3]}).json == {"outputs": expected}


def test_graphs_are_fed_what_came() -> None:
    """A SavedModel's graph takes the short shape itself, and its outputs are answered as they come."""
    toy = summing((-1, 1), ("y", (-1, 1), (3, 1)))
    toy.platform = "tensorflow_savedmodel"
    assert Client({"m": toy}).predict("m", {"instances": [1.0, 2.0, 5.0]}).json == {"predictions": [[0.0], [0.0], [0.0]]}
    assert fed_shape(toy) == (3,)


def test_nothing_is_narrowed_after_a_full_shape() -> None:
    """Whoever sends the declared rank gets the model's shapes."""
    client = Client({"m": summing((-1, 1), ("y", (-1, 1), (3, 1)))})
    assert client.predict("m", {"inputs": [[1], [2], [3]]}).json == {"outputs": [[0.0]] * 3}


def test_every_output_is_looked_at() -> None:
    """Several outputs, of which one has the dimension."""
    client = Client({"m": summing((-1, 1), ("a", (-1, 1), (2, 1)), ("b", (-1, 2), (2, 2)), ("c", (-1,), (2,)))})
    assert client.predict("m", {"instances": [1, 2]}).json == {"predictions": [{"a": 0.0, "b": [0.0, 0.0], "c": 0.0}] * 2}


def test_one_of_several_inputs_is_widened() -> None:
    """Each input is looked at by itself."""
    toy = Toy(
        {"": signature([TensorSpec("a", t.FP32, (-1, 1)), TensorSpec("b", t.FP32, (-1, 2))], [])},
        lambda inputs, _: inputs.items[:1],
    )
    assert Client({"m": toy}).predict("m", {"instances": [{"a": 1, "b": [1, 2]}]}).status == 200
    inputs = toy.seen[-1].inputs
    assert isinstance(inputs, Tensors)
    assert [each.array.shape for each in inputs.items] == [(1, 1), (1, 2)]


def test_shapes_that_do_not_fit_reach_the_model() -> None:
    """The model's own complaint is the answer, as 400."""
    reply = Client({"m": half_plus(2)}).predict("m", {"instances": [[1.0, 2.0]]})
    assert (reply.status, reply.error) == (400, "input 'x' has shape [1, 2], expected [-1, 1]")
