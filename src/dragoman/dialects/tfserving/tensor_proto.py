"""TensorFlow's TensorProto to tensors and back, from the bytes of a message and to them. Called by grpc.py; knows no message class.

Elements come in `tensor_content`, or in the repeated field of their type, whose last element stands for all that are missing. Answers use the
repeated fields, because that is where clients look. Floating-point numbers lie there as they lie in an array, so nothing is copied twice.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from dragoman.core import tensors as t
from dragoman.core.errors import ServingError, invalid
from dragoman.core.tensors import Array, Datatype, Tensor, element_count
from dragoman.dialects.buffers import owned, raw
from dragoman.dialects.tfserving.messages import TYPE_NAMES, cut
from dragoman.dialects.tfserving.room import Room
from dragoman.proto import wire
from dragoman.proto.wire import FIXED32, FIXED64, LENGTH, VARINT, Buffer, tag

NUMBERS: Mapping[Datatype, int] = {
    t.FP32: 1,
    t.FP64: 2,
    t.INT32: 3,
    t.UINT8: 4,
    t.INT16: 5,
    t.INT8: 6,
    t.BYTES: 7,
    t.COMPLEX64: 8,
    t.INT64: 9,
    t.BOOL: 10,
    t.BF16: 14,
    t.UINT16: 17,
    t.COMPLEX128: 18,
    t.FP16: 19,
    t.UINT32: 22,
    t.UINT64: 23,
}
"""What TensorFlow's enum DataType calls them."""
_BY_NUMBER: Mapping[int, Datatype] = {number: datatype for datatype, number in NUMBERS.items()}

_DTYPE, _SHAPE, _CONTENT = tag(1, VARINT), tag(2, LENGTH), tag(4, LENGTH)
_DIM, _SIZE, _UNKNOWN_RANK = tag(2, LENGTH), tag(1, VARINT), tag(3, VARINT)

_HALF, _FLOAT, _DOUBLE, _INT, _STRING, _COMPLEX64, _INT64, _BOOL, _COMPLEX128, _UINT32, _UINT64 = 13, 5, 6, 7, 8, 9, 10, 11, 12, 16, 17
_FIELDS: Mapping[int, tuple[str, int]] = {
    _HALF: ("half_val", VARINT),
    _FLOAT: ("float_val", FIXED32),
    _DOUBLE: ("double_val", FIXED64),
    _INT: ("int_val", VARINT),
    _STRING: ("string_val", LENGTH),
    _COMPLEX64: ("scomplex_val", FIXED32),
    _INT64: ("int64_val", VARINT),
    _BOOL: ("bool_val", VARINT),
    _COMPLEX128: ("dcomplex_val", FIXED64),
    _UINT32: ("uint32_val", VARINT),
    _UINT64: ("uint64_val", VARINT),
}
"""The repeated fields: their names, and how a single one of their elements is laid out. Numbers may be packed, too."""
_PIECES: Mapping[int, int] = {tag(field, kind): field for field, (_, single) in _FIELDS.items() for kind in (single, LENGTH)}
_FIELD_OF: Mapping[Datatype, int] = {
    t.FP32: _FLOAT,
    t.FP64: _DOUBLE,
    t.INT32: _INT,
    t.UINT8: _INT,
    t.INT16: _INT,
    t.INT8: _INT,
    t.BYTES: _STRING,
    t.COMPLEX64: _COMPLEX64,
    t.INT64: _INT64,
    t.BOOL: _BOOL,
    t.BF16: _HALF,
    t.UINT16: _INT,
    t.COMPLEX128: _COMPLEX128,
    t.FP16: _HALF,
    t.UINT32: _UINT32,
    t.UINT64: _UINT64,
}
_AS_THEY_LIE = frozenset({t.FP32, t.FP64, t.COMPLEX64, t.COMPLEX128})
"""Datatypes whose repeated field holds just the bytes of an array."""

_POINTER = 8
_MAX_RANK: Final = 32
_MOST: Final = 2**63 - 1


# --- reading ---


def decode(name: str, message: Buffer, room: Room) -> Tensor:
    """The tensor of a serialized TensorProto. Raises INVALID_INPUT, or TOO_LARGE from `room`."""
    number = 0
    shape: list[int] = []
    content: Buffer = b""
    pieces: dict[int, list[Any]] = {}
    for key, value in wire.fields(message, wire.ELEMENTS):
        if key == _CONTENT:
            content = value
        elif key == _DTYPE:
            number = value
        elif key == _SHAPE:
            _dimensions(value, shape, name)
        else:
            field = _PIECES.get(key)
            if field is not None:
                pieces.setdefault(field, []).append(value)
    datatype = _BY_NUMBER.get(number)
    if datatype is None:
        raise _fault(name, f"its data type is number {wire.signed(number)}; there are {', '.join(_NUMBERED)}")
    count = element_count(shape)
    if count > _MOST:
        raise _fault(name, f"its shape [{','.join(map(str, shape))}] has more elements than 64 bits can count")
    try:
        if len(content):
            array = _strings(content, count) if datatype is t.BYTES else _content(content, datatype, count)
        else:
            array = _values(name, datatype, pieces, count, room)
        return Tensor(name, datatype, array.reshape(shape))
    except ValueError as error:  # also a 0 among dimensions that no array can have
        raise _fault(name, f"{error} (shape [{','.join(map(str, shape))}] of {TYPE_NAMES[datatype]})") from None


_NUMBERED = tuple(f"{number} ({TYPE_NAMES[datatype]})" for number, datatype in _BY_NUMBER.items())


