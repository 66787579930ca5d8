"""Plain lists as arrays and arrays as plain lists, fast: MLRun's `inputs` and `outputs` for models of tensors. Called by mlrun_message.py.

core.bodies has the rules and the words for everything; what is here gives the same for lists of numbers or texts without looking at each
value: 50,000 rows cost what the same numbers cost in the Open Inference Protocol.
"""

from typing import Any

import numpy as np
import orjson

from dragoman.core.binary_bodies import file_inputs
from dragoman.core.bodies import plain_outputs, requested
from dragoman.core.tensors import BYTES, Array, Blob, Form, Rows, Signature, Tensor, Tensors, TensorSpec, Value, batch_length
from dragoman.dialects import rows
from dragoman.dialects.json import NotJsonError, NumberList, NumbersError, array_of, cells_json, fragment, is_list
from dragoman.dialects.v2.codec import AS_NUMBERS

_FEW = 8
"""Rows up to which orjson writes a number or an array for each output faster than texts are put together."""


def plain_inputs(inputs: Any, signature: Signature, model: str) -> Tensors | Rows:
    """`core.bodies.requested` of a value that `dialects.json.loads` may have read. Raises INVALID_INPUT."""
    if is_file(inputs):
        return file_inputs(inputs[0].data, inputs[0].media_type, signature, model)
    if signature.form is Form.TENSORS and signature.batch and is_list(inputs):
        tensors = _matrix(inputs, signature.inputs[0]) if len(signature.inputs) == 1 else _columns(inputs, signature.inputs)
        if tensors is not None:
            return tensors
    return requested(rows.plain(inputs), signature, model)


def is_file(inputs: Any) -> bool:
    """Whether a request's inputs are one file: no JSON has one, so it was the body, or came from a data_url."""
    return type(inputs) is list and len(inputs) == 1 and type(inputs[0]) is Blob


def _matrix(inputs: Any, spec: TensorSpec) -> Tensors | None:
    """The one tensor of a model; None where the list is no box of its datatype and rank, so that it is looked at value by value."""
    if spec.datatype is None or spec.shape is None:
        return None
    try:
        array = array_of(inputs, spec.datatype)
    except NumbersError:
        return None
    rank = len(spec.shape)
    if array.ndim == 1 and rank > 1:  # a flat list is one data point
        array = array[np.newaxis]
    return Tensors([Tensor(spec.name, spec.datatype, array)]) if array.ndim == rank and array.size else None


def _columns(inputs: Any, specs: tuple[TensorSpec, ...]) -> Tensors | None:
    """One tensor per feature out of a long box of numbers; None for everything else."""
    if type(inputs) is not NumberList or inputs.shape is None or inputs.shape[1:] != (len(specs),):
        return None
    tensors = []
    for index, spec in enumerate(specs):
        array: Array | None = None
        if spec.datatype is not None and spec.shape is not None and len(spec.shape) == 1:
            array = inputs.column(index, spec.datatype)
        if array is None or spec.datatype is None:
            return None
        tensors.append(Tensor(spec.name, spec.datatype, array))
    return Tensors(tensors)


def written_outputs(outputs: Tensors | Rows, signature: Signature, model: str) -> Any:
    """`core.bodies.plain_outputs` as something that orjson writes, floats in the shortest text of their own width."""
    if isinstance(outputs, Tensors) and all(tensor.datatype is not BYTES for tensor in outputs.items):
        try:
            return _written_numbers(outputs, signature, model)
        except NotJsonError:  # complex numbers: the other way knows what to say
            pass
    value: Value = plain_outputs(outputs, signature, model)
    return value


def _written_numbers(outputs: Tensors, signature: Signature, model: str) -> Any:
    if len(outputs.items) == 1:
        only = outputs.items[0]
        return fragment(only.array, only.datatype, nested=True, nonfinite="null")
    length = batch_length(outputs, signature)
    if length is None:
        return plain_outputs(outputs, signature, model)
    if length <= _FEW and all(tensor.datatype in AS_NUMBERS for tensor in outputs.items):
        return [{tensor.name: tensor.array[index] for tensor in outputs.items} for index in range(length)]
    # Text by text: 50,000 objects of two outputs take a third of what dicts of fragments do.
    form = b",".join(orjson.dumps(t.name).replace(b"%", b"%%") + b":%b" for t in outputs.items)
    columns = [cells_json(t.array, t.datatype, nonfinite="null") for t in outputs.items]
    return orjson.Fragment(b"[" + b",".join([b"{" + form % cells + b"}" for cells in zip(*columns, strict=True)]) + b"]")
