"""Warm-up: what a model is run with before it is ready, what that teaches about its cost, and which failures count."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import Call, ModelSpec
from dragoman.core.tensors import BF16, BYTES, FP32, INT64, Datatype, Form, Rows, Shape, Signature, Tensors, TensorSpec
from dragoman.hosting.warmup import warm_up
from tests.fakes import FakeModel


class Noting(FakeModel):
    """Keeps what it is called with, spoils its inputs, and may fail."""

    def __init__(self, *inputs: TensorSpec, error: Exception | None = None, form: Form = Form.TENSORS) -> None:
        super().__init__(signature=Signature(form=form, inputs=inputs))
        self.error = error
        self.seen: list[tuple[str, dict[str, Any]]] = []

    def predict(self, call: Call) -> Tensors | Rows:
        assert isinstance(call.inputs, Tensors)
        self.seen.append((call.signature, {t.name: t.array.tolist() for t in call.inputs.items}))
        for tensor in call.inputs.items:
            assert tensor.array.flags.writeable
            tensor.array[...] = b"x" if tensor.datatype is BYTES else 1
        if self.error is not None:
            raise self.error
        return call.inputs


def warm(model: Noting, *samples: Mapping[str, Any]) -> list[int]:
    """Warm the model up; returns the sizes for which a cost was learned."""
    learned: list[tuple[int, int]] = []
    warm_up(model, ModelSpec("m", warmup=samples), lambda elements, took_ns: learned.append((elements, took_ns)))
    assert all(took_ns > 0 for _, took_ns in learned)
    return [elements for elements, _ in learned]


def refused(model: Noting, sample: Any) -> ServingError:
    with pytest.raises(ServingError) as caught:
        warm(model, sample)
    assert "warm-up sample 0" in caught.value.message
    assert "'m'" in caught.value.message
    return caught.value


# --- generated samples ---


def test_a_sample_is_made_from_the_signature() -> None:
    """Zeros of one row, run several times; a model that writes into its inputs gets fresh ones each time."""
    model = Noting(TensorSpec("a", FP32, (-1, 2)), TensorSpec("b", BYTES, (-1,)), TensorSpec("c", None, ()))
    assert warm(model) == [4]
    assert len(model.seen) > 1
    assert all(seen == ("", {"a": [[0.0, 0.0]], "b": [b""], "c": 0.0}) for seen in model.seen)


def test_every_signature_is_run_once() -> None:
    """Two names of one signature are one; rows have no sample."""
    model = Noting(TensorSpec("a", FP32, (1,)))
    model.signatures = {
        "": model.signatures[""],
        "same": model.signatures[""],
        "other": Signature(inputs=(TensorSpec("b", INT64, (1,)),)),
        "rows": Signature(form=Form.ROWS),
    }
    warm(model)
    assert {name for name, _ in model.seen} == {"", "other"}


@pytest.mark.parametrize("shape", [None, (2**40,), (2**20, 2**20), (1 << 26,)])
def test_what_cannot_be_made_is_not_run(shape: Shape | None) -> None:
    """Unknown rank, and more elements than a machine should be filled with: no call, no allocation, no complaint."""
    model = Noting(TensorSpec("a", FP32, shape))
    assert warm(model) == []
    assert model.seen == []


def test_inputs_are_large_together() -> None:
    """Each alone would do, all of them would not."""
    model = Noting(*(TensorSpec(str(i), FP32, (1 << 23,)) for i in range(8)))
    assert warm(model) == []


def test_a_generated_sample_may_fail(caplog: pytest.LogCaptureFixture) -> None:
    """Zeros need not be valid input: the log says so, and loading goes on."""
    model = Noting(TensorSpec("a", FP32, (1,)), error=ZeroDivisionError("of zeros"))
    with caplog.at_level(logging.WARNING, "dragoman.hosting"):
        assert warm(model) == []
    assert "refused the generated warm-up sample" in caplog.text
    assert "of zeros" in caplog.text


# --- stored samples ---


@pytest.mark.parametrize(
    ("datatype", "value", "expected"),
    [
        (FP32, [[1, 2.5]], [[1.0, 2.5]]),
        (FP32, np.array([[1, 2]], "f4"), [[1.0, 2.0]]),
        (INT64, 7, 7),
        (BF16, np.array([[1]], "u2"), [[1]]),
        (BYTES, [["a", "é"]], [[b"a", b"\xc3\xa9"]]),
        (BYTES, [b"a\0"], [b"a\0"]),
        (BYTES, "text", b"text"),
        (BYTES, np.array([b"x"], dtype=object), [b"x"]),
        (BYTES, [], []),
    ],
)
def test_stored_samples_are_run_instead(datatype: Datatype, value: Any, expected: Any) -> None:
    """Lists as JSON has them or arrays, in the datatype of the model; texts are UTF-8."""
    model = Noting(TensorSpec("a", datatype, None))
    assert len(warm(model, {"inputs": {"a": value}})) == 1
    assert model.seen[0] == ("", {"a": expected})


def test_a_sample_that_is_shared_is_not_spoiled() -> None:
    """Triton's samples are read-only views of one row: the model gets copies."""
    value = np.broadcast_to(np.zeros((1, 2), "f4"), (3, 2))
    model = Noting(TensorSpec("a", FP32, (-1, 2)))
    warm(model, {"inputs": {"a": value}})
    assert value.tolist() == [[0.0, 0.0]] * 3
    assert all(seen["a"] == [[0.0, 0.0]] * 3 for _, seen in model.seen)


