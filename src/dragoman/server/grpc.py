"""The gRPC listener: services of dialects on ports of their own, bytes in and bytes out, on the worker's event loop. Made by worker.py.

One call reads straight down in `_unary` or `_stream`: who calls, may he, until when, the service's method, its answer or its status. Nothing
here knows a protocol. Workers share a port by SO_REUSEPORT: the kernel gives each its connections.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import unquote

import grpc
import grpc.aio

from dragoman.core.errors import Kind, ServingError
from dragoman.dialects import Access, Scope
from dragoman.dialects.rpc import Code, Method, RpcCall, RpcService, Stream, Unary
from dragoman.server.guard import Guard
from dragoman.server.trace import CURRENT, IDS_KEY, Ids, identify

log = logging.getLogger("dragoman.grpc")

Context: TypeAlias = grpc.aio.ServicerContext
RpcHandler: TypeAlias = grpc.RpcMethodHandler
OnCall: TypeAlias = Callable[[Scope, str, int, int], None]
"""Called after each call: what it was, the name of its status, the bytes of its answer, and when it began (performance counter, ns)."""

_STATUS = {Code(status.value[0]): status for status in grpc.StatusCode}
_MOMENT_S = 0.03
_MOST_MOMENTS = 20
_PASSES = 5
_LONGEST_DETAILS = 4000
"""Bytes of a status text as it is sent, where all but plain ASCII takes three: all trailers together are allowed eight thousand."""


@dataclass(frozen=True, slots=True)
class GrpcLimits:
    """`max_message_bytes` of one message that comes in; what goes out has no limit. `max_calls` at a time; one more is refused."""

    max_message_bytes: int
    max_calls: int


@dataclass(slots=True)
class _Ending:
    """How a call ends: the bytes that it has sent, its status and the text of that."""

    sent: int = 0
    code: Code = Code.OK
    text: str = ""


class GrpcServer:
    """Serves services on any number of addresses of the running loop. `identified`: every call gets a request id."""

    def __init__(
        self, services: Sequence[RpcService], guard: Guard, limits: GrpcLimits, on_call: OnCall | None = None, *, identified: bool = False
    ) -> None:
        self._guard = guard
        self._on_call = on_call
        self._identified = identified
        self._draining = asyncio.Event()
        self._dismissed = asyncio.Event()
        self._open = 0
        self._begun = 0
        self._changing: set[asyncio.Future[bytes]] = set()
        handlers = {
            f"/{service.name}/{name}": self._handler(service, name, method)
            for service in services
            for name, method in service.methods.items()
        }
        self._server = grpc.aio.server(
            handlers=[_Handlers(handlers)],
            options=[
                ("grpc.max_receive_message_length", min(limits.max_message_bytes, (1 << 31) - 1)),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 1),
            ],
            maximum_concurrent_rpcs=limits.max_calls,
        )

    async def start(self, addresses: Iterable[str], credentials: grpc.ServerCredentials | None = None) -> list[int]:
        """Listen on "host:port"s and answer; returns the ports. Raises UNAVAILABLE for one that cannot be had."""
        ports = []
        for address in addresses:
            try:
                port = (
                    self._server.add_insecure_port(address) if credentials is None else self._server.add_secure_port(address, credentials)
                )
            except RuntimeError as error:
                raise ServingError(Kind.UNAVAILABLE, f"cannot listen for gRPC on {address}: {error}") from error
            ports.append(port)
        await self._server.start()
        return ports

    async def drain(self, timeout_s: float) -> int:
        """Take no new calls, let those that run finish, close everything; returns how many were broken off after `timeout_s`.

        Streams take no more messages, answer those that they have, and end.
        """
        until = time.monotonic() + timeout_s
        self._draining.set()
        await self._wait_quiet()
        stopping = asyncio.ensure_future(self._server.stop(max(0.0, until - time.monotonic())))
        for _ in range(_PASSES):  # let the library tell its clients
            await asyncio.sleep(0)
        self._dismissed.set()
        await asyncio.wait([stopping], timeout=max(0.0, until - time.monotonic()))
        cut = self._open
        await stopping
        if self._changing:
            await asyncio.wait(self._changing, timeout=max(0.0, until - time.monotonic()))
        return cut

    async def _wait_quiet(self) -> None:
        """Wait until no call has come for a moment. The library drops those that have come and not begun when it stops: of 8 busy clients, 6.

        Answers wait meanwhile, until clients have been told to go elsewhere: who waits for one does not ask for the next.
        """
        for _ in range(_MOST_MOMENTS):
            begun = self._begun
            await asyncio.sleep(_MOMENT_S)
            if self._begun == begun:
                return

    # --- one call ---

    def _handler(self, service: RpcService, name: str, method: Method) -> RpcHandler:
        path = f"/{service.name}/{name}"
        if method.unary is not None:
            return grpc.unary_unary_rpc_method_handler(self._unary(service, path, method.access, method.unary))
        assert method.stream is not None
        return grpc.stream_stream_rpc_method_handler(self._stream(service, path, method.access, method.stream))

    def _unary(
        self, service: RpcService, path: str, access: Access, method: Unary
    ) -> Callable[[bytes, Context], Coroutine[Any, Any, bytes]]:
        async def handle(message: bytes, context: Context) -> bytes:
            answer = b""
            with self._ending(service, path, context) as ending:
                call = await self._admitted(context, access)
                # What changes the server goes on when its caller leaves, as over HTTP.
                answer = await (method(message, call) if access is not Access.ADMIN else self._kept(method(message, call)))
                ending.sent = len(answer)
            await self._end(context, ending)
            return answer

        return handle

    def _stream(
        self, service: RpcService, path: str, access: Access, method: Stream
    ) -> Callable[[AsyncIterator[bytes], Context], AsyncGenerator[bytes, None]]:
        async def handle(messages: AsyncIterator[bytes], context: Context) -> AsyncGenerator[bytes, None]:
            with self._ending(service, path, context) as ending:
                call = await self._admitted(context, access)
                async with aclosing(method(self._until_drain(messages), call)) as answers:
                    async for answer in answers:
                        ending.sent += len(answer)
                        yield answer
            await self._end(context, ending)

        return handle

    @contextmanager
    def _ending(self, service: RpcService, path: str, context: Context) -> Iterator[_Ending]:
        """Count a call while it runs, make a status of what goes wrong with it, and log it."""
        began = time.perf_counter_ns()
        peer = "" if self._on_call is None else context.peer()  # which nobody knows any more once it has left
        self._open += 1
        self._begun += 1
        ending = _Ending()
        try:
            yield ending
        except ServingError as error:
            if error.kind is Kind.MODEL_FAILED and error.__cause__ is not None:
                log.exception("%s", error.message, exc_info=error.__cause__)
            ending.code, ending.text = service.refuse(error)
        except Exception:
            log.exception("%s failed", path)
            ending.code, ending.text = Code.INTERNAL, "internal error"
        except (asyncio.CancelledError, GeneratorExit):
            ending.code = Code.CANCELLED
            raise
        finally:
            self._open -= 1
            if self._on_call is not None:
                ids: Ids | None = CURRENT.get()
                scope: Scope = {"type": "grpc", "method": "GRPC", "path": path, "client": _client(peer), IDS_KEY: ids}
                self._on_call(scope, ending.code.name, ending.sent, began)

    async def _end(self, context: Context, ending: _Ending) -> None:
        """Let the call end by its status, and when the server drains not before its clients know of that."""
        if self._draining.is_set():
            await self._dismissed.wait()
        if ending.code is not Code.OK:
            await _abort(context, ending.code, ending.text)

    async def _admitted(self, context: Context, access: Access) -> RpcCall:
        """Who calls and until when. Raises UNAUTHENTICATED or FORBIDDEN."""
        headers = tuple(_header(key, value) for key, value in context.invocation_metadata() or ())
        ids = identify(headers, always=self._identified)
        if ids is not None:
            CURRENT.set(ids)  # every call has a task of its own, and its context ends with it
            context.set_trailing_metadata([(name.decode(), value.decode()) for name, value in ids.headers()])
        if self._guard.locked:
            await self._guard.open(headers)
        caller = ""
        if self._guard.active or access is Access.ADMIN:
            key = self._guard.allow(access, headers)
            caller = key.name if key is not None else ""
        left_s = context.time_remaining()
        return RpcCall(math.inf if left_s is None else time.monotonic() + left_s, caller, headers)

    async def _kept(self, work: Awaitable[bytes]) -> bytes:
        task = asyncio.ensure_future(work)
        self._changing.add(task)
        task.add_done_callback(self._changed)
        return await asyncio.shield(task)

    def _changed(self, task: "asyncio.Future[bytes]") -> None:
        self._changing.discard(task)
        if not task.cancelled():
            task.exception()  # its caller has heard of it, or has left

    async def _until_drain(self, messages: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """The messages of a stream, until its client has no more or the server drains."""
        draining = asyncio.ensure_future(self._draining.wait())
        try:
            while True:
                # Not cancelled when the server drains: the library's own reading would not survive it, and ends with the call.
                reading = asyncio.ensure_future(anext(messages, None))
                await asyncio.wait([reading, draining], return_when=asyncio.FIRST_COMPLETED)
                if not reading.done():
                    reading.add_done_callback(_forgotten)
                    return
                message = reading.result()
                if message is None:
                    return
                yield message
        finally:
            draining.cancel()


class _Handlers:
    """One look-up by path; nothing else of the library's routing is needed."""

    def __init__(self, handlers: dict[str, RpcHandler]) -> None:
        self._handlers = handlers

    def service(self, details: grpc.HandlerCallDetails) -> RpcHandler | None:
        return self._handlers.get(details.method)


