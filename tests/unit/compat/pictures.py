"""Small pictures for the tests of files: as bytes, without asking the code under test."""

import io

import PIL.Image


def png(mode: str = "RGB", size: tuple[int, int] = (2, 2), colour: int | tuple[int, ...] = 0) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.new(mode, size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def jpeg(size: tuple[int, int] = (2, 2)) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", size).save(buffer, "JPEG")
    return buffer.getvalue()
