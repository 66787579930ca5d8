"""Protobuf's wire format without message objects: what a message holds as views of its own bytes, and messages written around buffers.

For messages that carry tensors: a message class copies them in and out. Called by the gRPC services of the dialects; knows no message.
Whatever comes in is a stranger's: all that does not add up is INVALID_INPUT.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NoReturn, TypeAlias

import numpy as np

from dragoman.core.errors import ServingError, invalid
from dragoman.core.tensors import Array

VARINT: Final = 0
FIXED64: Final = 1
LENGTH: Final = 2
"""Length-delimited: text, bytes, messages, packed numbers."""
FIXED32: Final = 5

Buffer: TypeAlias = bytes | memoryview
"""What is written: bytes, or a flat view of bytes, so that `len` counts bytes."""
Piece: TypeAlias = int | memoryview

_UINT64 = 1 << 64
_KEYS = 1 << 32
_VARINT_BYTES = 10
_WIDTHS = {FIXED64: 8, FIXED32: 4}
_MOST_FIELDS = 1 << 16
"""Fields of one message. More is only made to keep a server busy: where walking takes a microsecond each, what is made of them takes more."""
ELEMENTS: Final = 1 << 22
"""As many where a field is an element of a tensor, such as a text: some seconds of walking."""


def tag(number: int, wire_type: int) -> int:
    """What a field begins with: its number and how its value is laid out."""
    return number << 3 | wire_type


# --- reading ---


def fields(message: Buffer, most: int = _MOST_FIELDS) -> Iterator[tuple[int, Any]]:
    """Every field in the order in which it lies there, as its tag and its value: an int for VARINT, else a view of the value's bytes.

    Compare with `tag(number, wire_type)`: what compares equal to none of the tags that one knows is a field of a later version, or one
    of another type than it should be, which protobuf leaves unread, too. Nothing is copied; the views keep the message alive. Raises
    INVALID_INPUT, possibly after some fields, also where there are more than `most`.
    """
    view = memoryview(message)
    end = len(view)
    at = 0
    try:
        for _ in range(most):
            if at == end:
                return
            key = view[at]
            at += 1
            if key > 0x7F:
                key, at = _long_varint(view, at, key)
            wire_type = key & 7
            if wire_type == LENGTH:
                size = view[at]
                at += 1
                if size > 0x7F:
                    size, at = _long_varint(view, at, size)
            elif wire_type == VARINT:
                value = view[at]
                at += 1
                if value > 0x7F:
                    value, at = _long_varint(view, at, value)
                if not 8 <= key < _KEYS:
                    _refuse(key)
                yield key, value
                continue
            else:
                size = _WIDTHS.get(wire_type, -1)
            stop = at + size
            if size < 0 or not 8 <= key < _KEYS:
                _refuse(key)
            if stop > end:
                raise _ended(f"field {key >> 3} claims {size} bytes, {end - at} are left")
            yield key, view[at:stop]
            at = stop
    except IndexError:
        raise _ended("it ends inside a field") from None
    if at < end:
        raise invalid(f"the message has more than {most} fields", "body")


def text(value: memoryview, what: str) -> str:
    """A field of text; `what` names it in the error. Raises INVALID_INPUT for what is no UTF-8."""
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError:
        raise invalid(f"{what} is not valid UTF-8", "body") from None


def signed(value: int) -> int:
    """A VARINT of a field whose type is int32, int64 or an enum: negative numbers come as their two's complement of 64 bits."""
    return value - _UINT64 if value >> 63 else value


def fixed_numbers(pieces: Sequence[memoryview], dtype: str) -> Array:
    """A repeated field of float, double or fixed numbers: all its pieces, packed or single, as one flat array of `dtype` ("<f4").

    A view of the message where it is one piece, neither aligned nor writable. Raises INVALID_INPUT when the bytes are no whole number of
    elements.
    """
    joined = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    try:
        return np.frombuffer(joined, dtype)
    except ValueError:
        raise invalid(f"{len(joined)} bytes are no whole number of elements of {np.dtype(dtype)}", "body") from None


