"""The file of a multipart body, read while it comes: at most one piece of the body and one head are held. Called by rest.py for uploads."""

import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import unquote

from dragoman.core.errors import ServingError
from dragoman.dialects.tungsten.errors import faulty

_BOUNDARY = re.compile(rb'multipart/form-data\s*;(?:.*;)?\s*boundary=(?:"([^"\r\n]{1,200})"|([^\s;"]{1,200}))', re.IGNORECASE | re.DOTALL)
_DISPOSITION = re.compile(rb"^content-disposition:\s*form-data\s*;(.*)$", re.IGNORECASE | re.MULTILINE)
_TYPE = re.compile(rb"^content-type:\s*([^\r\n]{1,200})", re.IGNORECASE | re.MULTILINE)
_PARAMETER = re.compile(rb'(?<![a-zA-Z*])([a-zA-Z*]{1,16})=(?:"((?:[^"\\]|\\.)*)"|([^;\s]*))')
_LINE = b"\r\n"
_PIECE = 1 << 20
_MOST_HEAD = 16 << 10
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
    found = _BOUNDARY.match(content_type or b"")
    if found is None:
        raise _no_file()
    form = _Form(read)
    boundary = b"--" + (found[1] or found[2])
    if not await form.skip(boundary):
        raise _no_file()
    for _ in range(_MOST_PARTS):
        if await form.ends():
            raise _no_file()
        head = await form.head()
        named = _disposition(head)
        if named.get("name") == "file" and "filename" in named:
            media_type = _TYPE.search(head)
            declared = media_type[1].strip().decode("latin-1") if media_type else ""
            return File(named["filename"], declared, form.content(_LINE + boundary))
        if not await form.skip(_LINE + boundary):
            raise _broken()
    raise faulty("body", msg=f"the form has more than {_MOST_PARTS} fields", code="value_error")


class _Form:
    """What has come of a body and has not been taken."""

    def __init__(self, read: Callable[[], Awaitable[bytes]]) -> None:
        self._read = read
        self._have = bytearray()

    async def skip(self, mark: bytes) -> bool:
        """Go on behind the next mark; False when there is none."""
        reached = False
        while not reached:
            piece, reached = await self._take(mark)
            if piece is None:
                return False
        return True

    async def ends(self) -> bool:
        """Whether the boundary that was just passed is the last one."""
        while len(self._have) < 2 and await self._more():
            pass
        return self._have.startswith(b"--")

    async def head(self) -> bytes:
        """The head of a part. The line end behind it stays: it is that of the next boundary when the part is empty."""
        while (at := self._have.find(_LINE + _LINE, 0, _MOST_HEAD)) < 0:
            if len(self._have) >= _MOST_HEAD or not await self._more():
                raise _broken()
        head = bytes(self._have[:at])
        del self._have[: at + len(_LINE)]
        return head

    async def content(self, mark: bytes) -> AsyncGenerator[bytes, None]:
        """What comes up to the mark, without the end of the head's last line. What comes behind it is read and dropped."""
        line_end = len(_LINE)
        reached = False
        while not reached:
            piece, reached = await self._take(mark)
            if piece is None:
                raise _broken()
            if len(piece) > line_end:
                yield piece[line_end:]
            line_end = max(0, line_end - len(piece))
        while await self._more():
            self._have.clear()

    async def _take(self, mark: bytes) -> tuple[bytes | None, bool]:
        """The next piece before the mark, and whether that is the last one and the mark has been passed. None: the body has no mark."""
        at = self._have.find(mark, 0, _PIECE + len(mark))
        if at >= 0:
            piece = bytes(self._have[:at])
            del self._have[: at + len(mark)]
            return piece, True
        ready = min(_PIECE, len(self._have) - len(mark) + 1)  # what is behind may be the beginning of a mark
        if ready > 0:
            piece = bytes(self._have[:ready])
            del self._have[:ready]
            return piece, False
        return (b"", False) if await self._more() else (None, False)

    async def _more(self) -> bool:
        piece = await self._read()
        self._have += piece
        return bool(piece)


def _disposition(head: bytes) -> dict[str, str]:
    found = _DISPOSITION.search(head)
    if found is None:
        return {}
    named = {}
    for key, quoted, plain in _PARAMETER.findall(found[1]):
        text = (re.sub(rb"\\(.)", rb"\1", quoted) or plain).decode("utf-8", "replace")
        name = key.decode().lower()
        if name == "filename*":  # RFC 5987: utf-8''percent-encoded
            name, text = "filename", unquote(text.rpartition("'")[2])
        named[name] = text
    return named


def _no_file() -> ServingError:
    return faulty("body", "file", msg="field required", code="value_error.missing")


def _broken() -> ServingError:
    return faulty("body", msg="There was an error parsing the body", code="value_error")
