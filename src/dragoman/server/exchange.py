"""One request and its answer: the ASGI `receive` and `send`, the framing of the answer, and running the application.

`reader.py` makes an Exchange for every request head and `connection.py` runs it when its turn has come. `http.py` documents what
applications see.
"""

from asyncio import CancelledError, Future, Task
from collections.abc import Callable, Iterable
from time import perf_counter_ns
from typing import TYPE_CHECKING, Final, cast

from dragoman.server.eager import Stepped
from dragoman.server.service import log
from dragoman.server.wire import CONTINUE, Message, Refusal, Scope, switch_head

if TYPE_CHECKING:
    from dragoman.server.connection import Connection

# phase of the answer: none yet, start message held back, head sent, complete
WAITING: Final = 0
HELD: Final = 1
SENT: Final = 2
DONE: Final = 3
PHASES = ("no answer has begun", "the answer has begun", "part of the body is sent", "the answer is complete")
# what follows the head when it is not a number of bytes still owed
CHUNKED: Final = -1
UNTIL_CLOSE: Final = -2
NOTHING: Final = -3

PIECES = 256  # of a body are joined to one
ONE_WRITE_BYTES = 64 * 1024  # up to about here joining head and body costs less than a gathering write


class ClientGone(ConnectionResetError):  # noqa: N818 # it tells an event; nothing went wrong
    """Raised by `send` when nobody is there to read the answer. An application may let it pass."""


