"""The bytes between a server and a model process: prefix, JSON header, raw buffers. No I/O: asyncio is in line.py, meanings in messages.py.

    prefix   24 bytes: magic, wire version, kind, flags, length of the header (u32), length of the body (u64)
    header   JSON, ASCII, padded to 64 bytes
    body     buffers in the order in which the header mentions them, each padded to 64 bytes

A value that JSON does not have is `{tag: [length, kind, ...]}` in the header, where the tag is random per connection and a dict that holds
it as a key is written in another way: nobody can forge one. The store keeps rows in the same form (`pack_rows`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum, unique
from struct import Struct
from typing import Any

import numpy as np

from dragoman.core.tensors import Array, Value
from dragoman.hosting.packing import ALIGN, FRAME_LIMIT, HEADER_LIMIT, FrameError, Part, new_tag, pack, padded, unpack

__all__ = ["Frame", "FrameError", "FrameReader", "Kind", "Part", "encode", "new_tag", "pack_rows", "unpack_rows"]

_PREFIX = Struct("<4sHHIIQ")
_MAGIC = b"DRGM"
_WIRE = 1
_FIRST_ROOM = 16 << 20
"""What is set aside for a frame before its bytes have come; it doubles when they do."""
_STAGE = 64 << 10
_ROWS = b"DRGR"


@unique
class Kind(IntEnum):
    HELLO = 1
    LOAD = 2
    LOADED = 3
    FAILED = 4
    INFER = 5
    STARTED = 6
    RESULT = 7
    ERROR = 8
    CANCEL = 9
    LOG = 10
    CLOSE = 11
    ENDING = 12
    """The process says why it ends itself."""
    ACQUIRE = 13
    EVENT = 14
    COMPLAINT = 15
    """The last three are between workers and the keeper of model processes."""


# --- writing ---


def encode(kind: Kind, header: Mapping[str, Value], tag: str) -> list[Part]:
    """A frame, as parts to be written one after the other. Arrays are not copied: they must not change before the parts are written.

    Raises FrameError for what no row may hold, nests too deep or is too large.
    """
    text, buffers, body_length = pack(header, tag)
    head = _PREFIX.pack(_MAGIC, _WIRE, kind, 0, len(text), body_length) + text
    if not buffers:
        return [head]
    return [head + bytes(padded(len(text)) - len(text)), *buffers]


# --- reading ---


@dataclass(slots=True)
class Frame:
    """One frame as it came; `read` gives its header."""

    kind: int
    payload: Array
    """Padded header and body: fresh and writable, so that arrays of the header may be views of it."""
    header_length: int

    def read(self, tag: str) -> dict[str, Any]:
        """The header with every value in its place. Raises FrameError."""
        header = unpack(self.payload, self.header_length, tag)
        if not isinstance(header, dict):
            raise FrameError("the header of a frame is no object")
        return header


class FrameReader:
    """Cuts a stream of bytes into frames. Write into `room()`, then say with `received` how much came.

    A large frame is received where it stays; small ones pass through one staging buffer. What a prefix claims is set aside only as far
    as bytes come. Raises FrameError for what no peer of ours sends; the connection is then of no more use.
    """

    def __init__(self, limit: int = FRAME_LIMIT) -> None:
        self._limit = limit
        self._stage = bytearray(_STAGE)
        self._staged = 0
        self._payload: Array | None = None
        self._filled = 0
        self._length = 0
        self._kind = 0
        self._header_length = 0

    def room(self) -> memoryview:
        payload = self._payload
        if payload is None:
            return memoryview(self._stage)[self._staged :]
        if self._filled == len(payload):
            larger: Array = np.empty(min(self._length, 2 * len(payload)), np.uint8)
            larger[: self._filled] = payload
            self._payload = payload = larger
        return payload.data[self._filled :]

    def received(self, count: int) -> Iterator[Frame]:
        """The frames that are complete now. Take them all before the next `room`."""
        if self._payload is not None:
            self._filled += count
            if self._filled == self._length:
                frame = Frame(self._kind, self._payload, self._header_length)
                self._payload = None
                yield frame
            return
        self._staged += count
        begin = 0
        while self._staged - begin >= _PREFIX.size:
            self._prefix(begin)
            begin += _PREFIX.size
            end = min(begin + self._length, self._staged)
            payload: Array = np.empty(min(self._length, max(_FIRST_ROOM, end - begin)), np.uint8)
            payload[: end - begin] = np.frombuffer(self._stage, np.uint8, end - begin, begin)
            self._filled = end - begin
            begin = end
            if self._filled < self._length:
                self._payload = payload
                break
            yield Frame(self._kind, payload, self._header_length)
        self._stage[: self._staged - begin] = self._stage[begin : self._staged]
        self._staged -= begin

    def _prefix(self, begin: int) -> None:
        magic, wire, kind, _flags, header_length, body_length = _PREFIX.unpack_from(self._stage, begin)
        if magic != _MAGIC or wire != _WIRE:
            raise FrameError(f"the other end speaks another language: {magic!r}, version {wire}")
        if header_length > HEADER_LIMIT or header_length + body_length > self._limit or body_length % ALIGN:
            raise FrameError(f"a frame claims {header_length} and {body_length} bytes")
        self._kind = kind
        self._header_length = header_length
        self._length = padded(header_length) + body_length if body_length else header_length


# --- rows by themselves, for stores ---


def pack_rows(rows: list[Value]) -> bytes:
    """Rows as bytes that say everything about themselves. Raises FrameError for what no row may hold."""
    tag = new_tag()
    text, buffers, _ = pack(rows, tag)
    return b"".join([_ROWS, tag.encode(), len(text).to_bytes(4, "little"), text, bytes(-len(text) % ALIGN), *buffers])


def unpack_rows(data: bytes) -> list[Value]:
    """The inverse of pack_rows; arrays in it are writable. Raises FrameError for anything else."""
    head = len(_ROWS) + 16
    if data[: len(_ROWS)] != _ROWS or len(data) < head + 4:
        raise FrameError("these bytes hold no rows")
    length = int.from_bytes(data[head : head + 4], "little")
    payload = np.frombuffer(data, np.uint8, offset=head + 4).copy() if len(data) > head + 4 else np.empty(0, np.uint8)
    if padded(length) > len(payload):
        raise FrameError("rows end before their header does")
    rows = unpack(payload, length, data[len(_ROWS) : head].decode("ascii", "replace"))
    if not isinstance(rows, list):
        raise FrameError("these bytes hold no list of rows")
    return rows
