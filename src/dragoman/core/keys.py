"""The batch key: requests with equal keys may run as one batch. Computed once per request, in the worker."""

import hashlib
import json
from collections.abc import Hashable
from typing import Any

import numpy as np

from dragoman.core.model import InferRequest
from dragoman.core.tensors import Blob, Rows, Signature, Tensor

_TAG = "\ud800"
"""The key of what stands for a value that JSON does not have. No request can bring it: readers of JSON refuse half a surrogate pair."""


def canonical_json(value: Any) -> str:
    """JSON text that is equal for equal values only: keys sorted, and 1, 1.0 and true all different (Python holds them equal)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)


def batch_key(request: InferRequest, signature: Signature, *, padded: bool = False) -> Hashable:
    """Operation, signature, names, datatypes and trailing shapes (or, for rows, the options), and the parameters that the signature reads.

    With `padded`, sizes that the signature leaves open need only be alike, not equal: `concat` fills up the shorter ones.
    """
    inputs = request.inputs
    if isinstance(inputs, Rows):
        shapes: Hashable = (
            canonical_json([[row.get(o) for o in signature.options] for row in inputs.items[:1]]) if signature.options else ""
        )
    elif padded:
        shapes = tuple(sorted((t.name, t.datatype.name, _alike(t, signature)) for t in inputs.items))
    else:
        items = inputs.items
        if len(items) == 1:
            tensor = items[0]
            shapes = (tensor.name, tensor.datatype.name, tensor.array.shape[1:])
        else:
            shapes = tuple(sorted((t.name, t.datatype.name, t.array.shape[1:]) for t in items))
    if signature.reads and request.parameters:
        read = {k: v for k, v in request.parameters.items() if k in signature.reads}
        if read:
            return (request.operation, request.signature, shapes, canonical_json(read))
    return (request.operation, request.signature, shapes)


def _alike(tensor: Tensor, signature: Signature) -> tuple[int, ...]:
    """Equal for tensors that may be filled up to one size: each open one is within a factor of two, so that nobody's batch grows beyond reason."""
    trailing: tuple[int, ...] = tensor.array.shape[1:]
    if not tensor.array.size:  # it has no element to be filled up with
        return trailing
    declared = next((s.shape for s in signature.inputs if s.name == tensor.name), None)
    if declared is None or len(declared) != len(trailing) + 1:
        declared = (-1,) * (len(trailing) + 1)
    return tuple(-(size - 1).bit_length() - 1 if bound < 0 else size for size, bound in zip(trailing, declared[1:], strict=True))


def _plain(value: Any) -> Any:
    if isinstance(value, Blob):
        return {_TAG: ["file", value.media_type, value.name, hashlib.sha256(value.data).hexdigest()]}
    if isinstance(value, bytes):
        return {_TAG: ["bytes", value.hex()]}
    if isinstance(value, np.ndarray):
        return {_TAG: [value.dtype.str, value.shape, value.tolist()]}
    raise TypeError(f"{type(value).__name__} cannot be part of a batch key")
