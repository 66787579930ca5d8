"""Values of rows and headers as JSON text and raw buffers, and back. Pure; the ground under frames.py, which says what travels.

A value that JSON does not have is `{tag: [length, kind, ...]}` in the text, its buffer the next one in the body. The tag is random per
connection, and a dict that holds it as a key is written in another way: nobody can forge one.
"""

import json
import re
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import numpy as np

from dragoman.core.tensors import Array, Blob, Failure, Reply, Value, pack_bytes, unpack_bytes

HEADER_LIMIT: Final = 256 << 20
FRAME_LIMIT: Final = 4 << 30
"""Largest header and largest frame, in bytes, that either end makes or takes."""
MAX_DEPTH: Final = 200
"""How deep lists and dicts may nest. The interpreter's own bound, which ends a deeper header, is a thousand."""

Part: TypeAlias = bytes | memoryview

ALIGN = 64
_LEAVES = 8
"""A list of so many floats or integers goes as a buffer: 150,000 nested floats in 5 ms instead of 63."""
_TEXT = 1024
"""A text of so many characters goes as a buffer."""
_DIGITS_BITS = 4096
"""Integers of more bits go as buffers: their decimal form is slow, and refused by the interpreter beyond 4300 digits."""
_INT64 = 1 << 63
_DTYPE = re.compile(r"[<|][biufc]\d{1,2}")

_dumps = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


class FrameError(Exception):
    """These bytes are no frame, or this value cannot be in one."""


def new_tag() -> str:
    return secrets.token_hex(8)


