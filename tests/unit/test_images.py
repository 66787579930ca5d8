"""The size of an image from its first bytes, as a real decoder reads it; and what is no image, or lies."""

import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dragoman.serving.images import size_of

FORMATS = [("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("GIF", {}), ("BMP", {}), ("WEBP", {}), ("WEBP", {"lossless": True})]


def picture(kind: str, width: int, height: int, **options: bool) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), (1, 2, 3)).save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize(("kind", "options"), FORMATS)
@pytest.mark.parametrize("size", [(1, 1), (7, 300), (300, 7)])
def test_sizes_of_real_images(kind: str, options: dict[str, bool], size: tuple[int, int]) -> None:
    """What was written is what is read."""
    assert size_of(picture(kind, *size, **options)) == size


def test_more_kinds_of_the_same_formats() -> None:
    """Transparent and animated WebP, JPEG with a thumbnail and metadata before its size, BMP upside down."""
    out = io.BytesIO()
    frames = [Image.new("RGBA", (20, 30), (n, 2, 3, 4)) for n in range(3)]
    frames[0].save(out, "WEBP", save_all=True, append_images=frames[1:])
    assert size_of(out.getvalue()) == (20, 30)
    exif = Image.Exif()
    exif[0x010E] = "a description " * 500
    out = io.BytesIO()
    Image.new("RGB", (40, 50)).save(out, "JPEG", exif=exif)
    assert size_of(out.getvalue()) == (40, 50)
    upside_down = bytearray(picture("BMP", 8, 9))
    upside_down[22:26] = struct.pack("<i", -9)
    assert size_of(bytes(upside_down)) == (8, 9)
    assert size_of(b"BM" + bytes(12) + struct.pack("<IHH", 12, 5, 6)) == (5, 6)


def test_a_jpeg_that_hides_its_size() -> None:
    """Junk between segments, fill bytes and a second frame do not help: the largest frame counts."""
    small = b"\xff\xc0\x00\x11\x08" + struct.pack(">HH", 10, 20) + bytes(10)
    large = b"\xff\xc2\x00\x11\x08" + struct.pack(">HH", 60_000, 50_000) + bytes(10)
    assert size_of(b"\xff\xd8" + b"junk" + b"\xff\xff\xff\x01" + small + large + b"\xff\xda\x00\x02") == (50_000, 60_000)
    assert size_of(b"\xff\xd8" + b"no marker ever") is None
    assert size_of(b"\xff\xd8\xff\xe0\x00\x00" + small) == (20, 10)


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG", b"%PDF-1.4", b"II*\0" + bytes(100), b"RIFF1234WAVEfmt ", b"RIFF1234WEBPVP9 "])
def test_what_is_no_such_image(data: bytes) -> None:
    """None, and no error."""
    assert size_of(data) is None


@pytest.mark.parametrize(("kind", "options"), FORMATS)
def test_images_that_end_early(kind: str, options: dict[str, bool]) -> None:
    """Cut anywhere: the size, or None."""
    data = picture(kind, 33, 44, **options)
    for length in range(min(len(data), 700)):
        assert size_of(data[:length]) in (None, (33, 44))


@given(st.sampled_from([b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"RIFF1234WEBP", b""]), st.binary(max_size=300))
def test_no_bytes_crash(magic: bytes, data: bytes) -> None:
    """Whatever follows the first bytes."""
    size = size_of(magic + data)
    assert size is None or (size[0] >= 0 and size[1] >= 0)
