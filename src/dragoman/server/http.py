"""The HTTP/1.1 server: listens, accepts, drains. The composition root makes one per worker and gives it one ASGI 3 application.

What the application sees beyond ASGI, in `scope["extensions"]`:

- `"dragoman.disconnect"`: an object with `connected: bool`, `add_callback(fn)` and `remove_callback(fn)`. `fn()` is called on the loop once
  the client has hung up before its answer was complete. It costs nothing until it is used.
- `"dragoman.chunks"`: `chunks() -> list[bytes] | None`: the whole request body in the pieces in which it was read, for those who copy it
  into a buffer of their own and would only pay for a joined one. None while the body is incomplete or once `receive` took any of it.

A body of up to `HttpLimits.buffer_bytes` is complete before the application starts, so one `receive` returns all of it. Longer bodies
come in pieces of about that size, and the client is stopped while the application takes none. `Expect: 100-continue` starts the
application with the head alone; its first `receive` asks the client for the body, an answer without it refuses the body.

An application with a method `eager(scope) -> bool` that answers True is run without a task while it waits for nothing but futures, which
is what makes short requests cheap. Meanwhile `asyncio.current_task()` is None (so no `asyncio.timeout` and no task groups), and context
variables that it sets stay set. A method `cancels(scope) -> bool` that answers True has the request cancelled when its client hangs up.

A method `streams(path) -> bool` that answers True has bodies sent there handed on as they come: the application starts with the head, each
`receive` returns what there is, `max_body_bytes` is not applied, and about `stream_bytes` are held. There it may also answer a request for
another protocol, which `scope["extensions"]["dragoman.upgrade"]` then names (b"websocket"), by 101: from then on what `receive` returns and
what `send` is given are the bytes of that protocol, until the application ends its answer or the client its connection; `more_body: False`
is the end of what the client sends.

An application that raises ConnectionAbortedError cuts off an answer that it has begun, and is not logged as failed.

`send` takes bytes, bytearray or any contiguous buffer as body; the buffer must not change afterwards. It raises ClientGone (a
ConnectionError) when the client has hung up; after a hang-up the application may end by any ConnectionError or by CancelledError without
being logged as failed.
"""

import asyncio
import contextlib
import errno
import os
import socket
import ssl as tls
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial

from dragoman.server.accept import Acceptor, Peers
from dragoman.server.connection import DRAIN_GRACE_S, Connection
from dragoman.server.exchange import ClientGone
from dragoman.server.service import Application, Service, log
from dragoman.server.wire import ErrorBody, HttpLimits, OnResponse, json_error

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment] # the name is a module or nothing

__all__ = ["Application", "ClientGone", "ErrorBody", "HttpLimits", "HttpServer", "OnResponse", "Peers", "bind"]

BACKLOG = 2048
SPARE_FILES = 256  # descriptors for models, logs and clients that are told that there are too many
# glibc serves larger blocks by fresh pages and gives them back at once, until the first such block is freed: from then on it keeps up to
# twice that size. A body of 600 kB costs 40 us of system time afterwards and 300 to 580 before (measured). The pages are never touched.
FREED_BYTES = 16 * 1024 * 1024
SHORTEST_TICK_S = 0.01
_LOOK_AGAIN_S = 0.005
LONGEST_TICK_S = 1.0


