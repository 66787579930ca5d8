"""Answers of Seldon's protocol, in the representation of the request where the outputs allow it. Called by rest.py.

Outputs that are columns beside each other make one table; `names` says what its columns are. Texts cannot be a tensor, so they are an ndarray,
and what makes no table is `jsonData`. NaN and infinities are null.
"""

import base64
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import orjson

from dragoman.core.errors import Kind, ServingError
from dragoman.core.tensors import BYTES, FP64, Blob, Rows, Signature, Tensor, Tensors, Value
from dragoman.core.values import jsonable
from dragoman.dialects.json import NotJsonError, fragment
from dragoman.dialects.rows import texts
from dragoman.dialects.seldon.reading import Asked, Form


def body(outputs: Tensors | Rows, asked: Asked, signature: Signature, model: str) -> bytes:
    """Raises MODEL_FAILED for what JSON cannot carry."""
    try:
        answer = _of_rows(outputs.items, asked) if isinstance(outputs, Rows) else _of_tensors(outputs.items, asked, signature)
        return orjson.dumps({**answer, "meta": {}})
    except (NotJsonError, TypeError, RecursionError) as error:  # complex numbers; a lone surrogate, an integer over 64 bits
        raise ServingError(Kind.MODEL_FAILED, f"model '{model}' answered what JSON cannot carry: {error}") from error


# --- tensors ---


def _of_tensors(tensors: list[Tensor], asked: Asked, signature: Signature) -> dict[str, Any]:
    only = tensors[0] if len(tensors) == 1 else None
    if asked.form is Form.JSON:
        if only is not None:
            return {"jsonData": _only(_json(only), asked)}
        return {"jsonData": {tensor.name: _json(tensor) for tensor in tensors}}
    if asked.single and only is not None and only.datatype is BYTES and only.array.size == 1:
        return _content(only.array.item(), asked)
    if only is not None:
        return _table(_names(only, signature), only, asked)
    if not _beside(tensors):
        return {"jsonData": {tensor.name: _json(tensor) for tensor in tensors}}
    names = [name for tensor in tensors for name in _names(tensor, signature)]
    blocks = [tensor.array.reshape(len(tensor.array), -1) for tensor in tensors]
    if asked.form is Form.TENSOR and all(tensor.datatype.kind in ("int", "uint", "float") for tensor in tensors):
        return _table(names, Tensor("", FP64, np.concatenate([block.astype(np.float64) for block in blocks], axis=1)), asked)
    cells = [orjson.loads(orjson.dumps(_json(Tensor("", t.datatype, b)))) for t, b in zip(tensors, blocks, strict=True)]
    return {"data": {"names": names, "ndarray": [[cell for part in row for cell in part] for row in zip(*cells, strict=True)]}}


def _table(names: list[str], tensor: Tensor, asked: Asked) -> dict[str, Any]:
    array = tensor.array
    if asked.form is Form.TENSOR and tensor.datatype is not BYTES:
        if array.dtype.kind == "b":
            tensor = Tensor(tensor.name, FP64, array.astype(np.float64))  # a tensor's values are numbers
        return {"data": {"names": names, "tensor": {"shape": list(array.shape), "values": _numbers(tensor, nested=False)}}}
    return {"data": {"names": names, "ndarray": _json(tensor) if array.ndim else [_json(tensor)]}}


def _names(tensor: Tensor, signature: Signature) -> list[str]:
    """One per column. What a model calls its classes is better than numbers."""
    shape = tensor.array.shape
    if len(shape) > 2:
        return []
    width = shape[1] if len(shape) == 2 else 1
    spec = signature.output_by_name.get(tensor.name)
    if spec is not None and len(spec.labels) == width:
        return list(spec.labels)
    return [tensor.name] if width == 1 else [f"{tensor.name}:{index}" for index in range(width)]


def _beside(tensors: Sequence[Tensor]) -> bool:
    """Whether outputs are columns of the same rows."""
    return all(0 < tensor.array.ndim < 3 and tensor.array.size for tensor in tensors) and len({len(t.array) for t in tensors}) == 1


def _json(tensor: Tensor) -> Any:
    if tensor.datatype is not BYTES:
        return _numbers(tensor, nested=True)
    return texts(tensor.array)


def _numbers(tensor: Tensor, *, nested: bool) -> orjson.Fragment:
    return fragment(tensor.array, tensor.datatype, nested=nested, nonfinite="null")


# --- rows ---


def _of_rows(rows: list[Value], asked: Asked) -> dict[str, Any]:
    if asked.form in (Form.TEXT, Form.BINARY) and len(rows) == 1:
        value = next(iter(rows[0].values())) if isinstance(rows[0], dict) and len(rows[0]) == 1 else rows[0]
        if isinstance(value, str | bytes | Blob):
            return _content(value, asked)
    if asked.form not in (Form.NDARRAY, Form.TENSOR):
        return {"jsonData": _only([jsonable(row) for row in rows], asked)}
    keys = {tuple(row) if isinstance(row, dict) else None for row in rows}
    names = keys.pop() if len(keys) == 1 else None
    if names is None:
        return {"data": {"names": [], "ndarray": [jsonable(row) for row in rows]}}
    cells = [[jsonable(value) for value in row.values()] for row in rows]
    if asked.form is Form.TENSOR and all({int, float}.issuperset(map(type, row)) for row in cells):
        flat = [value for row in cells for value in row]
        return {"data": {"names": names, "tensor": {"shape": [len(cells), len(names)], "values": flat}}}
    return {"data": {"names": names, "ndarray": cells}}


def _only(rows: Any, asked: Asked) -> Any:
    """What answers one row that came by itself."""
    if isinstance(rows, orjson.Fragment):
        rows = orjson.loads(orjson.dumps(rows))
    return rows[0] if asked.single and isinstance(rows, list) and len(rows) == 1 else rows


def _content(value: str | bytes | Blob, asked: Asked) -> dict[str, Any]:
    """One text or one file; bytes that answer a text are one if they can be."""
    if isinstance(value, bytes) and asked.form is Form.TEXT:
        with suppress(UnicodeDecodeError):
            value = value.decode()
    if isinstance(value, str):
        return {"strData": value}
    return {"binData": base64.b64encode(value.data if isinstance(value, Blob) else value).decode()}
