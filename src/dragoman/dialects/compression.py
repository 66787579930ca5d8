"""Content-Encoding both ways: inflate request bodies within a limit, compress answers when the client asks. Shared by the dialects."""

import asyncio
import zlib

from dragoman.core.errors import Kind, ServingError, invalid

_WINDOW = {b"gzip": 16 + zlib.MAX_WBITS, b"x-gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}
_STEP = 1 << 20
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
    TOO_LARGE when it would inflate beyond `limit` bytes; never holds more than that.
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
    parts: list[bytes] = []
    size = 0
    rest = body
    while True:
        inflater = zlib.decompressobj(window)
        while not inflater.eof:
            try:
                part = inflater.decompress(rest, _STEP)
            except zlib.error as error:
                raise invalid(f"the body is not valid {name.decode()}: {error}", "body") from None
            rest = inflater.unconsumed_tail
            size += len(part)
            if size > limit:
                raise ServingError(Kind.TOO_LARGE, f"the body inflates to more than the limit of {limit} bytes", what="body")
            parts.append(part)
            if not part and not rest and not inflater.eof:
                raise invalid(f"the {name.decode()} body ends too early", "body")
        rest = inflater.unused_data
        if not rest:
            return b"".join(parts)
        if name == b"deflate":
            raise invalid("data follows the end of the deflate body", "body")


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
