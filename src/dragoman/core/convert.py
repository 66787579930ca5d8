"""Rows to tensors and back, by signature: one model answers clients that speak rows and clients that speak tensors.

Pure. Called by the codecs and the gateway: `inwards` before a request is queued, so that a batch always holds one form; `output_rows` and
`output_tensors` when an answer is written. Along the batch axis element i is row i; without one, a request is one row.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from dragoman.core.columns import WrongColumnError, column, guess
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.files import decoded
from dragoman.core.rows import checked, row_schema
from dragoman.core.tensors import (
    BF16,
    BYTES,
    Array,
    Blob,
    Failure,
    Form,
    JsonSchema,
    Rows,
    Signature,
    Tensor,
    Tensors,
    TensorSpec,
    Value,
    batch_length,
    widened,
)
from dragoman.core.values import jsonable

Payload: TypeAlias = Tensors | Rows
UNNAMED = "output"
"""What the only output of a model that names none is called."""


def inwards(inputs: Payload, signature: Signature, model: str) -> Payload:
    """The inputs in the form that the signature wants, checked when they become rows. Raises INVALID_INPUT."""
    if isinstance(inputs, Tensors):
        return inputs if signature.form is Form.TENSORS else Rows(input_rows(inputs, signature, model))
    return inputs if signature.form is Form.ROWS else input_tensors(inputs.items, signature, model)


# --- inputs ---


def input_tensors(rows: Sequence[Value], signature: Signature, model: str) -> Tensors:
    """One tensor per declared input out of checked rows; an optional input that no row has is left out.

    A row is a dict by input name, or the bare value where there is one input. Without a batch axis exactly one row is one request. Raises
    INVALID_INPUT for values that do not fit a datatype, or that do not form a box together.
    """
    if not signature.batch and len(rows) != 1:
        raise invalid(f"model '{model}' does not batch: it takes one row at a time, not {len(rows)}")
    specs = signature.inputs
    tensors = []
    for spec in specs:
        values = [_field(row, spec, len(specs), model) for row in rows]
        given = sum(value is not None for value in values)
        if not given and spec.optional:
            continue
        if given != len(values):
            raise invalid(f"input '{spec.name}' of model '{model}' is given in {given} of {len(values)} rows")
        try:
            tensors.append(_tensor(values, spec, batch=signature.batch))
        except WrongColumnError as error:
            raise invalid(f"input '{spec.name}' of model '{model}': {error}") from None
    return Tensors(tensors)


def _field(row: Value, spec: TensorSpec, count: int, model: str) -> Value:
    if isinstance(row, dict):
        return row.get(spec.name)
    if count == 1:
        return row
    raise invalid(f"a row for model '{model}' must be an object with its {count} inputs, not {type(row).__name__}")


def _tensor(values: list[Value], spec: TensorSpec, *, batch: bool) -> Tensor:
    datatype = spec.datatype or guess(values)
    array = column(values, datatype, None if spec.shape is None else len(spec.shape) + (not batch))
    return Tensor(spec.name, datatype, array if batch else array[0])


def input_rows(tensors: Tensors, signature: Signature, model: str) -> list[dict[str, Value]]:
    """Checked rows out of tensors with one element per row. Raises INVALID_INPUT, naming the input.

    Numbers may come in any width of their kind; BYTES are UTF-8 texts, files (their content, or a `data:` URI of it), or JSON, as the
    field's schema says.
    """
    length = _length(tensors, model)
    schema = row_schema(signature)
    properties: JsonSchema = schema.get("properties", {})
    columns: dict[str, list[Value]] = {}
    for tensor in tensors.items:
        spec = signature.input_by_name.get(tensor.name)
        if spec is None:
            names = ", ".join(f"'{s.name}'" for s in signature.inputs)
            raise invalid(f"model '{model}' has no input '{tensor.name}'; its inputs are {names}")
        columns[tensor.name] = _cells(tensor, spec, properties.get(tensor.name, {}), model)
    rows = [{name: cells[index] for name, cells in columns.items()} for index in range(length)]
    return checked(rows, signature, model)


def _length(tensors: Tensors, model: str) -> int:
    first: Tensor | None = None
    for tensor in tensors.items:
        if not tensor.array.ndim:
            raise invalid(f"input '{tensor.name}' of model '{model}' is a single value, expected one per row")
        if first is not None and len(tensor.array) != len(first.array):
            raise invalid(
                f"inputs of model '{model}' disagree on the number of rows: '{tensor.name}' has {len(tensor.array)}, "
                f"'{first.name}' has {len(first.array)}"
            )
        first = first or tensor
    return len(first.array) if first is not None else 0


_INTO = {"integer": ("int", "uint"), "number": ("int", "uint", "float", "bits"), "boolean": ("bool",)}
_READ: dict[str, Callable[[bytes], Value]] = {"object": json.loads, "array": json.loads}


def _cells(tensor: Tensor, spec: TensorSpec, schema: JsonSchema, model: str) -> list[Value]:
    """What each row gets of one tensor."""
    array = tensor.array
    where = f"input '{tensor.name}' of model '{model}'"
    rank = 1 if spec.shape is None and "items" not in schema else None if spec.shape is None else len(spec.shape)
    if rank == 1 and array.ndim > 1 and array.size == len(array):  # [n, 1], as clients of tensor models are used to send it
        array = array.reshape(len(array))
    if rank is not None and array.ndim != rank and schema:
        raise invalid(f"{where} has shape {list(tensor.array.shape)}, expected {rank} dimension{'s' * (rank > 1)}, the first is the row")
    leaf = schema
    while leaf.get("type") == "array" and tensor.datatype is not BYTES:
        leaf = leaf.get("items", {})
    kind = leaf.get("type")
    if tensor.datatype is BYTES:
        if kind in _INTO:
            raise invalid(f"{where} has datatype BYTES, expected {spec.datatype or kind}")
        return _from_bytes(array, spec, schema, where)
    if kind is not None and tensor.datatype.kind not in _INTO.get(kind, ()):
        raise invalid(f"{where} has datatype {tensor.datatype}, expected {spec.datatype or kind}")
    return _numbers(tensor.name, array, tensor.datatype is BF16, model)


def _from_bytes(array: Array, spec: TensorSpec, schema: JsonSchema, where: str) -> list[Value]:
    nested = schema.get("type") in ("object", "array") and (spec.shape is None or len(spec.shape) == 1)
    leaf = schema
    while leaf.get("type") == "array" and not nested:
        leaf = leaf.get("items", {})
    read = _json if nested else _file if leaf.get("format") == "uri" else _utf8

    def each(value: Any) -> Value:
        if type(value) is list:
            return [each(item) for item in value]
        try:
            return read(value)
        except (ValueError, RecursionError) as error:
            raise invalid(f"{where} holds {error}") from None

    return [each(value) for value in array.tolist()]


def _utf8(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise ValueError("bytes that are not UTF-8 text") from None


def _json(value: bytes) -> Value:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError("what is not JSON, which this input is written in") from None


def _file(value: bytes) -> Blob:
    """The content itself, unless it is a data: URI, which is how JSON brings it."""
    if value[:5].lower() != b"data:":
        return Blob(value)
    try:
        return decoded(value.decode()) or Blob(value)
    except ValueError:
        raise ValueError("a data: URI that cannot be read") from None


# --- outputs ---


def output_rows(outputs: Payload, signature: Signature, model: str) -> list[Value]:
    """The rows of an answer: as they are, or one dict by output name per element of the batch axis (one for all without it).

    Numbers of one dimension more than the batch stay arrays. Raises MODEL_FAILED for tensors that cannot be cut so.
    """
    if isinstance(outputs, Rows):
        return outputs.items
    if not signature.batch:
        whole = [Tensor(t.name, t.datatype, t.array[np.newaxis]) for t in outputs.items]
        return [{t.name: _answer_cells(t, model)[0] for t in whole}]
    length = batch_length(outputs, signature)
    if length is None:
        raise ServingError(Kind.MODEL_FAILED, f"model '{model}' answered tensors that do not have one element per row")
    columns = [(t.name, _answer_cells(t, model)) for t in outputs.items]
    return [{name: cells[index] for name, cells in columns} for index in range(length)]


def _answer_cells(tensor: Tensor, model: str) -> list[Value]:
    if tensor.datatype is not BYTES:
        return _numbers(tensor.name, tensor.array, tensor.datatype is BF16, model)

    def each(value: Any) -> Value:
        if type(value) is list:
            return [each(item) for item in value]
        try:
            return value.decode()
        except UnicodeDecodeError:
            return Blob(value)

    return [each(value) for value in tensor.array.tolist()]


def _numbers(name: str, array: Array, bfloat: bool, model: str) -> list[Value]:
    if bfloat:
        array = widened(array)
    if array.dtype.kind == "c":
        raise ServingError(Kind.UNSUPPORTED, f"'{name}' of model '{model}' has complex numbers, which rows cannot hold")
    return array.tolist() if array.ndim == 1 else list(array)


def output_tensors(outputs: Payload, signature: Signature, model: str) -> Tensors:
    """The tensors of an answer, one element per row: as they are, or by the declared outputs.

    Undeclared outputs are named by the rows' keys, else "output", with datatypes that their values suggest. Files are their content; what is
    nested where a single BYTES is declared is JSON. Raises MODEL_FAILED for rows that do not fit, and for the first Failure among them.
    """
    if isinstance(outputs, Tensors):
        return outputs
    rows = outputs.items
    for row in rows:
        if isinstance(row, Failure):
            raise ServingError(Kind.MODEL_FAILED, row.message, trace=row.trace)
    specs = signature.outputs or _undeclared(rows)
    tensors = []
    for spec in specs:
        try:
            values = [row[spec.name] if isinstance(row, dict) else row for row in rows]
        except KeyError:
            raise ServingError(Kind.MODEL_FAILED, f"model '{model}' did not answer the output '{spec.name}'") from None
        try:
            if spec.datatype is BYTES and spec.shape == (-1,):
                values = [_as_bytes(value) for value in values]
            tensors.append(_tensor(values, spec, batch=True))
        except WrongColumnError as error:
            raise ServingError(Kind.MODEL_FAILED, f"output '{spec.name}' of model '{model}': {error}") from None
    return Tensors(tensors)


def _undeclared(rows: Sequence[Value]) -> tuple[TensorSpec, ...]:
    if not rows or not all(isinstance(row, dict) for row in rows):
        return (TensorSpec(UNNAMED, None, None),)
    names = dict.fromkeys(name for row in rows for name in row)
    return tuple(TensorSpec(name, _datatype(rows, name), (-1,) if _nested(rows, name) else None) for name in names)


def _nested(rows: Sequence[Value], name: str) -> bool:
    return any(_holds_dicts(row.get(name)) for row in rows)


def _datatype(rows: Sequence[Value], name: str) -> Any:
    return BYTES if _nested(rows, name) else None


def _holds_dicts(value: Value) -> bool:
    return value is None or type(value) is dict or (type(value) is list and any(_holds_dicts(item) for item in value))


def _as_bytes(value: Value) -> Value:
    """What a single BYTES element holds of a value: text and files as they are, everything else written in JSON."""
    if isinstance(value, str | bytes | Blob):
        return value
    try:
        return json.dumps(jsonable(value), ensure_ascii=False, separators=(",", ":"))
    except (ValueError, RecursionError) as error:
        raise WrongColumnError(f"a value that JSON cannot carry: {error}") from None
