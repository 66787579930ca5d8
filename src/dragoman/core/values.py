"""Turn what user code returned into the values that rows may hold, once, at the edge. Called by runtimes; everything above relies on it.

Rows hold None, bool, int, float, str, bytes, Blob, ndarray, and lists and dicts (with text keys) of these; see core-types in tensors.py.
"""

import base64
import dataclasses
import math
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

import numpy as np

from dragoman.core.errors import Kind, ServingError
from dragoman.core.tensors import Blob, Value, datatype_of

_DEEPEST = 100
"""Levels of lists and dicts; what is deeper is most likely a circle."""

_AS_THEY_ARE = frozenset({type(None), bool, int, float, str, bytes, Blob})


def normalise(value: object, where: str) -> Value:
    """The same value made of allowed types only. New lists and dicts; texts, bytes and arrays are not copied where they need not be.

    NumPy scalars become Python's, tuples lists, enum members their value, dataclasses dicts of their fields, `bytearray` and `memoryview`
    bytes, keys of dicts that are int or bool texts as JSON writes them. Raises ServingError MODEL_FAILED naming the place, which begins
    with `where`, for everything else, for two keys that become one, and for nesting without end.
    """
    return _normal(value, where, _DEEPEST)


def _normal(value: Any, where: str, levels: int) -> Value:
    kind = type(value)
    if kind in _AS_THEY_ARE:
        return value
    if not levels:
        raise _refused(where, f"is nested deeper than {_DEEPEST} levels")
    if kind is list and _AS_THEY_ARE.issuperset(map(type, value)):  # long lists of numbers
        return list(value)
    if kind is list or isinstance(value, list | tuple):
        return [_normal(item, f"{where}[{index}]", levels - 1) for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        return _dict(value, where, levels)
    if isinstance(value, Enum):
        return _normal(value.value, where, levels - 1)
    for plain, make in _PLAIN.items():  # subclasses of plain types, NumPy's float64 and str_ among them
        if isinstance(value, plain):
            return make(value)
    if isinstance(value, np.ndarray):
        return _array(value, where, levels)
    if isinstance(value, np.generic):
        scalar = value.item()
        if type(scalar) in _AS_THEY_ARE:
            return scalar
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return _dict(fields, where, levels)
    raise _refused(where, f"is of type {_type(value)}, expected None, bool, int, float, str, bytes, a file, an array, a list or a dict")


_PLAIN: Mapping[type, Callable[[Any], Value]] = {
    bool: bool,
    int: int.__int__,
    float: float.__float__,
    str: str.__str__,
    bytes: bytes,
    bytearray: bytes,
    memoryview: bytes,
}


def _dict(value: Mapping[Any, Any], where: str, levels: int) -> dict[str, Value]:
    made: dict[str, Value] = {}
    for key, item in value.items():
        text = _key(key, where)
        if text in made:
            raise _refused(where, f"has two keys that are both written as '{text}'")
        made[text] = _normal(item, f"{where}.{text}", levels - 1)
    return made


def _key(key: object, where: str) -> str:
    if type(key) is str:
        return key
    if isinstance(key, Enum) and isinstance(key.value, str | int):
        return _key(key.value, where)
    if isinstance(key, bool | np.bool_):
        return "true" if key else "false"
    if isinstance(key, str):
        return str.__str__(key)
    if isinstance(key, int | np.integer):
        return str(int(key))
    raise _refused(where, f"has a key of type {_type(key)}, expected str, int or bool")


def _array(array: Any, where: str, levels: int) -> Value:
    """Numbers stay an array, in native order and C layout; everything else becomes lists of what it holds."""
    if not array.ndim:
        return _normal(array[()], where, levels - 1)
    if array.dtype.kind in "OUS":
        return _normal(array.tolist(), where, levels - 1)
    datatype = datatype_of(array.dtype)
    if datatype is None or datatype.kind == "complex":
        raise _refused(where, f"is an array of {array.dtype}, expected numbers, booleans or texts")
    return np.ascontiguousarray(array, datatype.numpy)


def jsonable(value: Value) -> Any:
    """A row's value made of JSON types only: files and bytes as `data:` URIs and base64, arrays as lists, non-finite floats as None."""
    kind = type(value)
    if kind is float:
        return value if math.isfinite(value) else None
    if kind is list:
        return [jsonable(item) for item in value]
    if kind is dict:
        return {key: jsonable(item) for key, item in value.items()}
    if kind is Blob:
        return f"data:{value.media_type};base64,{base64.b64encode(value.data).decode()}"
    if kind is bytes:
        return base64.b64encode(value).decode()
    if isinstance(value, np.ndarray):
        return jsonable(value.tolist())
    return value


def _type(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _refused(where: str, why: str) -> ServingError:
    return ServingError(Kind.MODEL_FAILED, f"{where} {why}")