class Exchange:
    """A request and its answer. Applications meet it as `scope["extensions"]["dragoman.disconnect"]`: see `http.py`."""

    __slots__ = (
        "_callbacks",
        "_chunks",
        "_conn",
        "_headers",
        "_joined",
        "_method",
        "_owed",
        "_running",
        "_sent",
        "_service",
        "_started_ns",
        "_status",
        "_taken",
        "_version",
        "_waiters",
        "buffered",
        "complete",
        "connected",
        "discarding",
        "expecting",
        "gone",
        "keep_alive",
        "left",
        "phase",
        "refusal",
        "scope",
        "streaming",
        "tunnel",
    )

    def __init__(self, conn: "Connection", method: str, version: str, keep_alive: bool, left: int, expecting: bool) -> None:
        """Begin with the head read and no byte of the body."""
        self._conn = conn
        self._service = service = conn.service
        self._running: Stepped | Task[None] | None = None
        self._method = method
        self._version = version
        self.keep_alive = keep_alive  # may the connection go on after the answer? Decided when the head is sent.
        self.left = left  # bytes of the body still to come, -1 when it is chunked
        self.expecting = expecting  # the client waits for 100 Continue
        self.scope: Scope | None = None
        self.refusal: Refusal | None = None
        self.connected = True
        self.gone = False  # nothing can be written any more, whereas a client that is not `connected` may still read
        self.complete = False
        self.discarding = False
        self.streaming = False  # begun with its head, and its body handed on as it comes
        self.tunnel = False  # the client wants another protocol: what follows the head is "body" to the end of the connection
        self.phase = WAITING
        self.buffered = 0
        self._taken = 0
        self._joined = 0  # how many of the chunks are PIECES in one
        self._chunks: list[bytes] | None = []
        self._callbacks: list[Callable[[], None]] | None = None
        self._waiters: list[Future[None]] | None = None
        self._headers: Iterable[tuple[bytes, bytes]] = ()
        self._owed = self._sent = 0
        self._started_ns = 0 if service.on_response is None else perf_counter_ns()

    # -- the request, as the connection reads it

    @property
    def received(self) -> int:
        """Count the body bytes that have come."""
        return self._taken + self.buffered

    @property
    def until_close(self) -> bool:
        """Tell whether the end of the connection is that of the answer."""
        return self.phase == SENT and self._owed == UNTIL_CLOSE

    def feed(self, piece: bytes) -> None:
        """Take a piece of the body."""
        size = len(piece)
        if self.left > 0:
            self.left -= size
        chunks = self._chunks
        if chunks is not None:
            chunks.append(piece)
            self.buffered += size
            if len(chunks) >= self._joined + PIECES:  # small pieces cost many times what they hold
                chunks[self._joined :] = [b"".join(chunks[self._joined :])]
                self._joined += 1

    def discard(self) -> None:
        """Drop what has been read of the body and what is still to come."""
        self.discarding = True
        self._chunks = None
        self.buffered = 0

    def wake(self) -> None:
        """Let every waiting `receive` look again."""
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    def disconnect(self, *, gone: bool) -> None:
        """Tell the application that the client has hung up; `gone` when moreover nothing can be written to it.

        In another protocol a client that has closed its sending side has just come to its end.
        """
        if self.tunnel and self.phase == SENT and not gone:
            self.complete = True
            self.wake()
            return
        self.gone = self.gone or gone
        self.wake()
        if not self.connected:
            return
        self.connected = False
        running, cancels = self._running, self._service.cancels
        if running is not None and cancels is not None and self.scope is not None and cancels(self.scope):
            running.cancel()
        callbacks, self._callbacks = self._callbacks, None
        for callback in callbacks or ():
            try:
                callback()
            except Exception:
                log.exception("a disconnect callback failed")

    # -- what applications call

    def add_callback(self, callback: Callable[[], None]) -> None:
        """Have `callback()` called once if the client hangs up before the answer is complete; at once if it already has."""
        if not self.connected:
            callback()
        elif self._callbacks is None:
            self._callbacks = [callback]
        else:
            self._callbacks.append(callback)

    def remove_callback(self, callback: Callable[[], None]) -> None:
        """Withdraw a callback; one that is not there is no error."""
        if self._callbacks is not None and callback in self._callbacks:
            self._callbacks.remove(callback)

    def chunks(self) -> list[bytes] | None:
        """Hand over the whole body in the pieces it came in, if it is complete and `receive` took none of it; else None."""
        if not self.complete or self._taken:
            return None
        chunks, self._chunks = self._chunks, None
        return chunks

    async def receive(self) -> Message:
        """Return the next ASGI message: the body whole or, when it is long, in pieces of `buffer_bytes`; then the hang-up."""
        if self.expecting and not self.complete:
            self.expecting = False
            if self.phase < SENT and not self.gone:
                self._conn.transport.write(CONTINUE)
        while self.phase != DONE and not self.gone:
            chunks = self._chunks
            if chunks is not None and (self.complete or self.buffered >= (1 if self.streaming else self._service.limits.buffer_bytes)):
                body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
                self._taken += self.buffered
                self.buffered = 0
                if self.complete:
                    self._chunks = None
                    return {"type": "http.request", "body": body, "more_body": False}
                self._chunks = []
                self._joined = 0
                self._conn.resume_reading()
                return {"type": "http.request", "body": body, "more_body": True}
            if not self.connected:
                break
            waiter: Future[None] = self._service.loop.create_future()
            self._waiters = [*(self._waiters or ()), waiter]
            await waiter
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Take one ASGI message of the answer; the head leaves together with the first piece of the body.

        Raises ClientGone when there is nobody to send to, RuntimeError for messages out of order or a body that is not as long as its
        Content-Length, ValueError for headers that would break the framing. Waits while the client is slower than the application.
        """
        if self.gone:
            raise ClientGone("the client has hung up")
        kind = message["type"]
        if kind == "http.response.start" and self.phase == WAITING:
            self._status = message["status"]
            self._headers = message.get("headers", ())
            self.phase = HELD
        elif kind == "http.response.body" and (self.phase == HELD or self.phase == SENT):
            body = message.get("body", b"")
            more = message.get("more_body", False)
            if body.__class__ is not bytes:
                body = memoryview(body).cast("B") if len(body) else b""
            self._write(body, more)
            if more and self._conn.write_paused:
                await self._conn.writable()
        else:
            raise RuntimeError(f"ASGI message {kind!r} is out of order: {PHASES[self.phase]}")

    # -- the answer

    def answer(self, refusal: Refusal) -> None:
        """Send an error in the server's own words. Only while no head has been sent."""
        path = refusal.path if self.scope is None else self.scope["path"]
        content_type, body = self._service.words(refusal, path)
        self._status = refusal.status
        self._headers = ((b"content-type", content_type),)
        self.phase = HELD
        self._write(body, False)

    def overrule(self, refusal: Refusal) -> None:
        """Answer in place of the running application, which is told that its client is gone."""
        self.disconnect(gone=True)
        self.answer(refusal)

    def _write(self, body: "bytes | memoryview", more: bool) -> None:
        """Put a piece of the body on the wire, behind the head if that was held back, and finish after the last one."""
        size = len(body)
        pieces: list[bytes | memoryview] = self._head(size, more) if self.phase == HELD else []
        owed = self._owed
        if owed >= 0:
            if size > owed or (size < owed and not more):
                raise RuntimeError(f"the answer is not as long as its Content-Length: {size} bytes came where {owed} are still owed")
            self._owed = owed - size
            pieces.append(body)
        elif owed == CHUNKED:
            if size:
                pieces += (b"%x\r\n" % size, body, b"\r\n")
            if not more:
                pieces.append(b"0\r\n\r\n")
        elif owed == UNTIL_CLOSE:
            pieces.append(body)
        else:
            size = 0
        self._sent += size
        self.phase = SENT
        if size <= ONE_WRITE_BYTES:
            self._conn.transport.write(b"".join(pieces))
        else:
            self._conn.transport.writelines(pieces)
        if not more:
            self._finish()

    def _head(self, size: int, more: bool) -> "list[bytes | memoryview]":
        """Build the head, decide how the body is framed and whether the connection goes on."""
        service = self._service
        status = self._status
        if status == 101 and self.tunnel:
            self._owed, self.keep_alive = UNTIL_CLOSE, False
            return switch_head(self._headers)
        lines: list[bytes | memoryview] = [service.prefixes.get(status) or service.prefix(status)]
        known = service.lines
        keep = self.keep_alive
        length = -1
        for header in self._headers:
            pair = header if header.__class__ is tuple else cast("tuple[bytes, bytes]", tuple(header))
            line = known.get(pair)
            if line is None:
                line = service.line(pair)
            if isinstance(line, bytes):
                lines.append(line)
            elif line == -1:
                keep = False
            else:
                length = line
        if keep and not (self.complete and self.connected and not service.draining):
            keep = self._conn.keeps(self)
        bodiless = status == 204 or status == 304
        if length < 0 and not more and not bodiless:
            length = size
        self._owed = length
        if length >= 0:
            if status != 204:
                lines.append(b"content-length: %d\r\n" % length)
        elif self._version == "1.1":
            self._owed = CHUNKED
            if not bodiless:
                lines.append(b"transfer-encoding: chunked\r\n")
        else:
            self._owed = UNTIL_CLOSE
            keep = keep and bodiless
        if bodiless or self._method == "HEAD":
            self._owed = NOTHING
        if not keep:
            lines.append(b"connection: close\r\n\r\n")
        elif self._version == "1.1":
            lines.append(b"\r\n")
        else:
            lines.append(b"connection: keep-alive\r\n\r\n")
        self.keep_alive = keep
        return lines

    def _finish(self) -> None:
        """End the answer and give the connection back."""
        self.phase = DONE
        self._callbacks = None
        if self._waiters is not None:
            self.wake()
        on_response = self._service.on_response
        if on_response is not None:
            try:
                on_response(self.scope, self._status, self._sent, self._started_ns)
            except Exception:
                log.exception("the response hook failed")
        self._conn.finished(self)

    # -- running the application

    def run(self) -> None:
        """Answer the request: by its refusal, else by the application, stepped once without a task if it agrees to that."""
        if self.refusal is not None:
            self.answer(self.refusal)
            self.scope = None
            return
        service, scope = self._service, self.scope
        assert scope is not None
        try:
            eager = self.complete and service.eager is not None and service.eager(scope)
            work = service.app(scope, self.receive, self.send)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:
            self._ended(exc)
            return
        if eager:
            stepped = Stepped(work, self._ended, service.loop)
            if not stepped.go_on():
                self._running = stepped
                service.stepped.add(stepped)
        else:
            task = service.loop.create_task(work)
            service.tasks.add(task)
            task.add_done_callback(self._task_ended)
            self._running = task

    def _task_ended(self, task: "Task[None]") -> None:
        self._service.tasks.discard(task)
        self._ended(CancelledError() if task.cancelled() else task.exception())

    def _ended(self, exc: BaseException | None) -> None:
        """Look at how the application ended, and answer in its place if it did not."""
        scope = self.scope
        self._callbacks = None
        if isinstance(self._running, Stepped):
            self._service.stepped.discard(self._running)
        self._running = None
        self.scope = None  # the scope refers to this exchange: without this every request would leave a cycle to collect
        if exc is None and (self.phase == DONE or self.gone):
            return
        silent = not self.connected and (exc is None or isinstance(exc, ConnectionError | CancelledError))
        silent = silent or (self.phase == SENT and isinstance(exc, ConnectionAbortedError))
        if not silent:
            where = f"{self._method} {scope['path']!r}" if scope is not None else self._method
            what = "the application ended without completing its answer" if exc is None else "the application failed"
            log.error("%s: %s", where, what, exc_info=exc)
        if self.gone or self.phase == DONE:
            return
        if silent or self.phase == SENT:
            self._conn.abandon(self)
        else:
            self.scope = scope
            self.answer(Refusal(500, "internal error"))
            self.scope = None
