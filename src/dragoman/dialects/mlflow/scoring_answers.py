"""Answers of MLflow's scoring protocol: `{"predictions": ...}`. Called by scoring.py.

One output is its bare value. Several are one object per row where a table was asked about, as MLflow writes a DataFrame, else one list per
output. Rows are written as they are, but for the only output of a model that has no name for it. NaN and infinities are null; bytes that are
no text are base64.
"""

import orjson

from dragoman.core.errors import Kind, ServingError
from dragoman.core.tensors import BYTES, Rows, Tensor, Tensors
from dragoman.core.values import jsonable
from dragoman.dialects.json import NotJsonError, array_json, cells_json
from dragoman.dialects.rows import texts

_UNNAMED = "output"


def predictions(outputs: Tensors | Rows, model: str, *, table: bool) -> bytes:
    """The body. Raises MODEL_FAILED for what JSON cannot carry."""
    try:
        text = _rows(outputs, model) if isinstance(outputs, Rows) else _tensors(outputs.items, table=table)
    except (NotJsonError, TypeError, RecursionError) as error:  # complex numbers; a lone surrogate, an integer over 64 bits
        raise ServingError(Kind.MODEL_FAILED, f"model '{model}' answered what JSON cannot carry: {error}") from error
    return b'{"predictions":' + text + b"}"


def _rows(outputs: Rows, model: str) -> bytes:
    rows = outputs.items
    if all(type(row) is dict and list(row) == [_UNNAMED] for row in rows):
        rows = [row[_UNNAMED] for row in rows]
    return orjson.dumps([jsonable(row) for row in rows])


def _tensors(tensors: list[Tensor], *, table: bool) -> bytes:
    if len(tensors) == 1:
        return _value(tensors[0])
    lengths = {tensor.array.shape[:1] for tensor in tensors}
    if table and len(lengths) == 1 and () not in lengths:
        columns = [[_key(tensor) + cell for cell in _cells(tensor)] for tensor in tensors]
        return b"[" + b",".join([b"{" + b",".join(row) + b"}" for row in zip(*columns, strict=True)]) + b"]"
    return b"{" + b",".join([_key(tensor) + _value(tensor) for tensor in tensors]) + b"}"


def _key(tensor: Tensor) -> bytes:
    return orjson.dumps(tensor.name) + b":"


def _value(tensor: Tensor) -> bytes:
    if tensor.datatype is BYTES:
        return orjson.dumps(texts(tensor.array))
    return array_json(tensor.array, tensor.datatype, nested=True, nonfinite="null")


def _cells(tensor: Tensor) -> list[bytes]:
    if tensor.datatype is BYTES:
        return [orjson.dumps(cell) for cell in texts(tensor.array)]
    return cells_json(tensor.array, tensor.datatype, nonfinite="null")
