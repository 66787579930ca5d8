"""Elements of a tensor in the typed fields of InferTensorContents, to arrays. Called by grpc_codec.py for inputs that are not raw."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dragoman.core.errors import ServingError, invalid
from dragoman.core.tensors import BOOL, Array, Datatype, Shape
from dragoman.proto import wire
from dragoman.proto.wire import FIXED32, FIXED64, LENGTH, VARINT, fields

_FIELDS: Mapping[int, tuple[str, int, str]] = {
    1: ("bool_contents", VARINT, ""),
    2: ("int_contents", VARINT, ""),
    3: ("int64_contents", VARINT, ""),
    4: ("uint_contents", VARINT, ""),
    5: ("uint64_contents", VARINT, ""),
    6: ("fp32_contents", FIXED32, "<f4"),
    7: ("fp64_contents", FIXED64, "<f8"),
    8: ("bytes_contents", LENGTH, ""),
}
"""InferTensorContents: number -> name, how a single element is laid out (numbers may be packed, too), and as what numpy reads it."""
_FIELD_OF: Mapping[str, int] = {
    "BOOL": 1, "INT8": 2, "INT16": 2, "INT32": 2, "INT64": 3, "UINT8": 4, "UINT16": 4, "UINT32": 4, "UINT64": 5,
    "FP32": 6, "FP64": 7, "BYTES": 8,
}  # fmt: skip
"""Datatype -> its field. FP16 and BF16 have none: they are raw only."""


def array_of(messages: Sequence[memoryview], datatype: Datatype, shape: Shape, count: int, where: str) -> Array:
    """The array that an input's contents hold: `count` (the product of `shape`) elements. Raises INVALID_INPUT for `where`.

    `messages` are all InferTensorContents that came for the input, as protobuf joins them.
    """
    own = _FIELD_OF.get(datatype.name, 0)
    pieces: list[Any] = []
    for contents in messages:
        for key, value in fields(contents, wire.ELEMENTS):
            number, wire_type = key >> 3, key & 7
            if number not in _FIELDS or wire_type not in (LENGTH, _FIELDS[number][1]):
                continue
            if number != own:
                takes = f"takes {_FIELDS[own][0]}" if own else "takes raw_input_contents only"
                raise invalid(f"{where} has {_FIELDS[number][0]}, but {datatype} {takes}")
            pieces.append(value)
    flat = _elements(pieces, datatype, own, where) if pieces else np.empty(0, datatype.numpy)
    if flat.size != count:
        hint = "" if own else f"; {datatype} takes raw_input_contents only"
        what = f"{flat.size} elements" if pieces else "no data"
        raise invalid(f"{where} has {what}, but its shape {list(shape)} takes {count} elements{hint}")
    try:
        return flat.reshape(shape)
    except ValueError:  # a 0 among dimensions that no array can have
        raise invalid(f"{where} has shape {list(shape)}, which is too large") from None


def _elements(pieces: list[Any], datatype: Datatype, number: int, where: str) -> Array:
    name, layout, dtype = _FIELDS[number]
    if layout == LENGTH:
        elements: Array = np.empty(len(pieces), object)
        elements[:] = [bytes(piece) for piece in pieces]
        return elements
    if layout != VARINT:
        try:
            return wire.fixed_numbers(pieces, dtype).copy()
        except ServingError as error:
            raise invalid(f"{where}: {error.message}") from None
    numbers = wire.varint_numbers(pieces)
    if datatype is BOOL:
        truth: Array = numbers != 0
        return truth
    wide: Array = numbers.view(np.int64) if datatype.kind == "int" else numbers
    made = wide.astype(datatype.numpy)
    if made.dtype != wide.dtype and not np.array_equal(made, wide):
        raise invalid(f"{where} has {name} that do not fit into {datatype}")
    return made
