"""Tensors to the body of a :predict answer: "predictions" row by row, or "outputs" column by column; the results of :classify and :regress.

Called by rest.py.

Numbers are written from their own width, so a float32 of 0.2 is 0.2; whole floats keep their point; NaN and the infinities are bare tokens,
as TensorFlow Serving writes them. Strings are text, except under output names that end in "_bytes" and where they are not UTF-8: those are
base64 objects.
"""

import binascii
import re
from typing import Any

import numpy as np
import orjson

from dragoman.core import tensors
from dragoman.core.errors import invalid
from dragoman.core.tensors import BYTES, FP32, Array, Signature, Tensor
from dragoman.dialects.json import array_json, cells_json
from dragoman.dialects.tfserving.classified import Classes
from dragoman.dialects.tfserving.messages import TYPE_NAMES

_NEVER = frozenset({tensors.FP16, tensors.BF16, tensors.COMPLEX64, tensors.COMPLEX128})
"""Datatypes that TensorFlow Serving writes in no JSON answer."""
_WHOLE_FROM = 2**24
"""Below this the shortest text of a whole float32 has all of its digits."""
_LONG_WHOLE = re.compile(rb"(?<![0-9.])[0-9]{8,13}\.0(?![0-9])")
_SHORT = 1024
"""Bytes of a text that is searched as fast as numpy looks at its numbers."""


def predictions(outputs: list[Tensor]) -> bytes:
    """The body in row form. Raises INVALID_INPUT when the outputs cannot be cut into rows."""
    _check(outputs)
    rows = -1
    for tensor in outputs:
        shape = tensor.array.shape
        if not shape:
            raise invalid(f"Tensor name: {tensor.name} has no shape information")
        if rows not in (-1, shape[0]):
            raise invalid(f"Tensor name: {tensor.name} has inconsistent batch size: {shape[0]} expecting: {rows}")
        rows = shape[0]
    if len(outputs) == 1:
        return b'{"predictions":' + _value(outputs[0]) + b"}"
    columns = [[_key(tensor.name) + cell for cell in _cells(tensor)] for tensor in outputs]
    return b'{"predictions":[' + b",".join([b"{" + b",".join(row) + b"}" for row in zip(*columns, strict=True)]) + b"]}"


def columns(outputs: list[Tensor]) -> bytes:
    """The body in column form."""
    _check(outputs)
    if len(outputs) == 1:
        return b'{"outputs":' + _value(outputs[0]) + b"}"
    return b'{"outputs":{' + b",".join([_key(tensor.name) + _value(tensor) for tensor in outputs]) + b"}}"


def classes(found: list[Classes]) -> bytes:
    """The results of :classify: per example its classes, each as a label and a score."""
    scores = iter(_float32([score for example in found for _, score in example]))
    lists = [b",".join([b"[" + orjson.dumps(label) + b"," + next(scores) + b"]" for label, _ in example]) for example in found]
    return b"[" + b",".join([b"[" + each + b"]" for each in lists]) + b"]"


def numbers(found: list[float]) -> bytes:
    """The results of :regress."""
    return b"[" + b",".join(_float32(found)) + b"]"


def _float32(values: list[float]) -> list[bytes]:
    return cells_json(np.array(values, np.float32), tensors.FP32, nonfinite="tokens")


def narrow(outputs: list[Tensor], signature: Signature, ranks: frozenset[int]) -> None:
    """Take the last dimension of 1 from the outputs that are declared with it and with one of these ranks: decode.py has added it."""
    for tensor in outputs:
        spec = signature.output_by_name.get(tensor.name)
        if spec is None or not spec.shape or spec.shape[-1] != 1 or len(spec.shape) not in ranks:
            continue
        shape = tensor.array.shape
        if len(shape) == len(spec.shape) and shape[-1] == 1:
            tensor.array = tensor.array.reshape(shape[:-1])


def _check(outputs: list[Tensor]) -> None:
    for tensor in outputs:
        if tensor.datatype in _NEVER:
            raise invalid(f"Failed to write JSON value for tensor type: {TYPE_NAMES[tensor.datatype]}")


def _value(tensor: Tensor) -> bytes:
    """A whole tensor as one JSON value."""
    if tensor.datatype is BYTES:
        return orjson.dumps(_texts(tensor).tolist())
    text = array_json(tensor.array, tensor.datatype, nested=True, nonfinite="tokens")
    if tensor.datatype is FP32 and (len(text) <= _SHORT or _is_large(tensor)):
        return _exact(text)
    return text


def _cells(tensor: Tensor) -> list[bytes]:
    """A tensor cut along its first dimension, each piece as one JSON value."""
    if tensor.datatype is BYTES:
        return [orjson.dumps(cell) for cell in _texts(tensor).tolist()]
    cells = cells_json(tensor.array, tensor.datatype, nonfinite="tokens")
    return [_exact(cell) for cell in cells] if _is_large(tensor) else cells


def _is_large(tensor: Tensor) -> bool:
    """Whether there can be numbers that `_exact` writes anew."""
    return tensor.datatype is FP32 and bool((abs(tensor.array) >= _WHOLE_FROM).any())


def _exact(text: bytes) -> bytes:
    """Whole numbers in float32 with all of their digits: 1435774336.0 where 1435774300.0 is the shortest text for the same float.

    Clients that read doubles, as Python does, see the difference.
    """
    return _LONG_WHOLE.sub(lambda found: b"%d.0" % int(np.float32(found[0])), text)


def _texts(tensor: Tensor) -> Array:
    """Strings and base64 objects in the place of the bytes."""
    array = tensor.array
    always = tensor.name.endswith("_bytes")
    made: Array = np.empty(array.size, object)
    made[:] = [_text(item, always) for item in array.ravel().tolist()]
    return made.reshape(array.shape)


def _text(item: bytes, always: bool) -> Any:
    if not always:
        try:
            return item.decode()
        except UnicodeDecodeError:  # TensorFlow Serving writes it raw, which no client can read
            pass
    return {"b64": binascii.b2a_base64(item, newline=False).decode()}


def _key(name: str) -> bytes:
    return orjson.dumps(name) + b":"
