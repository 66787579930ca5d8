"""A long list of numbers inside a parsed document, held as one flat array until its datatype is known.

Python objects for 150,000 floats cost three times what simdjson needs to put them into a buffer. simdjson flattens nested lists without
looking whether they form a box, so the box is proved here. Made by reading.py, taken apart by arrays.py.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import orjson
import simdjson

from dragoman.core.tensors import Array, Datatype, Shape, element_count
from dragoman.dialects.json.tokens import parse_with_tokens, put_back, without_tokens

MAX_DEPTH = 32
"""Levels of lists in an array; the highest rank that every supported numpy can hold."""

_LONG_ROW = 16
"""Numbers in the innermost list from which walking the lists costs less than taking the numbers out of the text (0.2 against 1.4 ms for
rows of 224, 7 against 1.6 for rows of 3; 150,000 numbers)."""

_NOT_STRUCTURE = b"0123456789+-.eE \t\r\n"

# Integers first: exact to 64 bits, while as doubles they would be rounded. A list of decimals refuses at its first one.
_BUFFERS = (("i", np.int64), ("u", np.uint64), ("d", np.float64))

_spare: list[Any] = []
_SPARE_BYTES = 4 << 20
"""A parser that has read at most this much is kept: its memory is a few times that, and the pages of a new one cost as much as the work."""


class NumberList:
    """Stands for a long JSON list without strings, nested or not. It has that list's length, items and truth; to look at items costs as
    much as `tolist`.

    Construction parses the text and raises ValueError or RuntimeError when it is not valid JSON or holds an integer over 64 bits; with
    `nonfinite` the tokens for NaN and infinities are valid, in a list that holds nothing but numbers.
    """

    __slots__ = ("_length", "_numbers", "_shape", "_text", "_tokens")

    def __init__(self, text: bytes, nonfinite: bool = False, known: tuple[Array, Shape, bool] | None = None) -> None:
        """`known` are the numbers, their shape, and whether there may be tokens, of a text that `of_each` has parsed among others."""
        self._text = text
        self._shape: Shape | None
        self._numbers: Array | None
        if known is not None:
            self._numbers, self._shape, self._tokens = known
            self._length = known[1][0]
            return
        plain, counts = without_tokens(text) if nonfinite else (text, {})
        self._tokens = bool(counts)
        try:
            parser = _spare.pop()
        except IndexError:
            parser = simdjson.Parser()
        tree: Any = parser.parse(plain)
        self._length = len(tree)
        self._numbers = _numbers(tree)
        if counts and (self._numbers is None or not put_back(self._numbers, counts)):
            raise ValueError("a token is stuck to a digit, or cannot be told from a number")
        self._shape = _box(tree, plain, self._numbers.size) if self._numbers is not None else None
        del tree  # a parser is free again when nothing points into its document
        if len(plain) <= _SPARE_BYTES and not _spare:
            _spare.append(parser)

    @classmethod
    def of_each(cls, texts: Sequence[bytes], nonfinite: bool = False) -> "list[NumberList]":
        """One for each text, parsed together where they are boxes of one shape: for many short lists that is most of the work. Raises as the
        construction does."""
        if len(texts) > 1:
            together = cls(b"[" + b",".join(texts) + b"]", nonfinite)
            numbers, shape = together._numbers, together.shape
            if numbers is not None and shape is not None and shape[0] == len(texts) and len(shape) > 1:
                parts = numbers.reshape(len(texts), -1)
                return [cls(text, known=(part, shape[1:], together._tokens)) for text, part in zip(texts, parts, strict=True)]
        return [cls(text, nonfinite) for text in texts]

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Any]:
        return iter(self.tolist())

    def __getitem__(self, index: int) -> Any:
        return self.tolist()[index]

    def tolist(self) -> list[Any]:
        """The list as plain Python objects, as if it had been parsed so at once."""
        made: list[Any] = parse_with_tokens(self._text) if self._tokens else orjson.loads(self._text)
        return made

    @property
    def shape(self) -> Shape | None:
        """Of the box that its lists form; None where they form none, or not of plain numbers."""
        return self._shape

    def array(self, datatype: Datatype) -> Array | None:
        """A new writable array, or None unless the lists are known to form a box of numbers that fit: then `tolist` shows what is wrong."""
        made = None if self._numbers is None or self._shape is None else _cast(self._numbers, datatype)
        return None if made is None else made.reshape(self._shape)

    def column(self, index: int, datatype: Datatype) -> Array | None:
        """`array(datatype)[:, index]` of a box of two dimensions as a new array, also where other columns do not fit; None for all else."""
        if self._numbers is None or self._shape is None or len(self._shape) != 2:
            return None
        return _cast(self._numbers.reshape(self._shape)[:, index], datatype)


def _cast(numbers: Array, datatype: Datatype) -> Array | None:
    if datatype.kind == "float" and datatype.size > 2:
        with np.errstate(over="ignore"):  # beyond FP32 is infinity, as with short lists; over FP64, as Python rounds integers
            return numbers.astype(np.float64, copy=False).astype(datatype.numpy)
    if datatype.kind in ("int", "uint") and numbers.dtype.kind != "f":
        limits = np.iinfo(datatype.numpy)
        if int(numbers.min()) >= limits.min and int(numbers.max()) <= limits.max:
            return numbers.astype(datatype.numpy)
    return None


def is_list(value: object) -> bool:
    """Whether a value that `loads` returned was written as a JSON list."""
    return type(value) is list or type(value) is NumberList


def _numbers(tree: Any) -> Array | None:
    """Every number below `tree` in order as int64, uint64 or float64, whichever is exact. None if there is anything else, or nothing."""
    for code, dtype in _BUFFERS:
        try:
            buffer = tree.as_buffer(of_type=code)
        except (TypeError, ValueError, RuntimeError):
            continue
        return np.frombuffer(buffer, dtype) if buffer.size else None
    return None


def _box(tree: Any, text: bytes, count: int) -> Shape | None:
    """The shape of the lists below `tree`, which hold `count` numbers; None if they do not form a box."""
    shape = [len(tree)]
    node = tree
    while isinstance(node := node[0] if len(node) else None, simdjson.Array):
        shape.append(len(node))
    if len(shape) == 1:
        shape = [count]  # simdjson's len stops at 2**24; that there is no list inside is proved below
    if element_count(shape) != count or len(shape) > MAX_DEPTH:
        return None
    return tuple(shape) if (_walked(tree, text, shape) if shape[-1] >= _LONG_ROW else _skeleton_fits(text, shape)) else None


def _walked(tree: Any, text: bytes, shape: list[int]) -> bool:
    """Compare every list's length, and then the number of lists with that of brackets, so that no further list hides in a row."""
    nodes = [tree]
    lists = 1
    for length in shape[1:]:
        nodes = [child for node in nodes for child in node]
        if set(map(type, nodes)) != {simdjson.Array} or set(map(len, nodes)) != {length}:
            return False
        lists += len(nodes)
    return lists == int(np.count_nonzero(np.frombuffer(text, np.uint8) == ord("[")))


def _skeleton_fits(text: bytes, shape: list[int]) -> bool:
    """Compare what is left of the text without its numbers with what the shape would leave."""
    left = text.translate(None, _NOT_STRUCTURE)
    length = 1
    for count in reversed(shape):
        length = 2 + count * (length + 1) - 1
    if len(left) + element_count(shape) != length:  # numbers are gone. Checked first, since a false shape may ask for a giant skeleton
        return False
    skeleton = b"[" + b"," * (shape[-1] - 1) + b"]"
    for count in reversed(shape[:-1]):
        skeleton = b"[" + b",".join([skeleton] * count) + b"]"
    return left == skeleton
