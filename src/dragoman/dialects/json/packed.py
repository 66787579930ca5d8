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
from dragoman.dialects.json.tokens import parse_with_tokens, put_back, without_tokens

_LONG_ROW = 16
"""Numbers in the innermost list from which walking the lists costs less than taking the numbers out of the text (0.2 against 1.4 ms for
rows of 224, 7 against 1.6 for rows of 3; 150,000 numbers)."""

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
    """Stands for a long JSON list without strings, nested or not. Behaves as that list for len, iteration and `tolist`.

    Construction parses the text and raises ValueError or RuntimeError when it is not valid JSON or holds an integer over 64 bits; with
    `nonfinite` the tokens for NaN and infinities are valid.
    """

    __slots__ = ("_counts", "_plain", "_text", "_tree")

    def __init__(self, text: bytes, nonfinite: bool = False) -> None:
        self._text = text
        self._plain, self._counts = without_tokens(text) if nonfinite else (text, {})
        self._tree: Any = simdjson.Parser().parse(self._plain)

    def __len__(self) -> int:
        return len(self._tree)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.tolist())

    def tolist(self) -> list[Any]:
        """The list as plain Python objects, as if it had been parsed so at once."""
        made: list[Any] = parse_with_tokens(self._text) if self._counts else orjson.loads(self._text)
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
        if shape is None or not put_back(numbers, self._counts):
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
        """The shape, or None if the lists do not form a box. `count` numbers were found in them."""
        shape = [len(self._tree)]
        nodes = self._tree
        while isinstance(node := nodes[0] if len(nodes) else None, simdjson.Array):
            nodes = node
            shape.append(len(nodes))
        if len(shape) == 1:
            shape = [count]  # simdjson's len stops at 2**24; that there is no list inside is proved below
        if tensors.element_count(shape) != count:
            return None
        proved = self._walked(shape) if shape[-1] >= _LONG_ROW else self._skeleton_fits(shape)
        return tuple(shape) if proved else None

    def _walked(self, shape: list[int]) -> bool:
        """Compare every list's length, and then the number of lists with that of brackets, so that no further list hides in a row."""
        nodes = [self._tree]
        lists = 1
        for length in shape[1:]:
            nodes = [child for node in nodes for child in node]
            if set(map(type, nodes)) != {simdjson.Array} or set(map(len, nodes)) != {length}:
                return False
            lists += len(nodes)
        return lists == np.count_nonzero(np.frombuffer(self._plain, np.uint8) == ord("["))

    def _skeleton_fits(self, shape: list[int]) -> bool:
        """Compare what is left of the text without its numbers with what the shape would leave."""
        skeleton = b"[" + b"," * (shape[-1] - 1) + b"]"
        for length in reversed(shape[:-1]):
            skeleton = b"[" + b",".join([skeleton] * length) + b"]"
        return self._plain.translate(None, _NOT_STRUCTURE) == skeleton


def is_list(value: object) -> bool:
    """Whether a value that `loads` returned was written as a JSON list."""
    return type(value) is list or type(value) is NumberList
