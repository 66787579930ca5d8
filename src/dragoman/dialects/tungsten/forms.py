"""The file of a multipart body, read while it comes: at most one piece of the body and one head are held. Called by rest.py for uploads."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from dataclasses import dataclass

from dragoman.core.errors import ServingError
from dragoman.core.multipart import Form, Part, boundary_of
from dragoman.dialects.tungsten.errors import faulty

_MOST_PARTS = 100
"""A form has few fields. What is looked at here holds up everybody else, so it is bounded, and so is the time for each part."""


@dataclass(frozen=True, slots=True)
class File:
    """What the form says of its file, and its content, to be taken once and closed. After the last piece the whole body has been read.

    Taking a piece raises INVALID_INPUT when the body ends in the middle of the file, and whatever reading the body raises.
    """

    name: str
    media_type: str
    content: AsyncGenerator[bytes, None]


async def file_of(read: Callable[[], Awaitable[bytes]], content_type: bytes | None) -> File:
    """The part `file` of a body; `read` gives its next piece, b"" at its end. INVALID_INPUT without one, or for a body that is no form."""
    try:
        boundary = boundary_of((content_type or b"").decode("latin-1"))
    except ServingError:
        raise _no_file() from None
    form = Form(boundary)
    body, parts = _Body(read, form), 0
    while (item := await body.next()) is not None:
        if isinstance(item, bytes):
            continue
        if item.name == "file" and item.filename is not None:
            return File(item.filename, item.media_type, body.content())
        parts += 1
        if parts == _MOST_PARTS:
            raise faulty("body", msg=f"the form has more than {_MOST_PARTS} fields", code="value_error")
    raise _no_file() if form.complete or not form.begun else _broken()


class _Body:
    """What has come of a body and has not been taken."""

    def __init__(self, read: Callable[[], Awaitable[bytes]], form: Form) -> None:
        self._read = read
        self._form = form
        self._items: Iterator[Part | bytes] = iter(())

    async def next(self) -> Part | bytes | None:
        """The beginning of a part, or a piece of one; None when the body has ended."""
        while True:
            try:
                item = next(self._items, None)
            except ServingError:
                raise _broken() from None
            if item is not None:
                return item
            piece = await self._read()
            if not piece:
                return None
            self._items = self._form.feed(piece)

    async def content(self) -> AsyncGenerator[bytes, None]:
        """What comes up to the next part. What is behind it is read and dropped."""
        while isinstance(item := await self.next(), bytes):
            yield item
        if item is None and not self._form.complete:
            raise _broken()
        while await self._read():
            pass


def _no_file() -> ServingError:
    return faulty("body", "file", msg="field required", code="value_error.missing")


def _broken() -> ServingError:
    return faulty("body", msg="There was an error parsing the body", code="value_error")
