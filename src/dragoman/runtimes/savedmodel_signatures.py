"""From a SavedModel's SignatureDefs to our signatures, and whether requests of one may be joined. Called by the SavedModel runtime.

Messages are TensorFlow's own classes, whose fields have no static types here.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dragoman.core.errors import Kind, ServingError
from dragoman.core.tensors import BYTES, DATATYPES, Array, Shape, Signature, Tensor, Tensors, TensorSpec, element_count

log = logging.getLogger("dragoman.runtimes.savedmodel")

DEFAULT = "serving_default"
_INIT_OP = "__saved_model_init_op"
"""Not an entry point: where exports of TensorFlow 2 keep what is run once after loading."""
_TYPES: Mapping[int, str] = {
    1: "FP32", 2: "FP64", 3: "INT32", 4: "UINT8", 5: "INT16", 6: "INT8", 7: "BYTES", 8: "COMPLEX64", 9: "INT64", 10: "BOOL", 14: "BF16",
    17: "UINT16", 18: "COMPLEX128", 19: "FP16", 22: "UINT32", 23: "UINT64",
}  # fmt: skip
"""TensorFlow's DataType -> datatype."""
_REFERENCE = 100
"""Added to the type of a variable that a graph of TensorFlow 1 gives away itself."""
_LARGEST_PROBE = 1 << 20


@dataclass(frozen=True, slots=True)
class Described:
    """One signature; the `native` names of its tensors are the graph's. `defaults` are what inputs have that a request leaves out."""

    key: str
    signature: Signature
    defaults: Mapping[str, Array] = field(default_factory=dict)

    def with_signature(self, signature: Signature) -> "Described":
        return replace(self, signature=signature)


def described(signatures: Mapping[str, Any], model: str) -> dict[str, Described]:
    """Every signature that can be served, by its key. Those with tensors that nothing here carries are left out and named in the log.

    Raises UNSUPPORTED when none is left.
    """
    found: dict[str, Described] = {}
    reasons = []
    for key in sorted(signatures):
        if key == _INIT_OP:
            continue
        try:
            found[key] = _described(key, signatures[key])
        except ServingError as error:
            reasons.append(f"signature '{key}': {error.message}")
            log.warning("model '%s': signature '%s' is left out: %s", model, key, error.message)
    if not found:
        why = f" ({'; '.join(reasons)})" if reasons else ""
        raise ServingError(Kind.UNSUPPORTED, f"model '{model}' has no signature that can be served{why}", what="model")
    return found


def joining(entry: Described, run: Callable[[Tensors], Tensors]) -> Described:
    """The signature with `batch` set when requests may be joined along axis 0.

    That needs a variable first dimension everywhere; whether it is one and the same dimension no SavedModel says, so the graph is asked with
    zeros: it must not run when inputs differ in it, and every output must have it. A graph that cannot run zeros is believed.
    """
    signature = entry.signature
    tensors = signature.inputs + signature.outputs
    if not signature.inputs or entry.defaults or any(t.shape is None or t.shape[:1] != (-1,) for t in tensors):
        return entry
    lengths = range(2, len(signature.inputs) + 2)
    if sum(element_count(_sized(spec, max(lengths))) for spec in signature.inputs) > _LARGEST_PROBE:
        return entry.with_signature(replace(signature, batch=True))
    uneven = [_zeros(spec, length) for spec, length in zip(signature.inputs, lengths, strict=True)]
    if len(uneven) > 1 and _first_dimensions(run, uneven) is not None:
        return entry
    found = _first_dimensions(run, [_zeros(spec, 3) for spec in signature.inputs])
    return entry.with_signature(replace(signature, batch=found is None or found == {3}))


def _first_dimensions(run: Callable[[Tensors], Tensors], inputs: list[Tensor]) -> set[int] | None:
    """Those of what comes out; None when the graph refuses."""
    try:
        return {tensor.array.shape[0] if tensor.array.ndim else -1 for tensor in run(Tensors(inputs)).items}
    except Exception:  # any error of TensorFlow says the same here: that it cannot be told
        return None


def _zeros(spec: TensorSpec, length: int) -> Tensor:
    assert spec.datatype is not None
    array: Array = np.zeros(_sized(spec, length), spec.datatype.numpy)
    if spec.datatype is BYTES:
        array.fill(b"")
    return Tensor(spec.name, spec.datatype, array)


def _sized(spec: TensorSpec, length: int) -> Shape:
    """A shape of so many rows; other variable dimensions are 1."""
    return (length, *(1 if size == -1 else size for size in (spec.shape or ())[1:]))


def _described(key: str, definition: Any) -> Described:
    defaults = {name: _default(value, name) for name, value in definition.defaults.items()} if hasattr(definition, "defaults") else {}
    inputs = tuple(_tensor("input", name, definition.inputs[name], optional=name in defaults) for name in sorted(definition.inputs))
    outputs = tuple(_tensor("output", name, definition.outputs[name]) for name in sorted(definition.outputs))
    if not outputs:
        raise ServingError(Kind.UNSUPPORTED, "it has no output")
    return Described(key, Signature(inputs=inputs, outputs=outputs, method=definition.method_name), defaults)


def _tensor(kind: str, name: str, info: Any, *, optional: bool = False) -> TensorSpec:
    if info.WhichOneof("encoding") != "name":
        raise ServingError(Kind.UNSUPPORTED, f"its {kind} '{name}' is not a plain tensor")
    code = info.dtype - _REFERENCE if info.dtype > _REFERENCE else info.dtype
    if code not in _TYPES:
        raise ServingError(Kind.UNSUPPORTED, f"its {kind} '{name}' has TensorFlow's type number {info.dtype}, which cannot be sent")
    return TensorSpec(name, DATATYPES[_TYPES[code]], _shape(info.tensor_shape), optional=optional, native=info.name)


def _shape(shape: Any) -> Shape | None:
    if shape.unknown_rank:
        return None
    return tuple(dimension.size if dimension.size >= 0 else -1 for dimension in shape.dim)


def _default(value: Any, name: str) -> Array:
    from tensorflow import make_ndarray

    try:
        array: Array = make_ndarray(value)
    except (TypeError, ValueError) as error:
        raise ServingError(Kind.INVALID_INPUT, f"the default of its input '{name}' is damaged: {error}") from error
    return array