def _dimensions(message: memoryview, shape: list[int], name: str) -> None:
    for key, value in wire.fields(message):
        if key == _DIM:
            size = 0
            for inner, number in wire.fields(value):
                if inner == _SIZE:
                    size = wire.signed(number)
            if size < 0 or len(shape) == _MAX_RANK:
                raise _fault(name, f"dimension {len(shape)} of its shape is {size}, expected at most {_MAX_RANK} known sizes")
            shape.append(size)
        elif key == _UNKNOWN_RANK and value:
            raise _fault(name, "its shape has an unknown rank")


def _content(content: Buffer, datatype: Datatype, count: int) -> Array:
    if len(content) != count * datatype.size:
        raise ValueError(f"tensor_content has {len(content)} bytes, expected {count * datatype.size}")
    return owned(content, datatype)


def _strings(content: Buffer, count: int) -> Array:
    """TensorFlow's own form of several texts in one field: the length of each, and then all of them."""
    ends = np.flatnonzero(np.frombuffer(content, np.uint8) < 0x80)
    if count > ends.size:
        raise ValueError(f"tensor_content has {len(content)} bytes, which do not hold {count} lengths")
    view = memoryview(content)
    at = int(ends[count - 1]) + 1 if count else 0
    lengths = wire.varint_numbers([view[:at]]).tolist()
    if at + sum(lengths) != len(view):
        raise ValueError(f"tensor_content has {len(view)} bytes, expected {at + sum(lengths)} as its lengths say")
    array: Array = np.empty(count, object)
    for index, length in enumerate(lengths):
        array[index] = bytes(view[at : at + length])
        at += length
    return array


def _values(name: str, datatype: Datatype, pieces: Mapping[int, Sequence[Any]], count: int, room: Room) -> Array:
    field = _FIELD_OF[datatype]
    given = pieces.get(field, ())
    if not given and pieces:
        other = _FIELDS[next(iter(pieces))][0]
        raise ValueError(f"its elements are in {other}, expected in {_FIELDS[field][0]}")
    array = _elements(datatype, given)
    size = len(array)
    if size == count:
        return array
    if size > count:
        raise ValueError(f"{_FIELDS[field][0]} has {size} elements, expected {count}")
    room.take(count * (datatype.size or _POINTER), f"{_where(name)}: a value that stands for all")
    whole: Array = np.empty(count, datatype.numpy)
    whole[:size] = array
    whole[size:] = array[-1] if size else b"" if datatype is t.BYTES else 0
    return whole


def _elements(datatype: Datatype, given: Sequence[Any]) -> Array:
    """The elements of one repeated field, flat. Raises ValueError for numbers that the datatype cannot hold."""
    if datatype is t.BYTES:
        texts: Array = np.empty(len(given), object)
        texts[:] = [bytes(each) for each in given]
        return texts
    if datatype in _AS_THEY_LIE:
        joined = given[0] if len(given) == 1 else b"".join(given)
        if len(joined) % datatype.size:
            raise ValueError(f"{len(joined)} bytes are no whole number of elements")
        return owned(joined, datatype)
    return _integers(datatype, wire.varint_numbers(given))


def _integers(datatype: Datatype, numbers: "np.ndarray[Any, np.dtype[np.uint64]]") -> Array:
    """What varints are as elements of a datatype: cut to the width of their field as protobuf does, then checked against narrower types."""
    if datatype is t.BOOL:
        truth: Array = numbers != 0
        return truth
    if datatype is t.UINT64:
        return numbers
    if datatype is t.INT64:
        return numbers.view(np.int64)
    if datatype is t.UINT32:
        return numbers.astype(np.uint32)
    plain = numbers.astype(np.uint32).view(np.int32)
    if datatype is t.INT32:
        return plain
    target = np.dtype(np.uint16) if datatype is t.FP16 or datatype is t.BF16 else datatype.numpy
    array = plain.astype(target)
    if (array != plain).any():
        wrong = plain[np.flatnonzero(array != plain)[0]]
        raise ValueError(f"{wrong} does not fit")
    return array.view(datatype.numpy)


# --- writing ---


def encode(tensor: Tensor) -> list[Buffer]:
    """The pieces of a serialized TensorProto; the big one is a view of the tensor's array where that is laid out so."""
    datatype, array = tensor.datatype, tensor.array
    parts: list[Buffer] = []
    wire.put_varint(parts, 1, NUMBERS[datatype])
    dimensions: list[Buffer] = []
    for size in array.shape:
        dimension: list[Buffer] = []
        if size:
            wire.put_varint(dimension, 1, size)
        wire.nest(dimensions, 2, dimension)
    wire.nest(parts, 2, dimensions)
    field = _FIELD_OF[datatype]
    if datatype is t.BYTES:
        for each in array.reshape(-1).tolist():
            wire.put(parts, field, each)
    elif array.size:
        wire.put(parts, field, _packed(array, datatype))
    return parts


def _packed(array: Array, datatype: Datatype) -> Buffer:
    if datatype in _AS_THEY_LIE:
        return raw(array, datatype)
    flat = np.ascontiguousarray(array, datatype.numpy).reshape(-1)
    return wire.packed_varints(flat.view(np.uint16) if datatype is t.FP16 else flat)


# --- errors ---


def _where(name: str) -> str:
    return f"tensor parsing error: {cut(name)}"


def _fault(name: str, why: str) -> ServingError:
    return invalid(f"{_where(name)}: {why}")
