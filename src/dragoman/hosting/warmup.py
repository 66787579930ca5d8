"""Run a model before it is READY, with stored samples where the spec brings them and generated ones otherwise. Called while loading.

The first runs of a model allocate, compile and page in; users should not wait for that. What the later runs take tells the servable whether
the model is slow enough to deserve a thread.
"""

import logging
import time
from collections.abc import Callable, Iterator

import numpy as np

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import Call, Model, ModelSpec
from dragoman.core.samples import concrete
from dragoman.core.tensors import BYTES, FP32, Array, Datatype, Form, Shape, Signature, Tensor, Tensors, element_count

log = logging.getLogger("dragoman.hosting")

_RUNS = 4
_MOST_RUNS = 1000
_LARGEST = 64 << 20
"""Generated samples stay below this many elements: a signature may declare more than the machine has."""


def warm_up(model: Model, spec: ModelSpec, record: Callable[[int, int], None]) -> None:
    """Run each sample a few times; report (elements, nanoseconds) of the fastest run to `record`: noise only ever makes a run slower.

    A stored sample that fails raises: its author says that the model must answer it. A generated one that fails is logged only: zeros may
    simply not be valid input for this model.
    """
    if spec.warmup:
        for index, sample in enumerate(spec.warmup):
            call = _stored(model, sample, index, spec.name)
            try:
                _run(model, call, record, min(int(sample.get("count") or 1), _MOST_RUNS))
            except Exception as error:
                reason = error.message if isinstance(error, ServingError) else f"{type(error).__name__}: {error}"
                raise ServingError(Kind.MODEL_FAILED, f"warm-up sample {index} of model '{spec.name}' failed: {reason}") from error
        return
    for name, call in _generated(model):
        try:
            _run(model, call, record)
        except Exception as error:  # any framework's own exception means the same here
            assert isinstance(call.inputs, Tensors)
            log.log(
                # hardly any model understands an empty text: a serialized Example, a picture
                logging.DEBUG if any(t.datatype is BYTES for t in call.inputs.items) else logging.WARNING,
                "model '%s' refused the generated warm-up sample%s, so its first requests will be slower: %s",
                spec.name,
                f" for signature '{name}'" if name else "",
                " ".join(str(error).split()),
            )


def _run(model: Model, call: Call, record: Callable[[int, int], None], runs: int = 1) -> None:
    assert isinstance(call.inputs, Tensors)
    elements = sum(t.array.size for t in call.inputs.items)
    fastest_ns = 0
    for run in range(max(_RUNS, runs)):
        # A model owns its inputs and may change them: every run gets its own.
        fresh = Tensors([Tensor(t.name, t.datatype, t.array.copy()) for t in call.inputs.items])
        begin = time.monotonic_ns()
        model.predict(Call(fresh, call.operation, call.signature))
        took_ns = time.monotonic_ns() - begin
        if run:  # the first run allocates and compiles
            fastest_ns = min(fastest_ns or took_ns, took_ns)
    record(elements, fastest_ns)


def _stored(model: Model, sample: object, index: int, name: str) -> Call:
    if not isinstance(sample, dict) or not isinstance(sample.get("inputs"), dict):
        raise ServingError(Kind.INVALID_INPUT, f"warm-up sample {index} of model '{name}' is not an object with 'inputs'")
    signature = model.signatures.get(sample.get("signature", ""))
    if signature is None:
        raise ServingError(Kind.INVALID_INPUT, f"warm-up sample {index} of model '{name}' names a signature that does not exist")
    tensors = []
    for key, value in sample["inputs"].items():
        spec = signature.input_by_name.get(key)
        if spec is None or spec.datatype is None:
            raise ServingError(Kind.INVALID_INPUT, f"warm-up sample {index} names the input '{key}', which model '{name}' does not have")
        try:
            tensors.append(Tensor(key, spec.datatype, _array(value, spec.datatype)))
        except (TypeError, ValueError, OverflowError) as error:
            raise ServingError(
                Kind.INVALID_INPUT, f"warm-up sample {index} of model '{name}': the input '{key}' is no {spec.datatype} tensor: {error}"
            ) from error
    return Call(Tensors(tensors), signature=sample.get("signature", ""))


def _array(value: object, datatype: Datatype) -> Array:
    """A tensor from an array or nested lists; texts become the bytes of their UTF-8."""
    array: Array = np.array(value, dtype=datatype.numpy)
    if datatype is not BYTES:
        return array
    flat = [element.encode() if isinstance(element, str) else element for element in array.ravel()]
    if not all(isinstance(element, bytes) for element in flat):
        raise TypeError("expected texts or bytes of one shape")
    encoded: Array = np.empty(len(flat), dtype=object)
    encoded[:] = flat
    return encoded.reshape(array.shape)


def _generated(model: Model) -> Iterator[tuple[str, Call]]:
    seen: list[Signature] = []
    for name, signature in model.signatures.items():
        if signature.form is not Form.TENSORS or signature in seen:
            continue
        seen.append(signature)
        shapes = [concrete(s) for s in signature.inputs]
        if any(shape is None for shape in shapes) or sum(element_count(shape or ()) for shape in shapes) >= _LARGEST:
            continue
        tensors = [
            Tensor(s.name, s.datatype or FP32, _zeros(s.datatype or FP32, shape or ()))
            for s, shape in zip(signature.inputs, shapes, strict=True)
        ]
        yield name, Call(Tensors(tensors), signature=name)


def _zeros(datatype: Datatype, shape: Shape) -> Array:
    if datatype is BYTES:
        array: Array = np.empty(shape, dtype=object)
        array.fill(b"")
        return array
    return np.zeros(shape, datatype.numpy)
