"""Reading a program's reply to one request from its socket: the head, then the body as it comes. Called by endpoint_passing.py.

httptools reads heads and chunks; bodies of a known length, and those that end with the connection (HTTP/1.0, as Flask's own server speaks),
are handed on as they were read.
"""

import asyncio
import socket
from collections.abc import AsyncGenerator
from typing import Any

import httptools

_FIRST = 64 << 10
_READ = 256 << 10
_HEAD = 256 << 10
"""Bytes of a head, those of 1xx before it included."""


class BadReply(Exception):  # noqa: N818 # it is the program's
    """What came is no HTTP, or not enough of it. Its text is for the caller."""


class Reply:
    """The reply on this socket, to a request of that method. First `begin`, then `body`. Also the callbacks object of the parser."""

    def __init__(self, app: socket.socket, method: str) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = False
        """Whether its end has been read: of what `body` gives, too."""
        self.left = -1
        """Bytes of the body that are still to come, where that is known."""
        self._app = app
        self._head_only = method == "HEAD"
        self._parser: Any = httptools.HttpResponseParser(self)
        self._begun = False
        self._until_close = False
        self._pieces: list[bytes] = []
        self._loop = asyncio.get_running_loop()

    async def begin(self) -> None:
        """Read the head. Raises BadReply for a connection that ends before, and for what is no reply."""
        size = 0
        while not self._begun:
            try:
                data = await self._loop.sock_recv(self._app, _FIRST)
            except OSError:
                data = b""
            if not data:
                raise BadReply("the program closed the connection without an answer")
            size += len(data)
            self._feed(data)
            if not self._begun and size > _HEAD:
                raise BadReply("the head of the program's answer is too long")

    @property
    def bodiless(self) -> bool:
        return self._head_only or self.status in (204, 304)

    async def body(self) -> AsyncGenerator[bytes, None]:
        """The body, in pieces as they come. Raises ConnectionAbortedError when the program breaks off: an end like any other would be a lie."""
        while True:
            for piece in self.take():
                yield piece
            if self.complete:
                return
            await self._more()

    async def whole(self) -> bytes:
        """The body in one piece. Raises BadReply when the program breaks off."""
        try:
            while not self.complete:
                await self._more()
        except ConnectionAbortedError:
            raise BadReply("the program closed the connection in the middle of its answer") from None
        return b"".join(self.take())

    async def _more(self) -> None:
        try:
            data = await self._loop.sock_recv(self._app, _READ)
        except OSError:
            raise ConnectionAbortedError("the program broke off its answer") from None
        if not data:
            if not self._until_close:
                raise ConnectionAbortedError("the program broke off its answer")
            self.complete = True
        elif self.left > 0:
            self._keep(data[: self.left])
            self.complete = self.left == 0
        elif self._until_close:
            self._pieces.append(data)
        else:
            try:
                self._feed(data)
            except BadReply:
                raise ConnectionAbortedError("the program's answer broke the rules of HTTP") from None

    def _keep(self, piece: bytes) -> None:
        self._pieces.append(piece)
        if self.left > 0:
            self.left -= len(piece)

    def take(self) -> list[bytes]:
        pieces, self._pieces = self._pieces, []
        return pieces

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            self._pieces.append(data[exc.args[0] :])
        except httptools.HttpParserError as exc:
            if not self.complete:  # what follows an answer is not looked at
                cause = exc.__context__ if isinstance(exc, httptools.HttpParserCallbackError) else None
                raise cause if isinstance(cause, BadReply) else BadReply(f"the program's answer is no HTTP: {exc}") from None

    # -- called by the parser

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._begun:  # trailers, else
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self.complete:  # a second answer, which nobody asked for
            return
        self.status = self._parser.get_status_code()
        if self.status < 200 and self.status != 101:  # only on the way
            self.headers.clear()
            return
        self._begun = True
        if self.status == 101:
            self._until_close = True
            return
        named = dict(self.headers)
        coding = named.get(b"transfer-encoding")
        if coding is not None and coding.strip().lower() != b"chunked":
            raise BadReply("the program's answer has a transfer coding other than chunked")
        if self.bodiless:
            self.complete = True
        elif b"content-length" in named:
            self.left = int(named[b"content-length"])
            self.complete = self.left == 0
        elif coding is None:
            self._until_close = True

    def on_body(self, body: bytes) -> None:
        if not self.bodiless and not self.complete:
            self._keep(body)

    def on_message_complete(self) -> None:
        if self._begun and self.status != 101:
            self.complete = True
