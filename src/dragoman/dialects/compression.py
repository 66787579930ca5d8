"""Content-Encoding both ways: inflate request bodies within a limit, compress answers when the client asks. Shared by the dialects."""

import asyncio
import mmap
import zlib

from dragoman.core.errors import Kind, ServingError, invalid

_WINDOW = {b"gzip": 16 + zlib.MAX_WBITS, b"x-gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}
_STEP = 1 << 18
_FEED = 1 << 16
_IN_PARTS = 1 << 20
_MOST_MEMBERS = 10_000
"""Of one gzip body. Blocked gzip, which has the most, makes one of every 64 KiB; a body of empty ones would only cost time."""
OFF_LOOP_FROM = 16 << 10
"""Bytes from which (de)compression goes to a thread: 16 KiB may inflate to 16 MiB, which takes the loop away from everyone for 40 ms."""


async def inflated(body: bytes, encoding: bytes | None, limit: int) -> bytes:
    """`inflate`, in a thread when that may take long."""
    if encoding is None or len(body) < OFF_LOOP_FROM:
        return inflate(body, encoding, limit)
    return await asyncio.to_thread(inflate, body, encoding, limit)


def inflate(body: bytes, encoding: bytes | None, limit: int) -> bytes:
    """The body as its sender meant it. None, empty and `identity` leave it as it is.

    Raises UNSUPPORTED (what="encoding") for an unknown encoding, INVALID_INPUT for data that is corrupt, truncated or followed by more,
    TOO_LARGE when it would inflate beyond `limit` bytes; never holds more than twice that.
    """
    name = (encoding or b"identity").strip().lower()
    if name in (b"", b"identity"):
        return body
    window = _WINDOW.get(name)
    if window is None:
        raise ServingError(
            Kind.UNSUPPORTED,
            f"Content-Encoding '{name.decode('latin-1')}' is not supported; use gzip, deflate or identity",
            what="encoding",
        )
    limited = _Limited(limit)
    try:
        return _inflate(memoryview(body), window, name, limited)
    finally:
        limited.close()


def _inflate(body: memoryview, window: int, name: bytes, inflated: "_Limited") -> bytes:
    """All members, one behind the other. The input is fed in pieces: zlib copies what it has not used, each time that it returns."""
    at = 0
    for _ in range(_MOST_MEMBERS):
        inflater = zlib.decompressobj(window)
        rest: bytes | memoryview = b""
        while not inflater.eof:
            if not rest:
                rest = body[at : at + _FEED]
                at += len(rest)
            ended = not rest
            try:
                part = inflater.decompress(rest, _STEP)
            except zlib.error as error:
                raise invalid(f"the body is not valid {name.decode()}: {error}", "body") from None
            rest = inflater.unconsumed_tail
            if part:
                inflated.add(part)
            elif ended and not inflater.eof:
                raise invalid(f"the {name.decode()} body ends too early", "body")
        at -= len(inflater.unused_data)
        if at == len(body):
            return inflated.value()
        if name == b"deflate":
            raise invalid("data follows the end of the deflate body", "body")
    raise invalid(f"the {name.decode()} body has more than {_MOST_MEMBERS} members", "body")


class _Limited:
    """Bytes that come in parts, up to a limit. `close` gives back at once what many of them took.

    A long list of parts would not: malloc holds on to what they took, once for every thread that ever inflated a bomb.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._store: mmap.mmap | None = None
        self._size = 0

    def add(self, part: bytes) -> None:
        size = self._size + len(part)
        if size > self._limit:
            raise ServingError(Kind.TOO_LARGE, f"the body inflates to more than the limit of {self._limit} bytes", what="body")
        if size <= _IN_PARTS:
            self._parts.append(part)
        else:
            if self._store is None:
                self._store = mmap.mmap(-1, self._limit, access=mmap.ACCESS_COPY)
                self._store[: self._size] = b"".join(self._parts)
            self._store[self._size : size] = part
        self._size = size

    def value(self) -> bytes:
        return b"".join(self._parts) if self._store is None else self._store[: self._size]

    def close(self) -> None:
        if self._store is not None:
            self._store.close()


async def deflated(body: bytes, encoding: bytes) -> bytes:
    """`deflate`, in a thread when that may take long."""
    return deflate(body, encoding) if len(body) < OFF_LOOP_FROM else await asyncio.to_thread(deflate, body, encoding)


def choose_encoding(accept: bytes | None) -> bytes | None:
    """The encoding of the answer: of gzip, deflate and identity the one with the highest q, the first on a tie; None for no compression."""
    if not accept:
        return None
    best, best_q = None, 0.0
    for part in accept.lower().split(b","):
        name, _, tail = part.partition(b";")
        name = name.strip()
        q = 1.0
        if tail.strip().startswith(b"q="):
            try:
                q = float(tail.strip()[2:])
            except ValueError:
                q = 0.0
        if name in (b"gzip", b"deflate", b"identity") and best_q < q <= 1.0:
            best, best_q = name, q
    return None if best == b"identity" else best


def deflate(body: bytes, encoding: bytes) -> bytes:
    """Compress with `encoding`, gzip or deflate (zlib-wrapped). Level 1: answers are made while a client waits."""
    compressor = zlib.compressobj(1, zlib.DEFLATED, _WINDOW[encoding])
    return compressor.compress(body) + compressor.flush()