def bind(host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
    """Return a bound TCP socket. `host` is a name or an address of either family; "" and "::" are all addresses of both.

    It does not listen yet: until `HttpServer.start` takes it, clients are refused instead of waiting for models that load. Raises OSError
    whose text names host and port, for a port in use or not permitted and for a host that is not here.
    """
    try:
        if not 0 <= port <= 65535:
            raise OSError(errno.EINVAL, "a port is a number from 0 to 65535")
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family = next((each[0] for each in found if not host and each[0] == socket.AF_INET6), found[0][0])
        both = family == socket.AF_INET6 and host in ("", "::") and socket.has_dualstack_ipv6()
        address = ("::" if not host and both else found[0][4][0], port)
        return _bound(family, address, reuse_port=reuse_port, dual=both)
    except OSError as exc:
        reason = {
            errno.EADDRINUSE: "the port is already in use",
            errno.EACCES: "not permitted (ports below 1024 need privileges)",
            errno.EADDRNOTAVAIL: "the address is not one of this machine",
        }.get(exc.errno or 0, exc.strerror or str(exc))
        raise OSError(exc.errno, f"cannot listen on {host or '*'} port {port}: {reason}") from exc


def _bound(family: int, address: tuple[str | int, int], *, reuse_port: bool, dual: bool) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # elsewhere this would let two servers share a port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if dual else 1)
        bound.bind(address)
    except BaseException:
        bound.close()
        raise
    return bound


def _affordable(limits: HttpLimits) -> HttpLimits:
    """Lower `max_connections` to what the process may open: out of descriptors, a server cannot even refuse, and uvloop stops to listen."""
    if resource is None:
        return limits
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    affordable = limits.max_connections if files == resource.RLIM_INFINITY else max(files - SPARE_FILES, files // 2)
    if limits.max_connections <= affordable:
        return limits
    log.warning("at most %d connections are taken, not %d: the limit of open files is %d", affordable, limits.max_connections, files)
    return replace(limits, max_connections=affordable)


class HttpServer:
    """Serves one application on any number of sockets of the running loop."""

    def __init__(
        self,
        app: Application,
        *,
        limits: HttpLimits | None = None,
        error_body: ErrorBody = json_error,
        on_response: OnResponse | None = None,
        peers: Peers | None = None,
    ) -> None:
        """Take what all connections share; nothing is opened. `on_response` is called after each complete answer.

        `peers` are the other processes that accept from the same sockets, where there are any.
        """
        self._app = app
        self._limits = _affordable(limits or HttpLimits())
        self._error_body = error_body
        self._on_response = on_response
        self._service: Service | None = None
        self._peers = peers
        self._listeners: list[tuple[Acceptor, tls.SSLContext | None]] = []
        self._handshakes: set[asyncio.Task[None]] = set()
        self._ticker: asyncio.TimerHandle | None = None
        times = (getattr(self._limits, each.name) for each in fields(HttpLimits) if each.name.endswith("_s"))
        self._interval_s = min(max(min(times) / 4, SHORTEST_TICK_S), LONGEST_TICK_S)

    @property
    def connections(self) -> int:
        """Count the open connections."""
        return 0 if self._service is None else len(self._service.connections)

    async def start(self, sockets: Sequence[socket.socket], ssl: tls.SSLContext | None = None) -> None:
        """Accept clients on listening sockets, which the server owns from here on. May be called again with more of them."""
        loop = asyncio.get_running_loop()
        if self._service is None:
            bytearray(FREED_BYTES)
            self._service = Service(self._app, self._limits, self._error_body, self._on_response, loop)
            self._tick()
        for each in sockets:
            each.setblocking(False)
            each.listen(BACKLOG)
            self._listeners.append((Acceptor(each, partial(self._accepted, ssl), self._open_connections, self._peers), ssl))

    async def drain(self, timeout_s: float) -> int:
        """Stop accepting, let requests in flight finish, close everything; return how many had to be cut off after `timeout_s`.

        Clients that had connected are still served, also those whose request had not been read. Answers say `Connection: close`.
        """
        service = self._service
        if service is None:
            return 0
        until = service.loop.time() + timeout_s
        service.draining = True
        await self._stop_listening()
        for _ in range(3):  # let the loop read what has arrived, so that a connection with a request is not taken for an idle one
            await asyncio.sleep(0)
        # A client that asks again and again is told to close with its next answer; closing its connection now could cross its next request.
        await self._wait_empty(min(timeout_s, DRAIN_GRACE_S))
        for connection in list(service.connections):
            connection.wind_down(fresh=True)
        await self._wait_empty(until - service.loop.time())
        await self._wait_done(until - service.loop.time())  # what applications still do behind their answers
        cut = sum([connection.abort() for connection in list(service.connections)])
        for task in service.tasks:
            task.cancel()
        for stepped in list(service.stepped):
            stepped.cancel()
        await self._wait_done(DRAIN_GRACE_S)
        await self._wait_empty(DRAIN_GRACE_S)
        if self._ticker is not None:
            self._ticker.cancel()
        return cut

    async def _wait_done(self, timeout_s: float) -> None:
        """Wait until no application runs any more."""
        assert self._service is not None
        service = self._service
        until = service.loop.time() + timeout_s
        while service.tasks and service.loop.time() < until:
            await asyncio.wait(list(service.tasks), timeout=until - service.loop.time())
        while service.stepped and service.loop.time() < until:  # noqa: ASYNC110 # an event would cost every request; this is a shutdown
            await asyncio.sleep(_LOOK_AGAIN_S)

    def _connect(self) -> Connection:
        assert self._service is not None
        return Connection(self._service)

    def _tick(self) -> None:
        assert self._service is not None
        self._service.tick(self._interval_s)
        self._ticker = self._service.loop.call_later(self._interval_s, self._tick)

    async def _stop_listening(self) -> None:
        """Close the listeners, but serve the connections that the kernel has already made: closing alone would reset them."""
        for acceptor, ssl in self._listeners:
            for accepted in acceptor.stop():
                self._accepted(ssl, accepted)
        self._listeners.clear()
        late = list(self._handshakes)
        if late:
            await asyncio.wait(late, timeout=DRAIN_GRACE_S)
            for task in late:
                task.cancel()

    def _open_connections(self) -> int:
        return self.connections + len(self._handshakes)

    def _accepted(self, ssl: tls.SSLContext | None, accepted: socket.socket) -> None:
        task = asyncio.get_running_loop().create_task(self._take_over(accepted, ssl))
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)

    async def _take_over(self, accepted: socket.socket, ssl: tls.SSLContext | None) -> None:
        accepted.setblocking(False)
        handshake, shutdown = self._tls_times(ssl)
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().connect_accepted_socket(
                self._connect, accepted, ssl=ssl, ssl_handshake_timeout=handshake, ssl_shutdown_timeout=shutdown
            )

    def _tls_times(self, ssl: tls.SSLContext | None) -> tuple[float | None, float | None]:
        """Return the time-outs of handshake and shutdown, which asyncio refuses to hear of without TLS."""
        return (None, None) if ssl is None else (self._limits.header_timeout_s, self._limits.linger_s)

    async def _wait_empty(self, timeout_s: float) -> None:
        assert self._service is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, timeout_s)):
                await self._service.empty.wait()
