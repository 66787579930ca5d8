"""One client connection: keeps requests in order, applies the time-outs, and closes so that no answer is lost.

`http.py` makes one per accepted socket. Bytes that arrive behind a request that is still being answered are held back, not parsed, so a
client that pipelines occupies about one read buffer.
"""

import asyncio
import socket
import struct
from asyncio import Future
from math import inf
from typing import cast

from dragoman.server.exchange import DONE, SENT, Exchange
from dragoman.server.reader import Reader
from dragoman.server.service import Service
from dragoman.server.wire import Refusal

HOLD_BYTES = 64 * 1024  # unparsed bytes above which reading pauses; below it a hang-up is still noticed
EXCESS_CONNECTIONS = 64  # connections above the limit that are told so; more than these are cut off
DRAIN_GRACE_S = 1.0  # how long an idle connection may still send a request while the server drains

_RESET = struct.pack("ii", 1, 0)


class Connection(asyncio.Protocol):
    """The protocol object of one socket. All of it runs on the loop; nothing blocks."""

    __slots__ = (
        "_advancing",
        "_current",
        "_eof",
        "_held",
        "_leaving",
        "_reader",
        "_reading",
        "_served",
        "_unsent",
        "_writers",
        "client",
        "deadline",
        "scheme",
        "server",
        "service",
        "transport",
        "write_deadline",
        "write_paused",
    )

    def __init__(self, service: Service) -> None:
        """Begin unconnected."""
        self.service = service
        self.transport: asyncio.Transport
        self.scheme = "http"
        self.client: tuple[str, int] | None = None
        self.server: tuple[str, int] | None = None
        self.deadline = inf  # for the peer to send; checked by the ticks of the service
        self.write_deadline = inf  # for the peer to take some of what is written
        self.write_paused = False
        self._reader = Reader(self)
        self._current: Exchange | None = None  # being answered
        self._held = bytearray()  # not parsed yet
        self._reading = True
        self._eof = False
        self._leaving = False  # closing, or only waiting for the peer to close
        self._served = False
        self._advancing = False
        self._unsent = 0
        self._writers: list[Future[None]] = []

    # -- called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet a client, or turn it away when there are too many."""
        service = self.service
        self.transport = cast("asyncio.Transport", transport)
        if transport.get_extra_info("sslcontext") is not None:
            self.scheme = "https"
        self.client = _address(transport.get_extra_info("peername"))
        self.server = _address(transport.get_extra_info("sockname"))
        self.deadline = service.now + (DRAIN_GRACE_S if service.draining else service.limits.header_timeout_s)
        excess = len(service.connections) - service.limits.max_connections
        service.add(self)
        if excess >= EXCESS_CONNECTIONS:
            self.transport.abort()
        elif excess >= 0:
            self._reader.refuse(None, Refusal(503, "too many connections"))
            self.advance()

    def data_received(self, data: bytes) -> None:
        """Parse what came, or hold it while a request is being answered, and run the requests that it completes."""
        reader = self._reader
        if reader.deaf:
            return
        if reader.incoming is None and (self._current is not None or reader.queue or self._held):
            self._hold(data)
            return
        rest = reader.feed(data)
        if rest:
            self._hold(rest)
        if reader.queue or reader.deaf:
            self.advance()
        if reader.incoming is not None:
            self._await_body()

    def eof_received(self) -> bool:
        """Tell running applications that the client hangs up. It may have closed its sending side only, so answers are still sent."""
        self._eof = True
        self._reader.cut()
        current, queue = self._current, self._reader.queue
        if self._leaving or (current is None and not queue and not self._held):
            return False
        if current is not None:
            current.disconnect(gone=False)
        for exchange in queue:
            exchange.disconnect(gone=False)
        return self.scheme == "http"

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget everything and tell the running application."""
        self._leaving = True
        self.deadline = self.write_deadline = inf
        self.service.discard(self)
        self._reader.close()
        self._held.clear()
        self._release_writers()
        current, self._current = self._current, None
        if current is not None:
            current.disconnect(gone=True)

    def pause_writing(self) -> None:
        """Note that the client is slower than we are."""
        self.write_paused = True
        self._unsent = self.transport.get_write_buffer_size()
        self.write_deadline = self.service.now + self.service.limits.write_timeout_s

    def resume_writing(self) -> None:
        """Let waiting senders and waiting requests go on."""
        self.write_paused = False
        self.write_deadline = inf
        self._release_writers()
        if self._current is None and not self._advancing:
            self.service.loop.call_soon(self.advance)

    # -- called by the exchange being answered

    async def writable(self) -> None:
        """Wait until the client has taken most of what was written, or is gone."""
        while self.write_paused and not self._leaving:
            waiter: Future[None] = self.service.loop.create_future()
            self._writers.append(waiter)
            await waiter

    def resume_reading(self) -> None:
        """Read on, after an application has taken a piece of a long body."""
        if not self._reading and not self._leaving and not self._eof:
            self._reading = True
            self.transport.resume_reading()
        if self._reader.incoming is not None:
            self._await_body()

    def keeps(self, exchange: Exchange) -> bool:
        """Tell whether the connection can go on after an answer that begins now."""
        if not exchange.complete and (exchange.expecting or not 0 <= exchange.left <= self.service.limits.drain_body_bytes):
            return False
        if self.service.draining or self._eof:
            return bool(self._reader.queue or self._held)
        return not self._leaving

    def finished(self, exchange: Exchange) -> None:
        """Go on, drain or close after an answer."""
        self._current = None
        self._served = True
        if self._leaving:
            return
        if exchange.keep_alive and exchange.complete:
            self._idle()
            if not self._advancing and (self._held or self._reader.queue or self._eof):
                self.service.loop.call_soon(self.advance)
        elif exchange.keep_alive:
            exchange.discard()
            self.resume_reading()
        elif self._reader.deaf and exchange.refusal is None:
            self._close()  # the client has said that nothing more comes
        else:
            self._linger()

    def completed(self, exchange: Exchange) -> None:
        """Note that the body of a request that runs, or is answered already, has come to its end."""
        if exchange is self._current:
            self.deadline = inf
            exchange.wake()
        else:
            self._idle()

    def abandon(self, exchange: Exchange) -> None:
        """Close in the middle of an answer, so that the client sees it is not whole."""
        self._current = None
        if exchange.until_close and not exchange.tunnel:  # only a reset tells this end from the answer's own
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()
        self._close()
        exchange.disconnect(gone=True)

    # -- called by the service and the server

    def advance(self) -> None:
        """Run the requests that are ready, one after the other."""
        if self._advancing:
            return
        self._advancing = True
        reader = self._reader
        while not self.write_paused and not self._leaving:
            current = self._current
            if current is not None:
                if current.refusal is None:
                    break
                if current.phase < SENT:  # its body turned out to be refused while it runs
                    current.overrule(current.refusal)
                else:
                    self.abandon(current)
                continue
            if not reader.queue:
                if not self._held:
                    break
                data = bytes(self._held)
                self._held.clear()
                self.resume_reading()
                rest = reader.feed(data)
                if rest:
                    self._hold(rest)
                if self._eof:
                    reader.cut()
                if not reader.queue:
                    break
            exchange = reader.queue[0]
            if exchange.complete:
                self.deadline = inf
            elif not (
                exchange.refusal or exchange.expecting or exchange.streaming or exchange.buffered >= self.service.limits.buffer_bytes
            ):
                break
            reader.queue.popleft()
            self._current = exchange
            exchange.run()
        self._advancing = False
        ended = reader.deaf or (self._eof and not self._held)
        if ended and self._current is None and not reader.queue and not self._leaving:
            self._close()

    def expire(self) -> None:
        """End what has waited too long."""
        now, reader = self.service.now, self._reader
        if self.write_deadline <= now:
            unsent = self.transport.get_write_buffer_size()
            if unsent >= self._unsent:
                self.transport.abort()
                return
            self._unsent = unsent
            self.write_deadline = now + self.service.limits.write_timeout_s
        if self.deadline > now:
            return
        self.deadline = inf
        if self._leaving:
            self.transport.abort()
        elif reader.incoming is not None and reader.incoming.phase != DONE:
            reader.refuse(reader.incoming, reader.incoming.refusal or Refusal(408, "the request body did not come in time"))
            self.advance()
        elif reader.head_bytes:
            reader.refuse(None, Refusal(408, "the request head did not come in time"))
            self.advance()
        else:
            self._close()

    def wind_down(self, *, fresh: bool) -> None:
        """Close if nothing is going on: a connection that has served, or with `fresh` also one that never sent anything.

        Other protocols than HTTP have no end to wait for.
        """
        if self._current is not None and self._current.tunnel and fresh:
            self.abandon(self._current)
        if self._current is None and self._reader.between and not self._held and (fresh or self._served) and not self._leaving:
            self._close()

    def abort(self) -> bool:
        """Cut the connection off; tell whether a request was in flight."""
        busy = self._current is not None or bool(self._reader.queue)
        self.transport.abort()
        return busy

    # -- parts

    def _hold(self, data: bytes) -> None:
        self._held += data
        if len(self._held) > HOLD_BYTES:
            self._pause_reading()

    def _await_body(self) -> None:
        """Set the time for the next piece of a body, or stop reading until the application has taken what there is."""
        incoming, limits = self._reader.incoming, self.service.limits
        if incoming is None:
            self.deadline = self.service.now + limits.body_timeout_s
            return
        full = incoming.buffered >= (limits.stream_bytes if incoming.streaming else limits.buffer_bytes)
        if full:
            self._pause_reading()
        if full or incoming.streaming:
            incoming.wake()
        self.deadline = inf if full or incoming.tunnel else self.service.now + limits.body_timeout_s

    def _pause_reading(self) -> None:
        if self._reading and not self._leaving:
            self._reading = False
            self.transport.pause_reading()

    def _idle(self) -> None:
        service, limits = self.service, self.service.limits
        if self._reader.head_bytes:
            self.deadline = service.now + limits.header_timeout_s
        else:
            self.deadline = service.now + (DRAIN_GRACE_S if service.draining else limits.keep_alive_timeout_s)

    def _release_writers(self) -> None:
        writers, self._writers = self._writers, []
        for waiter in writers:
            if not waiter.done():
                waiter.set_result(None)

    def _close(self) -> None:
        self._leaving = self._reader.deaf = True
        self.deadline = self.service.now + self.service.limits.linger_s
        self.transport.close()

    def _linger(self) -> None:
        """Say that nothing more comes, and read on for a while: closing at once would reset what the client has not read yet."""
        if self._eof:
            self._close()
            return
        self.resume_reading()
        self._leaving = self._reader.deaf = True
        linger_s = self.service.limits.linger_s
        self.deadline = self.service.now + (min(linger_s, DRAIN_GRACE_S) if self.service.draining else linger_s)
        if self.transport.can_write_eof():
            self.transport.write_eof()


def _address(name: object) -> tuple[str, int] | None:
    """Return what ASGI calls client or server, of a socket's name."""
    if isinstance(name, tuple) and len(name) >= 2:
        return str(name[0]), int(name[1])
    return None
