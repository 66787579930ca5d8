"""Strict builder of arrays from parsed JSON. It looks at the element types first, because numpy would turn ["5"] into 5.0 and [1.5] into 1.

The nesting gives the shape; the datatype decides which elements are taken. Called by the codecs through `dragoman.dialects.json`.
"""

import math
from array import array
from collections.abc import Callable
from itertools import chain
from typing import Any, NoReturn

import numpy as np

from dragoman.core import tensors
from dragoman.core.tensors import BYTES, Array, Datatype
from dragoman.dialects.json.errors import Fault, NumbersError
from dragoman.dialects.json.packed import MAX_DEPTH, NumberList, is_list

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
    BYTES: (_BYTES, ""),
}


def array_of(value: object, datatype: Datatype, *, missing: bool = False) -> Array:
    """An array with the nesting of `value` as its shape (a bare element gives a 0-d array), owned by the caller and writable.

    `value` is anything that `loads` returned or held. FP32 and FP64 take integers and decimals (beyond FP32 is infinity), integer types
    take integers in their range, BOOL takes true and false, BYTES takes strings (as UTF-8) and `bytes` that a codec put in their place.
    With `missing` null is NaN in FP32 and FP64.
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
    flat: list[Any] = [value]
    shape: tuple[int, ...] = ()
    while True:
        while flat and type(flat[0]) is list:
            if len(flat) == 1:  # the value itself, and every batch of one
                flat = flat[0]
                shape += (len(flat),)
            elif set(map(type, flat)) == {list} and len(lengths := set(map(len, flat))) == 1:
                flat = list(chain.from_iterable(flat))
                shape += (lengths.pop(),)
            else:
                break
        if accepted.issuperset(map(type, flat)) and len(shape) <= MAX_DEPTH:
            try:
                return np.ndarray(shape, datatype.numpy, array(code, flat)) if code else _bytes_array(flat).reshape(shape)
            except (OverflowError, UnicodeEncodeError):
                _refuse(value, datatype, missing)
        types = set(map(type, flat))
        if missing and type(None) in types and datatype.kind == "float" and accepted.issuperset(types - {type(None)}):
            flat = [math.nan if item is None else item for item in flat]
            continue
        if NumberList not in types:
            _refuse(value, datatype, missing)
        stacked = _stacked(flat, shape, datatype) if len(types) == 1 else None
        if stacked is not None:
            return stacked
        flat = [item.tolist() if type(item) is NumberList else item for item in flat]


def guess(value: object) -> Datatype:
    """The datatype of a value for an input that takes any: by how its elements are written.

    Integers are INT64, or FP64 when one of them is too large; numbers of which some have a point are FP64; mixed values are called FP64, so that
    the first element which is not a number is then refused by name. Of texts and booleans with null between them null is refused.
    """
    if type(value) is NumberList:
        return tensors.FP64 if value.array(tensors.INT64) is None else tensors.INT64
    flat: list[Any] = [value]
    types: set[type] = {type(value)}
    for _ in range(MAX_DEPTH + 1):
        if NumberList in types:
            flat = [item.tolist() if type(item) is NumberList else item for item in flat]
        elif list not in types:
            break
        flat = list(chain.from_iterable(item if type(item) is list else (item,) for item in flat))
        types = set(map(type, flat))
    if types == {int}:
        return tensors.INT64 if max(flat) < 2**63 else tensors.FP64
    types.discard(type(None))
    if types == {bool}:
        return tensors.BOOL
    if types and types <= {str, dict}:
        return tensors.BYTES
    return tensors.FP64


def _bytes_array(flat: list[str | bytes]) -> Array:
    # Filled by slice: np.array would look into the elements and may choose dtype S, which loses trailing NULs.
    made: Array = np.empty(len(flat), object)
    made[:] = [item.encode() if type(item) is str else item for item in flat]
    return made


def _stacked(parts: list[NumberList], shape: tuple[int, ...], datatype: Datatype) -> Array | None:
    """Equal shapes joined along new first axes, or None when some part is not a plain box of fitting numbers."""
    arrays: list[Array] = []
    for part in parts:  # stops at the first that does not fit, so a faulty request costs little before the slow way
        made = part.array(datatype)
        if made is None or (arrays and made.shape != arrays[0].shape):
            return None
        arrays.append(made)
    joined = shape + arrays[0].shape
    return np.stack(arrays).reshape(joined) if len(joined) <= MAX_DEPTH else None


def _refuse(value: object, datatype: Datatype, missing: bool) -> NoReturn:
    """Find the first offender in the order of the text, and raise.

    Level by level, so that the work is done in C and a hostile body costs no more than a few readings of it. A fault at one level leaves
    only what stands before it for the levels below: what is found there comes earlier in the text.
    """
    shape = _first_path(value)
    if len(shape) > MAX_DEPTH:
        raise NumbersError(Fault.DEPTH, datatype, (0,) * MAX_DEPTH, [], expected=MAX_DEPTH)
    rank = len(shape)
    error: NumbersError | None = None
    flat: list[Any] = [value]
    for level in range(rank + 1):
        if NumberList in set(map(type, flat)):
            flat = [item.tolist() if type(item) is NumberList else item for item in flat]
        at = _first_fault(flat, _lists_of(shape[level]) if level < rank else _elements_of(datatype, missing))
        if at is not None:
            path = tuple(int(index) for index in np.unravel_index(at, shape[:level])) if level else ()
            error = _error(flat[at], path, shape, datatype)
            flat = flat[:at]
        if level < rank:
            flat = list(chain.from_iterable(flat))
    assert error is not None, "the value was refused but every element is valid"
    raise error


def _first_path(value: object) -> list[int]:
    """Lengths of the first lists, one inside the other; it stops behind MAX_DEPTH."""
    shape: list[int] = []
    node: Any = value
    while is_list(node) and len(shape) <= MAX_DEPTH:
        shape.append(len(node))
        if not shape[-1]:
            break
        node = (node.tolist() if type(node) is NumberList else node)[0]
    return shape


def _first_fault(flat: list[Any], fits: Callable[[list[Any]], bool]) -> int | None:
    """Index of the first item that does not fit, by halving; each item is looked at about twice."""
    if fits(flat):
        return None
    good, bad = 0, len(flat)  # everything before `good` fits; something before `bad` does not
    while bad - good > 1:
        middle = (good + bad) // 2
        if fits(flat[good:middle]):
            good = middle
        else:
            bad = middle
    return good


def _lists_of(length: int) -> Callable[[list[Any]], bool]:
    return lambda items: set(map(type, items)) <= {list} and set(map(len, items)) <= {length}


def _elements_of(datatype: Datatype, missing: bool) -> Callable[[list[Any]], bool]:
    accepted, code = _BUILDERS[datatype]
    null = missing and datatype.kind == "float"

    def fit(items: list[Any]) -> bool:
        if null:
            items = [item for item in items if item is not None]
        if not accepted.issuperset(map(type, items)):
            return False
        try:
            array(code, items) if code else _bytes_array(items)
        except (OverflowError, UnicodeEncodeError):
            return False
        return True

    return fit


def _error(item: Any, path: tuple[int, ...], shape: list[int], datatype: Datatype) -> NumbersError:
    """What is wrong with an item at this path, in a value whose first path has this shape."""
    level, rank = len(path), len(shape)
    if type(item) is list:
        if level == rank:
            return NumbersError(Fault.LIST, datatype, path, item, expected=rank)
        return NumbersError(Fault.LENGTH, datatype, path, item, expected=shape[level], got=len(item))
    if level != rank:
        return NumbersError(Fault.ELEMENT, datatype, path, item, expected=rank)
    held = type(item) in _BUILDERS[datatype][0] and datatype is not BYTES
    return NumbersError(Fault.RANGE if held else Fault.TYPE, datatype, path, item)
