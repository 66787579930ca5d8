"""Answers of MLflow's scoring protocol: `{"predictions": ...}`. Called by scoring.py.

One output is its bare value. Several are one object per row where a table was asked about, as MLflow writes a DataFrame, else one list per
output; models that MLflow logged answer in the way of their flavor. Rows are written as they are, but for the only output of a model that has
no name for it. NaN and infinities are null; bytes that are no text are base64.
"""

from collections.abc import Mapping
from enum import Enum, auto

import orjson

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import ModelSpec
from dragoman.core.tensors import BYTES, Rows, Signature, Tensor, Tensors
from dragoman.core.values import jsonable
from dragoman.dialects.json import NotJsonError, array_json, cells_json
from dragoman.dialects.rows import texts

_UNNAMED = "output"


class Shape(Enum):
    """Of an answer with names."""

    RECORDS = auto()
    """One object per row."""
    LISTS = auto()
    """One list per output, a single one bare."""
    NAMED = auto()
    """One list per output, a single one too."""


def shape_of(spec: ModelSpec, signature: Signature, *, table: bool) -> Shape:
    """MLflow writes what its flavor answers, whatever the request looks like: tables for columns, arrays by name for tensors and ONNX."""
    logged = spec.arguments.get("mlflow")
    if isinstance(logged, Mapping):
        kinds = {each.native for each in signature.inputs} - {""}
        columns = bool(kinds) and "tensor" not in kinds
        if logged.get("runtime") == "onnx" and not columns:
            return Shape.NAMED
        table = columns if kinds else table
    return Shape.RECORDS if table else Shape.LISTS


def predictions(outputs: Tensors | Rows, model: str, shape: Shape) -> bytes:
    """The body. Raises MODEL_FAILED for what JSON cannot carry."""
    try:
        text = _rows(outputs, model) if isinstance(outputs, Rows) else _tensors(outputs.items, shape)
    except (NotJsonError, TypeError, RecursionError) as error:  # complex numbers; a lone surrogate, an integer over 64 bits
        raise ServingError(Kind.MODEL_FAILED, f"model '{model}' answered what JSON cannot carry: {error}") from error
    return b'{"predictions":' + text + b"}"


def _rows(outputs: Rows, model: str) -> bytes:
    rows = outputs.items
    if all(type(row) is dict and list(row) == [_UNNAMED] for row in rows):
        rows = [row[_UNNAMED] for row in rows]
    return orjson.dumps([jsonable(row) for row in rows])


def _tensors(tensors: list[Tensor], shape: Shape) -> bytes:
    if len(tensors) == 1 and shape is not Shape.NAMED:
        return _value(tensors[0])
    lengths = {tensor.array.shape[:1] for tensor in tensors}
    if shape is Shape.RECORDS and len(lengths) == 1 and () not in lengths:
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
