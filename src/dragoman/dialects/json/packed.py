"""A long list of numbers inside a parsed document, kept as text until an array of a known datatype is asked for.

Python objects for 150,000 floats cost three times what simdjson needs to put them into a buffer. simdjson flattens nested lists without
looking whether they form a box, so the box is proved here. Made by reading.py, taken apart by arrays.py.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
import simdjson

from dragoman.core import tensors
from dragoman.core.tensors import Array, Datatype, Shape

_NOT_STRUCTURE = b"0123456789+-.eE \t\r\n"

# How simdjson is asked (double, signed, unsigned), what it then fills. Integers are exact to 64 bits, and a decimal makes it refuse.
_READ: dict[Datatype, tuple[str, str]] = {
    tensors.FP32: ("d", "f8"),
    tensors.FP64: ("d", "f8"),
    tensors.UINT64: ("u", "u8"),
    **dict.fromkeys(
        (tensors.UINT8, tensors.UINT16, tensors.UINT32, tensors.INT8, tensors.INT16, tensors.INT32, tensors.INT64), ("i", "i8")
    ),
}


class NumberList:
    """Stands for a JSON list that holds numbers only, nested or not. Behaves as that list for len, iteration and `tolist`.

    Construction parses the text and raises ValueError or RuntimeError when it is not valid JSON or holds an integer over 64 bits.
    """

    __slots__ = ("_levels", "_text", "_tree")

    def __init__(self, text: bytes, levels: int) -> None:
        """`text` is one list that begins with `levels` brackets."""
        self._text = text
        self._levels = levels
        self._tree: Any = simdjson.Parser().parse(text)

    def __len__(self) -> int:
        return len(self._tree)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.tolist())

    def tolist(self) -> list[Any]:
        """The list as plain Python objects, as if it had been parsed so at once."""
        made: list[Any] = orjson.loads(self._text)
        return made

    def array(self, datatype: Datatype) -> Array | None:
        """A writable array, or None when this way cannot prove that every element fits and the lists form a box: then ask `tolist`."""
        if datatype not in _READ:
            return None
        code, wide = _READ[datatype]
        try:
            numbers: Array = np.frombuffer(self._tree.as_buffer(of_type=code), wide)
        except (TypeError, ValueError, RuntimeError):
            return None
        shape = self._shape(numbers.size)
        if shape is None:
            return None
        if numbers.dtype != datatype.numpy:
            if datatype.kind != "float":
                limits = np.iinfo(datatype.numpy)
                if numbers.size and (numbers.min() < limits.min or numbers.max() > limits.max):
                    return None
            with np.errstate(over="ignore"):  # beyond FP32 is infinity, as with short lists
                numbers = numbers.astype(datatype.numpy)
        return numbers.reshape(shape)

    def _shape(self, count: int) -> Shape | None:
        """The shape, or None if the lists do not form a box."""
        if self._levels == 1 and self._text.find(b"[", 1) < 0:
            return (count,)
        shape: list[int] = []
        node = self._tree
        while isinstance(node, simdjson.Array):
            shape.append(len(node))
            if not shape[-1]:
                return None
            node = node[0]
        if tensors.element_count(shape) != count:
            return None
        skeleton = b"[" + b"," * (shape[-1] - 1) + b"]"
        for length in reversed(shape[:-1]):
            skeleton = b"[" + b",".join([skeleton] * length) + b"]"
        return tuple(shape) if self._text.translate(None, _NOT_STRUCTURE) == skeleton else None


def is_list(value: object) -> bool:
    """Whether a value that `loads` returned was written as a JSON list."""
    return type(value) is list or type(value) is NumberList