def varint_numbers(pieces: Sequence[Piece]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """A repeated field of integers, enums or booleans: all its pieces, packed (views) or single (ints), as one flat array.

    `.view(np.int64)` where the field's type is signed. The array is the caller's own. Raises INVALID_INPUT.
    """
    arrays = [np.array([piece], np.uint64) if isinstance(piece, int) else _packed(piece) for piece in _gathered(pieces)]
    return arrays[0] if len(arrays) == 1 else np.concatenate([np.empty(0, np.uint64), *arrays])


def integers(pieces: Sequence[Piece]) -> list[int]:
    """A short repeated field of a signed type, such as a shape: all its pieces as Python's integers. Raises INVALID_INPUT."""
    if len(pieces) == 1 and isinstance(packed := pieces[0], memoryview) and max(packed, default=0) < 0x80:
        return packed.tolist()
    numbers: list[int] = varint_numbers(pieces).view(np.int64).tolist()
    return numbers


def _gathered(pieces: Sequence[Piece]) -> Iterable[Piece]:
    """The pieces, with runs of single numbers packed: an array for each would cost more than the number."""
    if len(pieces) < 2:
        return pieces
    gathered: list[Piece] = []
    run = bytearray()
    for piece in pieces:
        if isinstance(piece, int):
            run += varint(piece)
            continue
        if run:
            gathered.append(memoryview(bytes(run)))
            run.clear()
        gathered.append(piece)
    if run:
        gathered.append(memoryview(bytes(run)))
    return gathered


def _packed(view: memoryview) -> np.ndarray[Any, np.dtype[np.uint64]]:
    octets = np.frombuffer(view, np.uint8)
    if not octets.size:
        return np.empty(0, np.uint64)
    ends = np.flatnonzero(octets < 0x80)
    if not ends.size or ends[-1] != octets.size - 1:
        raise _ended("it ends inside a packed number")
    if ends.size == octets.size:
        numbers: np.ndarray[Any, np.dtype[np.uint64]] = octets.astype(np.uint64)
        return numbers
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    longest = int(lengths.max())
    if longest > _VARINT_BYTES or (longest == _VARINT_BYTES and (octets[ends[lengths == _VARINT_BYTES]] > 1).any()):
        raise invalid("the message is damaged: a packed number has more than 64 bits", "body")
    numbers = (octets[starts] & 0x7F).astype(np.uint64)
    for place in range(1, longest):
        longer = np.flatnonzero(lengths > place)
        numbers[longer] |= (octets[starts[longer] + place] & 0x7F).astype(np.uint64) << np.uint64(7 * place)
    return numbers


def _long_varint(view: memoryview, at: int, first: int) -> tuple[int, int]:
    """The rest of a number whose first byte has been read, and where it ends. Raises IndexError at the end of the view."""
    value = first & 0x7F
    for shift in range(7, 7 * _VARINT_BYTES, 7):
        octet = view[at]
        at += 1
        value |= (octet & 0x7F) << shift
        if octet < 0x80:
            if value >= _UINT64:
                break
            return value, at
    raise invalid("the message is damaged: a number has more than 64 bits", "body")


def _refuse(key: int) -> NoReturn:
    raise invalid(f"the message is damaged: there is no field {key >> 3} of wire type {key & 7}", "body")


def _ended(text: str) -> ServingError:
    return invalid(f"the message is damaged: {text}", "body")


# --- writing ---


def varint(value: int) -> bytes:
    """A number as it stands in a message; a negative one as its two's complement of 64 bits."""
    if 0 <= value < 0x80:
        return _SHORT[value]
    value %= _UINT64
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_SHORT = tuple(bytes([value]) for value in range(0x80))


def head(number: int, size: int) -> bytes:
    """What stands before a LENGTH field of `size` bytes: append it and then the buffers that make the value, and join all of them once."""
    return varint(number << 3 | LENGTH) + varint(size)


def put(parts: list[Buffer], number: int, value: Buffer) -> None:
    """Append a LENGTH field around a buffer, which is not copied before the parts are joined."""
    parts.append(head(number, len(value)))
    parts.append(value)


def nest(parts: list[Buffer], number: int, inner: Sequence[Buffer]) -> None:
    """Append a message made of parts as a field."""
    parts.append(head(number, sum(map(len, inner))))
    parts.extend(inner)


def put_varint(parts: list[Buffer], number: int, value: int) -> None:
    """Append a field of an integer, enum or boolean type."""
    parts.append(varint(number << 3) + varint(value))


def packed_varints(array: Array) -> bytes:
    """A flat array of integers or booleans as the value of a packed field."""
    numbers = array.astype(np.int64).view(np.uint64) if array.dtype.kind in "ib" else array.astype(np.uint64)
    if not numbers.size or numbers.max() < 0x80:
        return numbers.astype(np.uint8).tobytes()
    lengths = np.ones(numbers.size, np.int64)
    for place in range(1, _VARINT_BYTES):
        longer = numbers >= np.uint64(1 << 7 * place)
        if not longer.any():
            break
        lengths += longer
    ends = np.cumsum(lengths)
    starts = ends - lengths
    out = np.empty(int(ends[-1]), np.uint8)
    for place in range(int(lengths.max())):
        reach = np.flatnonzero(lengths > place)
        octets = (numbers[reach] >> np.uint64(7 * place)).astype(np.uint8) & 0x7F
        out[starts[reach] + place] = octets | np.where(lengths[reach] > place + 1, np.uint8(0x80), np.uint8(0))
    return out.tobytes()
