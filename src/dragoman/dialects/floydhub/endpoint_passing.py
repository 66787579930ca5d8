"""One request passed to a job's program, and its reply passed back: both as they come, of any size. Called by endpoint.py with a permit.

A short body is read before anybody asks for a permit (`begun`), so that slow clients do not keep a job from others. A longer one follows
while the reply is already being read. The permit is given back when the last byte of the reply has been read, or its client has gone.
"""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass

from dragoman.dialects import Answer, Request
from dragoman.dialects.floydhub.endpoint_headers import Place, asked, replied, wanted_upgrade
from dragoman.dialects.floydhub.endpoint_reply import BadReply, Reply
from dragoman.serving.jobs.permits import Permit

_SHORT = 256 << 10
"""Bytes of a request body up to which it is read before its turn comes."""
_AT_ONCE = 64 << 10
"""Bytes that a program's socket takes without the program reading."""
_TRICKLE_S = 0.2
"""How long the end of a body in chunks is waited for: programs that do not know chunks (HTTP/1.0) get it with its length then."""
_WHOLE = 64 << 10
"""Bytes of a reply that, when no more than these are missing, is read to its end before it is passed back: in one write."""


@dataclass(frozen=True, slots=True)
class Body:
    """What has been read of a request's body. `length`: of all of it, None where there is none, -1 where nobody knows."""

    length: int | None
    read: bytes
    complete: bool


async def begun(request: Request) -> Body:
    """Read a request's body to its end if that is near. Raises CANCELLED when the client goes away."""
    if wanted_upgrade(request):
        return Body(None, b"", complete=False)
    declared = request.header(b"content-length")
    if declared is None and request.header(b"transfer-encoding") is None:
        return Body(None, b"", complete=True)
    length = -1 if declared is None else int(declared)
    pieces: list[bytes] = []
    size = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(_TRICKLE_S if length < 0 else None):
            while size != length and size < _SHORT:
                piece = await request.read()
                if not piece:
                    length = size
                pieces.append(piece)
                size += len(piece)
    return Body(length, b"".join(pieces), complete=size == length)


async def passed(request: Request, place: Place, body: Body, permit: Permit) -> Answer:
    """The program's answer. Closes the permit, when it raises and otherwise when the answer is over.

    Raises BadReply for a program that gives none, which nobody has been told yet.
    """
    upgrade = wanted_upgrade(request)
    passage = _Passage(permit)
    try:
        head = asked(request, place, keeps_prefix=permit.keeps_prefix, length=body.length, upgrade=upgrade)
        if upgrade:
            await passage.send(head)
        elif body.complete and len(body.read) <= _AT_ONCE:
            await passage.send(head + body.read)
        else:
            passage.follow(head, body, request)
        reply = Reply(permit.app, request.method)
        await reply.begin()
        if reply.status == 101:
            if not upgrade:
                raise BadReply("the program changed to another protocol without being asked")
            permit.last()
            passage.follow(b"", body, request)
            return Answer(
                101, passage.body(reply), b"", [*replied(reply.headers), (b"upgrade", dict(reply.headers).get(b"upgrade", upgrade))]
            )
        headers = replied(reply.headers)
        if not reply.bodiless and (reply.complete or 0 <= reply.left <= _WHOLE):
            whole = await reply.whole()
            await passage.close()
            return Answer(reply.status, whole, b"", [each for each in headers if each[0] != b"content-length"])
    except BaseException:
        await passage.close()
        raise
    return Answer(reply.status, passage.body(reply), b"", headers)


class _Passage:
    """A permit in use, and the rest of a request's body on its way. Close it once; `body` does when it ends."""

    def __init__(self, permit: Permit) -> None:
        self._permit = permit
        self._sender: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        """What cannot be sent is not missed: the program may have answered already, and then hung up."""
        with suppress(OSError):
            await self._loop.sock_sendall(self._permit.app, data)

    def follow(self, head: bytes, body: Body, request: Request) -> None:
        """Send this, and whatever comes of the body, while the reply is read."""
        self._sender = self._loop.create_task(self._send(head, body, request))

    async def _send(self, head: bytes, body: Body, request: Request) -> None:
        app, chunked = self._permit.app, body.length == -1
        with suppress(OSError):
            await self._loop.sock_sendall(app, head + _piece(body.read, chunked))
            if not body.complete:
                while piece := await request.read():
                    await self._loop.sock_sendall(app, _piece(piece, chunked))
                if chunked:
                    await self._loop.sock_sendall(app, b"0\r\n\r\n")
            if body.length is None:  # another protocol: the client's end is the program's
                app.shutdown(socket.SHUT_WR)

    async def body(self, reply: Reply) -> AsyncGenerator[bytes, None]:
        """The body of the reply; closes the passage."""
        try:
            yield b"".join(reply.take())  # at once, be it nothing: heads do not wait for bodies
            async for piece in reply.body():
                yield piece
        finally:
            await self.close()

    async def close(self) -> None:
        sender, self._sender = self._sender, None
        try:
            if sender is not None:
                sender.cancel()
                await asyncio.gather(sender, return_exceptions=True)  # nobody may close a socket that another waits for
        finally:
            self._permit.close()


def _piece(data: bytes, chunked: bool) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data) if chunked and data else data
