"""A configuration's signature laid over the artifact's own."""

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import ModelSpec
from dragoman.core.tensors import BYTES, FP32, INT64, Signature, TensorSpec
from dragoman.runtimes.signatures import settle

OWN = Signature(
    inputs=(TensorSpec("x", FP32, (-1, 4)), TensorSpec("scale", FP32, (1,), optional=True)),
    outputs=(TensorSpec("label", INT64, (-1,)), TensorSpec("scores", FP32, (-1, 3), labels=("a", "b", "c"), native="s:0")),
    batch=False,
)
X = TensorSpec("x", FP32, (-1, 4))


def settled(declared: Signature | None, own: Signature = OWN) -> Signature:
    return settle(ModelSpec("m", signature=declared), own)


def refusal(declared: Signature, own: Signature = OWN) -> str:
    with pytest.raises(ServingError) as caught:
        settled(declared, own)
    assert caught.value.kind is Kind.INVALID_INPUT
    assert "'m'" in caught.value.message
    return caught.value.message


def test_nothing_declared() -> None:
    """Then the artifact's own signature is served."""
    assert settled(None) is OWN


def test_empty_parts_are_taken_from_the_artifact() -> None:
    """A configuration that names no inputs, or no outputs, leaves them as they are."""
    result = settled(Signature(outputs=(TensorSpec("label", None, None),)))
    assert result.inputs == OWN.inputs
    assert result.outputs == (TensorSpec("label", INT64, (-1,)),)


def test_declared_outputs_hide_the_others() -> None:
    """A subset may be declared, in another order."""
    result = settled(Signature(inputs=(X,), outputs=(TensorSpec("scores", FP32, (-1, 3)),)))
    assert [t.name for t in result.outputs] == ["scores"]
    assert [t.name for t in result.inputs] == ["x"]


def test_declared_details_win() -> None:
    """Fixed dimensions and labels that are declared are used; what is not declared stays."""
    own = Signature(inputs=(TensorSpec("x", FP32, (-1, -1)),), outputs=OWN.outputs)
    declared = Signature(inputs=(TensorSpec("x", FP32, (-1, 7)),), outputs=(TensorSpec("scores", FP32, (-1, -1), labels=("d", "e", "f")),))
    result = settled(declared, own)
    assert result.inputs[0].shape == (-1, 7)
    assert result.outputs[0] == TensorSpec("scores", FP32, (-1, 3), labels=("d", "e", "f"), native="s:0")


def test_open_details_are_filled_from_either_side() -> None:
    """What one side leaves open the other side says."""
    own = Signature(inputs=(TensorSpec("x", None, None, native="arg"),), outputs=(TensorSpec("y", FP32, (-1, 2)),))
    declared = Signature(inputs=(TensorSpec("x", FP32, (-1, 4)),), outputs=(TensorSpec("y", None, None),))
    result = settled(declared, own)
    assert result.inputs == (TensorSpec("x", FP32, (-1, 4), native="arg"),)
    assert result.outputs == (TensorSpec("y", FP32, (-1, 2)),)


def test_optional_stays_optional() -> None:
    """An optional input that is declared is optional, whether the configuration says so or not."""
    for said in (True, False):
        result = settled(Signature(inputs=(X, TensorSpec("scale", FP32, (1,), optional=said))))
        assert result.inputs[1].optional


def test_declared_batch_flag_is_used() -> None:
    """The configuration knows whether requests may be joined."""
    own = Signature(inputs=(X,), outputs=(TensorSpec("label", INT64, (-1,)),), batch=True)
    assert settled(Signature(batch=False), own).batch is False
    assert settled(Signature(batch=True), own).batch is True
    assert settled(Signature(inputs=(X,), batch=True)).batch is True


@pytest.mark.parametrize(
    ("declared", "says"),
    [
        (Signature(inputs=(X, TensorSpec("z", FP32, (1,)))), "declares the input 'z', which the model lacks; its inputs are 'x', 'scale'"),
        (
            Signature(outputs=(TensorSpec("z", FP32, (1,)),)),
            "declares the output 'z', which the model lacks; its outputs are 'label', 'scores'",
        ),
        (Signature(inputs=(TensorSpec("x", INT64, (-1, 4)),)), "the input 'x' with datatype INT64, but the model has FP32"),
        (Signature(outputs=(TensorSpec("label", BYTES, (-1,)),)), "the output 'label' with datatype BYTES, but the model has INT64"),
        (Signature(inputs=(TensorSpec("x", FP32, (-1, 5)),)), "the input 'x' with shape [-1, 5], but the model has [-1, 4]"),
        (Signature(inputs=(TensorSpec("x", FP32, (4,)),)), "the input 'x' with shape [4], but the model has [-1, 4]"),
        (Signature(inputs=(TensorSpec("x", FP32, (-1, 4), optional=True),)), "the input 'x' as optional, but the model has required"),
        (Signature(inputs=(TensorSpec("scale", FP32, (1,)),)), "does not declare the input 'x', which the model needs"),
    ],
)
def test_contradictions(declared: Signature, says: str) -> None:
    """Each is refused with the tensor and both sides."""
    assert says in refusal(declared)


def test_a_batch_axis_must_be_variable() -> None:
    """Batching that the file cannot do is refused, for inputs and for outputs; tensors that are not served do not matter."""
    fixed_input = Signature(inputs=(TensorSpec("x", FP32, (1, 4)),), outputs=(TensorSpec("y", FP32, (-1,)),))
    assert "the input 'x' has the shape [1, 4]" in refusal(Signature(batch=True), fixed_input)
    fixed_output = Signature(inputs=(X,), outputs=(TensorSpec("y", FP32, (2,)), TensorSpec("z", FP32, (-1,))))
    assert "the output 'y' has the shape [2]" in refusal(Signature(batch=True), fixed_output)
    scalar = Signature(inputs=(X,), outputs=(TensorSpec("y", FP32, ()),))
    assert "the output 'y' has the shape []" in refusal(Signature(batch=True), scalar)
    assert settled(Signature(outputs=(TensorSpec("z", FP32, (-1,)),), batch=True), fixed_output).batch
    unknown = Signature(inputs=(X,), outputs=(TensorSpec("y", FP32, None),))
    assert settled(Signature(batch=True), unknown).batch


def test_more_is_carried_along() -> None:
    """What the configuration adds for clients stays: schemas, the method's name, the parameters that the model reads."""
    declared = Signature(input_schema={"type": "object"}, method="predict", reads=frozenset({"a"}))
    result = settled(declared)
    assert result.input_schema == {"type": "object"}
    assert result.method == "predict"
    assert result.reads == {"a"}
    own = Signature(reads=frozenset({"b"}), options=("c",))
    assert settled(Signature(), own).reads == {"b"}
    assert settled(Signature(), own).options == ("c",)