@pytest.mark.parametrize(("count", "least", "most"), [(0, 2, 10), (1, 2, 10), (50, 50, 50), (10**9, 100, 10_000)])
def test_how_often_a_sample_is_run(count: int, least: int, most: int) -> None:
    """As often as it asks for, within bounds, and never only once: the first run says nothing about the others."""
    model = Noting(TensorSpec("a", FP32, (1,)))
    warm(model, {"inputs": {"a": [0]}, "count": count})
    assert least <= len(model.seen) <= most


def test_samples_of_other_signatures() -> None:
    """A sample names its signature."""
    model = Noting(TensorSpec("a", FP32, (1,)))
    model.signatures = {**model.signatures, "other": model.signatures[""]}
    warm(model, {"inputs": {"a": [0]}}, {"inputs": {"a": [1]}, "signature": "other"})
    assert list(dict.fromkeys(name for name, _ in model.seen)) == ["", "other"]


@pytest.mark.parametrize(
    ("error", "reason"), [(ServingError(Kind.INVALID_INPUT, "too cold"), "too cold"), (KeyError("x"), "KeyError: 'x'")]
)
def test_a_stored_sample_that_fails_fails_the_load(error: Exception, reason: str) -> None:
    """Its author says that the model must answer it."""
    found = refused(Noting(TensorSpec("a", FP32, (1,)), error=error), {"inputs": {"a": [0]}})
    assert found.kind is Kind.MODEL_FAILED
    assert found.message.endswith(f"failed: {reason}")


WRONG: Sequence[tuple[Any, str]] = [
    ([], "is not an object with 'inputs'"),
    ({}, "is not an object with 'inputs'"),
    ({"inputs": [1]}, "is not an object with 'inputs'"),
    ({"inputs": {"a": [0]}, "signature": "none"}, "names a signature that does not exist"),
    ({"inputs": {"b": [0]}}, "names the input 'b'"),
    ({"inputs": {"a": [[1], [2, 3]]}}, "the input 'a' is no FP32 tensor"),
    ({"inputs": {"a": ["x"]}}, "the input 'a' is no FP32 tensor"),
    ({"inputs": {"a": {"x": 1}}}, "the input 'a' is no FP32 tensor"),
    ({"inputs": {"t": [[b"x"], [b"y", b"z"]]}}, "the input 't' is no BYTES tensor"),
    ({"inputs": {"t": [1]}}, "the input 't' is no BYTES tensor"),
]


@pytest.mark.parametrize(("sample", "message"), WRONG)
def test_samples_that_are_none(sample: Any, message: str) -> None:
    """Refused before the model is called, naming the sample and the input."""
    model = Noting(TensorSpec("a", FP32, None), TensorSpec("t", BYTES, None))
    found = refused(model, sample)
    assert found.kind is Kind.INVALID_INPUT
    assert message in found.message
    assert model.seen == []
