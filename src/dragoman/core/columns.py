"""Values of one field, one per row, as one array: strict about types, so that nothing is cut, rounded or guessed. Called by convert.py."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from dragoman.core.tensors import BF16, BOOL, BYTES, FP64, INT64, Array, Blob, Datatype, Value, datatype_of

_DEEPEST = 32
"""NumPy's own bound on dimensions is not far above it."""
_HOLDS = {
    "bool": frozenset({bool}),
    "int": frozenset({int}),
    "uint": frozenset({int}),
    "float": frozenset({int, float}),
    "bits": frozenset({int, float}),
    "bytes": frozenset({str, bytes, Blob}),
}
_EXPECTED = {
    "bool": "true or false",
    "int": "integers",
    "uint": "non-negative integers",
    "float": "numbers",
    "bits": "numbers",
    "bytes": "texts or bytes",
}


class WrongColumnError(ValueError):
    """The message says what does not fit, for a sentence that names the field."""


def column(values: Sequence[Value], datatype: Datatype, rank: int | None = None) -> Array:
    """An array with a first axis of one element per value and, below it, the nesting of the values: `rank` dimensions, if it is given.

    Raises WrongColumnError for values of another type or out of range, and for lists that do not form a box.
    """
    if any(isinstance(value, np.ndarray) for value in values):
        values = [_unpacked(value, datatype) for value in values]
        if all(isinstance(value, np.ndarray) for value in values):
            return _ranked(_stacked(values, datatype), rank)
        values = [value.tolist() if isinstance(value, np.ndarray) else value for value in values]
    if not values:
        return np.empty((0,) * (rank or 1), datatype.numpy)
    flat, shape = _flattened(list(values))
    if datatype.kind not in _HOLDS:
        raise WrongColumnError(f"{datatype} cannot be made of rows")
    held = _HOLDS[datatype.kind]
    if set(map(type, flat)) - held:
        wrong = next(each for each in flat if type(each) not in held)
        raise WrongColumnError(f"{_named(wrong)} came for {datatype}, which takes {_EXPECTED[datatype.kind]}")
    return _ranked(_filled(flat, datatype).reshape(shape), rank)


def guess(values: Sequence[Value]) -> Datatype:
    """The datatype for values that nobody declared: INT64, FP64, BOOL or BYTES, by what is in them."""
    arrays = [value.dtype for value in values if isinstance(value, np.ndarray)]
    if arrays:
        return datatype_of(np.result_type(*arrays)) or FP64
    flat, _ = _flattened(list(values))
    types = set(map(type, flat))
    if types == {bool}:
        return BOOL
    if types == {int}:
        return INT64
    return BYTES if types and types <= _HOLDS["bytes"] else FP64


def _unpacked(value: Value, datatype: Datatype) -> Value:
    """An array of another kind goes the strict way, element by element."""
    if not isinstance(value, np.ndarray):
        return value
    own = datatype_of(value.dtype)
    same = own is datatype or (own is not None and own.kind == datatype.kind and np.can_cast(value.dtype, datatype.numpy, "same_kind"))
    return value if same and own is not BYTES and datatype is not BF16 and _fits(value, datatype) else value.tolist()


def _fits(array: Array, datatype: Datatype) -> bool:
    if datatype.kind not in ("int", "uint") or not array.size or array.dtype == datatype.numpy:
        return True
    bounds = np.iinfo(datatype.numpy)
    return bool(bounds.min <= array.min() and array.max() <= bounds.max)


def _stacked(arrays: Sequence[Array], datatype: Datatype) -> Array:
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        raise WrongColumnError(f"the rows have different shapes: {', '.join(str(list(s)) for s in sorted(shapes)[:4])}")
    return np.stack(arrays).astype(datatype.numpy, copy=False)


def _flattened(values: list[Value]) -> tuple[list[Any], tuple[int, ...]]:
    """All elements in order, and the shape of their nesting."""
    shape = [len(values)]
    flat = values
    while list in (types := set(map(type, flat))):
        if len(types) > 1:
            raise WrongColumnError("lists stand beside single values")
        lengths = set(map(len, flat))
        if len(lengths) > 1:
            raise WrongColumnError(f"the lists have different lengths: {', '.join(map(str, sorted(lengths)[:4]))}")
        shape.append(lengths.pop())
        if len(shape) > _DEEPEST:
            raise WrongColumnError(f"lists are nested deeper than {_DEEPEST} levels")
        flat = list(chain.from_iterable(flat))
    return flat, tuple(shape)


def _filled(flat: list[Any], datatype: Datatype) -> Array:
    if datatype is BYTES:
        made: Array = np.empty(len(flat), object)
        made[:] = [_bytes(value) for value in flat]
        return made
    if datatype.kind in ("int", "uint") and flat:
        bounds = np.iinfo(datatype.numpy)
        odd = next((v for v in (min(flat), max(flat)) if not bounds.min <= v <= bounds.max), None)
        if odd is not None:
            raise WrongColumnError(f"{_named(odd)} is out of range for {datatype}")
    try:
        with np.errstate(over="ignore"):
            return _rounded(np.array(flat, np.float32)) if datatype is BF16 else np.array(flat, datatype.numpy)
    except OverflowError:
        raise WrongColumnError(f"a number is out of range for {datatype}") from None


def _rounded(singles: Array) -> Array:
    """BF16: the upper half of a float32, rounded to even; NaN must not be rounded into something else."""
    bits: Array = singles.view(np.uint32)
    rounded: Array = np.where(np.isnan(singles), bits | 0x400000, bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return rounded.astype(np.uint16)


def _bytes(value: str | bytes | Blob) -> bytes:
    if isinstance(value, Blob):
        return value.data
    if isinstance(value, bytes):
        return value
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise WrongColumnError("a text has half a surrogate pair, which UTF-8 cannot carry") from None


def _ranked(array: Array, rank: int | None) -> Array:
    if rank is not None and array.ndim != rank:
        raise WrongColumnError(f"each row's value has {array.ndim - 1} dimensions, expected {rank - 1}")
    return array


def _named(value: object) -> str:
    if value is None:
        return "null"
    text = repr(value) if isinstance(value, int | float | str) else type(value).__name__
    return text if len(text) <= 80 else f"{text[:77]}..."