def padded(length: int) -> int:
    return -(-length // ALIGN) * ALIGN


def pack(value: Value, tag: str) -> tuple[bytes, list[Part], int]:
    packer = _Packer(tag)
    try:
        text = _dumps(packer.pack(value, 0)).encode("ascii")
    except RecursionError:
        raise FrameError(f"a value nests deeper than {MAX_DEPTH} levels") from None
    if len(text) > HEADER_LIMIT or packer.length > FRAME_LIMIT:
        raise FrameError(f"a value of {len(text) + packer.length} bytes is too large for a frame")
    return text, packer.buffers, packer.length


class _Packer:
    """Turns a value into what JSON has, and collects buffers. One walk, in the order in which the reader will meet them."""

    def __init__(self, tag: str) -> None:
        self._tag = tag
        self.buffers: list[Part] = []
        self.length = 0

    def pack(self, value: Value, depth: int) -> Any:
        kind = type(value)
        if kind is str:
            return value if len(value) < _TEXT and (value.isascii() or _encodable(value)) else self._text(value)
        if kind is int:
            return value if -_INT64 <= value < _INT64 or value.bit_length() <= _DIGITS_BITS else self._integer(value)
        if value is None or kind is bool or kind is float:
            return value
        if depth >= MAX_DEPTH:
            raise FrameError(f"a value nests deeper than {MAX_DEPTH} levels")
        if kind is list or kind is tuple:
            return self._list(value, depth)
        if kind is dict:
            return self._dict(value, depth)
        return self._other(value, depth)

    def _list(self, value: list[Value], depth: int) -> Any:
        if len(value) >= _LEAVES:
            first = type(value[0])
            if (first is float or first is int) and set(map(type, value)) == {first}:
                try:
                    array = np.array(value, "<f8" if first is float else "<i8")
                except OverflowError:
                    return [self.pack(each, depth + 1) for each in value]
                return self._buffer(array.data.cast("B"), array.nbytes, "f" if first is float else "i")
        return [self.pack(each, depth + 1) for each in value]

    def _dict(self, value: dict[str, Value], depth: int) -> Any:
        plain = self._tag not in value
        for key in value:
            if type(key) is not str:
                raise FrameError(f"a dict has a key of type {type(key).__name__}, expected text")
            plain = plain and len(key) < _TEXT and (key.isascii() or _encodable(key))
        if plain:
            return {key: self.pack(each, depth + 1) for key, each in value.items()}
        return {self._tag: [0, "pairs", [[self.pack(key, depth), self.pack(each, depth + 1)] for key, each in value.items()]]}

    def _other(self, value: Value, depth: int) -> Any:
        if isinstance(value, np.ndarray):
            return self._array(value)
        if isinstance(value, bytes | bytearray | memoryview):
            return self._buffer(bytes(value), len(value), "bytes")
        if isinstance(value, Blob):
            return self._buffer(value.data, len(value.data), "file", self.pack(value.media_type, depth), self.pack(value.name, depth))
        if isinstance(value, Failure):
            return {self._tag: [0, "failure", self.pack(value.message, depth), self.pack(value.trace, depth)]}
        if isinstance(value, Reply):
            parts = [value.body, value.status, value.content_type, dict(value.headers), value.record]
            return {self._tag: [0, "reply", [self.pack(part, depth + 1) for part in parts]]}
        if isinstance(value, Mapping):
            return self._dict(dict(value), depth)
        for base in (str, int, float):  # an enumeration's member, say, is what it is made from
            if isinstance(value, base):
                return self.pack(base(value), depth)
        raise FrameError(f"a value of type {type(value).__name__} cannot be sent")

    def _array(self, array: Array) -> Any:
        if array.dtype.kind == "O":
            try:
                data = pack_bytes(array)
            except (TypeError, OverflowError) as error:
                raise FrameError(f"an array of objects holds something else than bytes: {error}") from error
            return self._buffer(data, len(data), "objects", list(array.shape))
        if array.dtype.kind not in "biufc":
            raise FrameError(f"an array of type {array.dtype} cannot be sent")
        shape = list(array.shape)
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        return self._buffer(array.reshape(-1).view(np.uint8).data, array.nbytes, "array", array.dtype.str, shape)

    def _text(self, value: str) -> Any:
        data = value.encode("utf-8", "surrogatepass")
        return self._buffer(data, len(data), "text")

    def _integer(self, value: int) -> Any:
        data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        return self._buffer(data, len(data), "int")

    def _buffer(self, data: Part, length: int, *kind: Any) -> Any:
        if length:
            self.buffers.append(data)
            filling = -length % ALIGN
            if filling:
                self.buffers.append(bytes(filling))
            self.length += length + filling
        return {self._tag: [length, *kind]}


def _encodable(text: str) -> bool:
    """Whether JSON brings a text back as it was: two halves of a surrogate pair that stand alone would come back as one character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# --- reading ---


def unpack(payload: Array, header_length: int, tag: str) -> Value:
    unpacker = _Unpacker(tag, payload[padded(header_length) :])
    try:
        value = json.loads(str(payload[:header_length].data, "ascii"), object_hook=unpacker.unpack)
    except RecursionError:
        raise FrameError("the header of a frame nests too deep") from None
    except (ValueError, TypeError, LookupError, OverflowError, MemoryError) as error:
        raise FrameError(f"the header of a frame cannot be read: {type(error).__name__}: {str(error)[:200]}") from error
    unpacker.end()
    return value


class _Unpacker:
    """Gives every tagged value its buffer. They must come in order and fill the body: a buffer cannot be named twice, or be left out."""

    def __init__(self, tag: str, body: Array) -> None:
        self._tag = tag
        self._body = body
        self._next = 0

    def unpack(self, found: dict[str, Any]) -> Value:
        if self._tag not in found:
            return found
        length, kind, *rest = found[self._tag]
        if type(length) is not int or length < 0 or self._next + padded(length) > len(self._body):
            raise FrameError("a header names a buffer that is not there")
        buffer = self._body[self._next : self._next + length]
        self._next += padded(length)
        return _READERS[kind](buffer, *rest)

    def end(self) -> None:
        if self._next != len(self._body):
            raise FrameError("a frame has buffers that its header does not name")


def _read_array(buffer: Array, code: str, shape: list[int]) -> Array:
    if not _DTYPE.fullmatch(code):
        raise FrameError(f"an array of type {code[:20]!r} cannot be received")
    return buffer.view(np.dtype(code)).reshape(_shape(shape))


def _read_objects(buffer: Array, shape: list[int]) -> Array:
    count = 1
    for size in _shape(shape):
        count *= size
    return unpack_bytes(buffer.data, count).reshape(shape)


def _shape(shape: object) -> list[int]:
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise FrameError("the shape of an array is no list of sizes")
    return shape


def _read_leaves(code: str) -> Callable[[Array], list[Any]]:
    def read(buffer: Array) -> list[Any]:
        values: list[Any] = buffer.view(code).tolist()
        return values

    return read


def _read_pairs(_buffer: Array, pairs: list[list[Value]]) -> dict[str, Value]:
    found = dict(pairs)
    if not all(type(key) is str for key in found):
        raise FrameError("a dict has a key that is no text")
    return found


def _checked(*texts: object) -> None:
    if not all(type(text) is str for text in texts):
        raise FrameError("a header has something else where a text belongs")


def _read_file(buffer: Array, media_type: str, name: str) -> Blob:
    _checked(media_type, name)
    return Blob(buffer.tobytes(), media_type, name)


def _read_failure(_buffer: Array, message: str, trace: str) -> Failure:
    _checked(message, trace)
    return Failure(message, trace)


def _read_reply(_buffer: Array, parts: list[Value]) -> Reply:
    body, status, content_type, headers, record = parts
    _checked(content_type, *headers, *headers.values())
    if type(status) is not int or not (record is None or type(record) is dict):
        raise FrameError("a reply has something else where its status or its record belongs")
    return Reply(body, status, content_type, headers, record)


_READERS: Mapping[str, Callable[..., Value]] = {
    "array": _read_array,
    "objects": _read_objects,
    "f": _read_leaves("<f8"),
    "i": _read_leaves("<i8"),
    "bytes": lambda buffer: buffer.tobytes(),
    "file": _read_file,
    "text": lambda buffer: buffer.tobytes().decode("utf-8", "surrogatepass"),
    "int": lambda buffer: int.from_bytes(buffer.tobytes(), "little", signed=True),
    "pairs": _read_pairs,
    "failure": _read_failure,
    "reply": _read_reply,
}
