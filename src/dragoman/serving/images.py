"""How large an image is, read from its first bytes, before any decoder sees it: a small file may unpack to gigabytes of pixels.

Called by files.py. Knows PNG, JPEG, GIF, WebP and BMP; what it does not recognise is left to the model's own decoder.
"""

import struct
from collections.abc import Callable

Size = tuple[int, int]

_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
"""JPEG's start of frame, of every process; C4, C8 and CC are other things."""
_BARE = frozenset({0x00, 0x01, *range(0xD0, 0xD8)})
"""JPEG markers without a length."""


def size_of(data: bytes) -> Size | None:
    """(width, height), or None for what is no such image or ends before it says."""
    for magic, read in _READERS:
        if data.startswith(magic):
            try:
                return read(data)
            except struct.error:
                return None
    return None


def _png(data: bytes) -> Size | None:
    if data[12:16] != b"IHDR":
        return None
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _gif(data: bytes) -> Size | None:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _bmp(data: bytes) -> Size | None:
    (header,) = struct.unpack_from("<I", data, 14)
    if header == 12:
        width, height = struct.unpack_from("<HH", data, 18)
        return width, height
    width, height = struct.unpack_from("<ii", data, 18)
    return abs(width), abs(height)  # a negative height counts from the top


def _webp(data: bytes) -> Size | None:
    kind = data[12:16]
    if data[8:12] != b"WEBP":
        return None
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _jpeg(data: bytes) -> Size | None:
    """The largest of its frames: a decoder may take any."""
    best: Size | None = None
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:  # junk between segments, which decoders pass over too
            at = data.find(b"\xff", at)
            if at < 0:
                break
            continue
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker in _BARE:
            at += 2
            continue
        if marker in (0xD9, 0xDA):
            break
        (length,) = struct.unpack_from(">H", data, at + 2)
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            if best is None or width * height > best[0] * best[1]:
                best = (width, height)
        at += 2 + max(2, length)
    return best


_READERS: tuple[tuple[bytes, Callable[[bytes], Size | None]], ...] = (
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"\xff\xd8", _jpeg),
    (b"GIF87a", _gif),
    (b"GIF89a", _gif),
    (b"RIFF", _webp),
    (b"BM", _bmp),
)
