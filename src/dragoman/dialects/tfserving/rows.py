"""A :predict request to a model of rows and its answer: instances are the rows themselves, columns are cut into them. Called by rest.py.

An instance is an object by field, or the bare value of the only field that is needed; `{"b64": ...}` stands for bytes and files anywhere. In
column form a value that is no list goes into every row. Answers are JSON values as the model gave them, files as base64 objects.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dragoman.core.bodies import named_point
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.files import decode_files
from dragoman.core.rows import checked, row_schema
from dragoman.core.tensors import Blob, Failure, JsonSchema, Signature, Value
from dragoman.dialects.json import is_list
from dragoman.dialects.rows import plain
from dragoman.dialects.tfserving import messages
from dragoman.dialects.tfserving.decode import form
from dragoman.dialects.tfserving.messages import is_b64
from dragoman.dialects.tfserving.values import with_bytes

_DEEPEST = 100


def asked_rows(tree: Mapping[str, Any], body: bytes, signature: Signature, model: str) -> tuple[list[dict[str, Value]], bool]:
    """The checked rows of a request, and whether it came in row form. Raises INVALID_INPUT in this protocol's words."""
    in_rows = form(tree, body)
    rows = _instances(tree["instances"], signature) if in_rows else _cut(tree["inputs"], signature)
    try:
        return decode_files(checked(rows, signature, model), signature, model), in_rows
    except ServingError as error:
        if not error.problems or not error.problems[0].path:  # of the whole list: there are no rows
            raise
        first = error.problems[0]
        index, *place = first.path
        key = ".".join(str(part) for part in place if part != "__root__")
        assert isinstance(index, int)
        if in_rows:
            raise messages.in_row(index, key, first.message) from None
        raise invalid(f"Failed to process element: {index} of 'inputs' key: {messages.cut(key)}. Error: {first.message}") from None


def _instances(instances: Any, signature: Signature) -> list[Any]:
    rows = []
    only = ""
    schema = row_schema(signature)
    for index, given in enumerate(plain(instances)):
        instance = named_point(given, signature)
        if type(instance) is dict and not is_b64(instance):
            rows.append(_with_bytes(instance))
        else:
            only = only or _only(schema, f"instances is a plain list, but expecting list of objects (item {index})")
            rows.append({only: _with_bytes(instance)})
    return rows


def _cut(inputs: Any, signature: Signature) -> list[Any]:
    schema = row_schema(signature)
    if signature.whole and is_list(inputs):  # data points
        return _instances(inputs, signature)
    if type(inputs) is not dict or is_b64(inputs):
        inputs = {_only(schema, "inputs is a plain value/list, but expecting an object"): inputs}
    columns = {name: _with_bytes(plain(value)) for name, value in inputs.items()}
    lengths = {name: len(value) for name, value in columns.items() if is_list(value)}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{messages.cut(name)} has {length}" for name, length in list(lengths.items())[:4])
        raise invalid(f"The columns of 'inputs' must have one element per row each, but {told}")
    count = next(iter(lengths.values()), 1)
    return [{name: value[index] if name in lengths else value for name, value in columns.items()} for index in range(count)]


def _only(schema: JsonSchema, complaint: str) -> str:
    """The field that a bare value is for."""
    properties = list(schema.get("properties", ()))
    needed = properties if len(properties) == 1 else list(schema.get("required", ()))
    if len(needed) != 1:
        raise invalid(f"{complaint} as the model needs {', '.join(properties) or 'no input'}")
    return str(needed[0])


def _with_bytes(value: Any, depth: int = 0) -> Any:
    if type(value) is dict and not is_b64(value) and depth < _DEEPEST:
        return {key: _with_bytes(item, depth + 1) for key, item in value.items()}
    if type(value) is list and depth < _DEEPEST:
        return [_with_bytes(item, depth + 1) for item in value]
    return with_bytes(value)


# --- the answer ---


def predictions(rows: Sequence[Value], model: str) -> bytes:
    """The body in row form; rows of one and the same key are written without it."""
    written = [_written(row, "", model) for row in rows]
    only = _only_key(written)
    return _dump({"predictions": [row[only] for row in written] if only is not None else written}, model)


def columns(rows: Sequence[Value], model: str) -> bytes:
    """The body in column form."""
    written = [_written(row, "", model) for row in rows]
    only = _only_key(written)
    if only is not None:
        return _dump({"outputs": [row[only] for row in written]}, model)
    if not all(type(row) is dict for row in written):
        return _dump({"outputs": written}, model)
    names = dict.fromkeys(name for row in written for name in row)
    return _dump({"outputs": {name: [row.get(name) for row in written] for name in names}}, model)


def _only_key(rows: Sequence[Any]) -> str | None:
    keys = {tuple(row) if type(row) is dict else () for row in rows}
    found = keys.pop() if len(keys) == 1 else ()
    return found[0] if len(found) == 1 else None


def _written(value: Value, key: str, model: str) -> Any:
    """JSON types only: files, bytes, and texts under names that end in "_bytes" are base64 objects."""
    if isinstance(value, Failure):
        raise ServingError(Kind.MODEL_FAILED, value.message, trace=value.trace)
    if isinstance(value, dict):
        return {name: _written(item, name, model) for name, item in value.items()}
    if isinstance(value, list):
        return [_written(item, key, model) for item in value]
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, str) and key.endswith("_bytes"):
        value = value.encode("utf-8", "surrogatepass")
    if isinstance(value, Blob):
        value = value.data
    return {"b64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def _dump(document: dict[str, Any], model: str) -> bytes:
    """NaN and the infinities are bare tokens, as this protocol writes them."""
    try:
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    except (ValueError, RecursionError) as error:
        raise ServingError(Kind.MODEL_FAILED, f"model '{model}' answered what JSON cannot carry: {error}") from error
