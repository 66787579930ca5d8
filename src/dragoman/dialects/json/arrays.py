"""Strict builder of arrays from parsed JSON. It looks at the element types first, because numpy would turn ["5"] into 5.0 and [1.5] into 1.

The nesting gives the shape; the datatype decides which elements are taken. Called by the codecs through `dragoman.dialects.json`.
"""

from array import array
from itertools import chain
from typing import Any, NoReturn

import numpy as np

from dragoman.core import tensors
from dragoman.core.tensors import Array, Datatype
from dragoman.dialects.json.errors import Fault, NumbersError
from dragoman.dialects.json.packed import NumberList

MAX_DEPTH = 32
"""Levels of lists; the highest rank that every supported numpy can hold."""

_FLOAT = frozenset({float, int})
_INT = frozenset({int})
_BOOL = frozenset({bool})
_BYTES = frozenset({str, bytes})

# array.array checks the range of integers exactly and turns a double too large for a float into infinity without numpy's warning; an
# ndarray made over it is writable, aligned, and costs 0.3 us for four elements (np.array: 0.4).
_BUILDERS: dict[Datatype, tuple[frozenset[type], str]] = {
    tensors.BOOL: (_BOOL, "B"),
    tensors.UINT8: (_INT, "B"),
    tensors.UINT16: (_INT, "H"),
    tensors.UINT32: (_INT, "I"),
    tensors.UINT64: (_INT, "Q"),
    tensors.INT8: (_INT, "b"),
    tensors.INT16: (_INT, "h"),
    tensors.INT32: (_INT, "i"),
    tensors.INT64: (_INT, "q"),
    tensors.FP32: (_FLOAT, "f"),
    tensors.FP64: (_FLOAT, "d"),
    tensors.BYTES: (_BYTES, ""),
}


def array_of(value: object, datatype: Datatype) -> Array:
    """An array with the nesting of `value` as its shape (a bare element gives a 0-d array), owned by the caller and writable.

    `value` is anything that `loads` returned or held. FP32 and FP64 take integers and decimals (beyond FP32 is infinity), integer types
    take integers in their range, BOOL takes true and false, BYTES takes strings (as UTF-8) and `bytes` that a codec put in their place.
    Raises NumbersError: ragged nesting, a wrong element, a datatype that JSON cannot carry (FP16, BF16, complex).
    """
    if type(value) is NumberList:
        ready = value.array(datatype)
        if ready is not None:
            return ready
        value = value.tolist()
    builder = _BUILDERS.get(datatype)
    if builder is None:
        raise NumbersError(Fault.DATATYPE, datatype, (), value)
    accepted, code = builder
    shape: tuple[int, ...]
    if type(value) is list:
        flat, shape = value, (len(value),)
    else:
        flat, shape = [value], ()
    types = set(map(type, flat))
    while not types <= accepted:
        if types == {NumberList}:
            ready = _stacked(flat, shape, datatype)
            if ready is not None:
                return ready
        if NumberList in types:
            flat = [item.tolist() if type(item) is NumberList else item for item in flat]
            types = set(map(type, flat))
        if types != {list} or not shape or len(shape) >= MAX_DEPTH:
            _refuse(value, datatype)
        lengths = set(map(len, flat))
        if len(lengths) != 1:
            _refuse(value, datatype)
        shape += (lengths.pop(),)
        flat = list(chain.from_iterable(flat))
        types = set(map(type, flat))
    try:
        if code:
            return np.ndarray(shape, datatype.numpy, array(code, flat))
        return _bytes_array(flat).reshape(shape)
    except (OverflowError, UnicodeEncodeError):
        _refuse(value, datatype)


def _bytes_array(flat: list[str | bytes]) -> Array:
    # Filled by slice: np.array would look into the elements and may choose dtype S, which loses trailing NULs.
    made: Array = np.empty(len(flat), object)
    made[:] = [item.encode() if type(item) is str else item for item in flat]
    return made


def _stacked(parts: list[NumberList], shape: tuple[int, ...], datatype: Datatype) -> Array | None:
    """Equal shapes joined along new first axes, or None when some part is not a plain box of fitting numbers."""
    arrays: list[Array] = []
    for part in parts:
        made = part.array(datatype)
        if made is None or (arrays and made.shape != arrays[0].shape):
            return None
        arrays.append(made)
    joined = shape + arrays[0].shape
    return np.stack(arrays).reshape(joined) if len(joined) <= MAX_DEPTH else None


def _refuse(value: object, datatype: Datatype) -> NoReturn:
    """Find the first offender in the order of the text, and raise. Slow, but one visit per element and MAX_DEPTH calls deep."""
    shape: list[int] = []
    node: Any = _plain(value)
    root = node
    while type(node) is list and len(shape) <= MAX_DEPTH:
        shape.append(len(node))
        if not node:
            break
        node = _plain(node[0])
    if len(shape) > MAX_DEPTH:
        raise NumbersError(Fault.DEPTH, datatype, (0,) * MAX_DEPTH, node, expected=MAX_DEPTH)
    _visit(root, (), shape, datatype)
    raise AssertionError("the value was refused but every element is valid")


def _visit(value: Any, path: tuple[int, ...], shape: list[int], datatype: Datatype) -> None:
    value = _plain(value)
    level, rank = len(path), len(shape)
    if type(value) is list:
        if level >= rank:
            raise NumbersError(Fault.LIST, datatype, path, value, expected=rank)
        if len(value) != shape[level]:
            raise NumbersError(Fault.LENGTH, datatype, path, value, expected=shape[level], got=len(value))
        for index, item in enumerate(value):
            _visit(item, (*path, index), shape, datatype)
        return
    if level != rank:
        raise NumbersError(Fault.ELEMENT, datatype, path, value, expected=rank)
    accepted, code = _BUILDERS[datatype]
    if type(value) not in accepted:
        raise NumbersError(Fault.TYPE, datatype, path, value)
    try:
        if code:
            array(code, (value,))
        elif type(value) is str:
            value.encode()
    except OverflowError:
        raise NumbersError(Fault.RANGE, datatype, path, value) from None
    except UnicodeEncodeError:
        raise NumbersError(Fault.TYPE, datatype, path, value) from None


def _plain(value: Any) -> Any:
    return value.tolist() if type(value) is NumberList else value
