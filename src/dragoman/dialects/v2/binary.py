"""The binary tensor data extension: raw bytes to arrays and back, and the raw binary request. Called by the codec; knows no JSON.

Arrays that come out are the caller's own: native, aligned and writable, copied once out of the body.
"""

from typing import Any, Final

import numpy as np

from dragoman.core.errors import invalid
from dragoman.core.tensors import (
    BYTES,
    Array,
    Datatype,
    Shape,
    Signature,
    Tensor,
    TensorSpec,
    element_count,
    pack_bytes,
    unpack_bytes,
)
from dragoman.dialects.buffers import owned, raw
from dragoman.dialects.v2.parameters import text

LENGTH_HEADER: Final = b"inference-header-content-length"
_HEADER_NAME: Final = "Inference-Header-Content-Length"

_DIGITS = 19


def header_length(value: bytes, size: int) -> int:
    """The length of the JSON part that the header names. Raises INVALID_INPUT unless it is a decimal number of at most `size` bytes."""
    if not value.isdigit() or len(value) > _DIGITS:
        raise invalid(f"{_HEADER_NAME} must be a decimal number of bytes, not '{value[:40].decode('latin-1')}'")
    length = int(value)
    if length > size:
        raise invalid(f"{_HEADER_NAME} is {length} but the body has only {size} bytes")
    return length


class Tail:
    """The binary part of a body, handed out from front to back."""

    __slots__ = ("_at", "_view")

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._at = 0

    def take(self, size: Any, where: str) -> memoryview:
        """The next `size` bytes. Raises INVALID_INPUT when that is not a size or not there."""
        if type(size) is not int or size < 0:
            raise invalid(f"parameter 'binary_data_size' of {where} must be a non-negative integer, not {text(size)}")
        left = len(self._view) - self._at
        if size > left:
            hint = "" if len(self._view) else f"; the header {_HEADER_NAME} must say where the JSON part ends and they begin"
            raise invalid(f"{where} claims {size} bytes of binary data but {left} are left{hint}")
        part = self._view[self._at : self._at + size]
        self._at += size
        return part

    def end(self, model: str) -> None:
        """Raise INVALID_INPUT if bytes are left over."""
        left = len(self._view) - self._at
        if left:
            raise invalid(f"{left} bytes are left over after the last binary tensor of the request to model '{model}'")


def array_from(part: memoryview, datatype: Datatype, shape: Shape, count: int) -> Array:
    """The array that `part` holds: exactly `count` (the product of `shape`) elements. Raises ValueError saying what does not fit."""
    if datatype is BYTES:
        return unpack_bytes(part, count).reshape(shape)
    size = len(part)
    if size != count * datatype.size:
        raise ValueError(f"{size} bytes came, but shape {list(shape)} of {datatype} takes {count * datatype.size}")
    return owned(part, datatype).reshape(shape)


def raw_input(body: bytes, signature: Signature, model: str) -> Tensor:
    """The model's only input out of a body that is nothing but its data: datatype from the model, one variable dimension from the size.

    The batch, if the model has one, is 1. BYTES is one element, without a length in front. Raises INVALID_INPUT.
    """
    if len(signature.inputs) != 1:
        raise invalid(f"a raw binary request needs a model with one input, '{model}' has {len(signature.inputs)}")
    spec = signature.inputs[0]
    where = f"input '{spec.name}' of model '{model}'"
    if spec.datatype is None or spec.shape is None:
        raise invalid(f"{where} has no fixed datatype and rank, so a raw binary request cannot carry it")
    shape = (1, *spec.shape[1:]) if signature.batch and spec.shape else spec.shape
    if spec.datatype is BYTES:
        if any(d not in (1, -1) for d in shape):
            raise invalid(f"{where} has shape {list(spec.shape)}; a raw binary request carries a single BYTES element")
        element: Array = np.empty(1, object)
        element[0] = bytes(body)
        return Tensor(spec.name, BYTES, element.reshape((1,) * len(shape)))
    shape = _resolve(shape, len(body), spec, where)
    try:
        return Tensor(spec.name, spec.datatype, array_from(memoryview(body), spec.datatype, shape, element_count(shape)))
    except ValueError as error:
        raise invalid(f"{where}: {error}") from None


def _resolve(shape: Shape, size: int, spec: TensorSpec, where: str) -> Shape:
    assert spec.datatype is not None
    variable = [axis for axis, length in enumerate(shape) if length < 0]
    if not variable:
        return shape
    if len(variable) > 1:
        raise invalid(f"{where} has shape {list(shape)}; a raw binary request can tell the size of one variable dimension only")
    step = element_count(length for length in shape if length >= 0) * spec.datatype.size
    if not step or size % step:
        raise invalid(
            f"{where}: {size} bytes came, which is no multiple of the {step} bytes that shape {list(shape)} of {spec.datatype} takes"
        )
    axis = variable[0]
    return (*shape[:axis], size // step, *shape[axis + 1 :])


def raw_bytes(tensor: Tensor) -> bytes | memoryview:
    """A tensor's data as they go over the wire; a view of the array itself where it is laid out so. `len` counts bytes."""
    if tensor.datatype is BYTES:
        return pack_bytes(tensor.array)
    return raw(tensor.array, tensor.datatype)