def credentials(cert: str, key: str = "", client_ca: str = "") -> grpc.ServerCredentials | None:
    """Those for --tls-cert, --tls-key and --tls-client-ca, whose files tls.py has checked; None where no certificate is named."""
    if not cert:
        return None
    chain, private = _read(cert), _read(key or cert)
    return grpc.ssl_server_credentials([(private, chain)], _read(client_ca) if client_ca else None, bool(client_ca))


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def address(host: str, port: int) -> str:
    """Where to listen, as the library writes it. "" and "::" are all addresses of both families."""
    return f"[{host or '::'}]:{port}" if not host or ":" in host else f"{host}:{port}"


def _header(key: str, value: str | bytes) -> tuple[bytes, bytes]:
    return key.encode("latin-1", "replace"), value if isinstance(value, bytes) else value.encode("latin-1", "replace")


def _client(peer: str) -> tuple[str, int] | None:
    """Address and port of a peer such as "ipv4:127.0.0.1:5000" or "ipv6:%5B::1%5D:5000"."""
    kind, _, rest = unquote(peer).partition(":")
    host, _, port = rest.rpartition(":")
    return (host.strip("[]"), int(port)) if kind in ("ipv4", "ipv6") and port.isdigit() else None


async def _abort(context: Context, code: Code, text: str) -> None:
    """End the call with a status. Always raises what the library ends calls by."""
    while len(encoded := text.encode("utf-8", "replace")) > _LONGEST_DETAILS or 3 * len(encoded) - 2 * _plain(encoded) > _LONGEST_DETAILS:
        text = text[: len(text) * 3 // 4]
    await context.abort(_STATUS[code], encoded.decode(), context.trailing_metadata() or ())


def _plain(encoded: bytes) -> int:
    """Bytes that a status text carries as they are."""
    return sum(0x20 <= octet < 0x7F and octet != 0x25 for octet in encoded)


def _forgotten(reading: "asyncio.Future[bytes | None]") -> None:
    """Look at what became of a reading that nobody waits for any more, so that nobody complains."""
    with contextlib.suppress(asyncio.CancelledError):
        reading.exception()
