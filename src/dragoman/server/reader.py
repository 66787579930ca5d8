"""From bytes to requests: feeds httptools, applies the limits on heads and bodies, and refuses what is malformed.

`connection.py` owns one per connection, gives it bytes while no complete request waits, and runs what it puts into `queue`.
"""

import sys
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httptools

from dragoman.server.exchange import Exchange
from dragoman.server.repeat import Repeat
from dragoman.server.service import Service, log
from dragoman.server.wire import REQUEST_LINE, Refusal, framing, path_of, tunnelled, without_upgrade

if TYPE_CHECKING:
    from dragoman.server.connection import Connection

SLICE_BYTES = 4096  # a read that may hold many heads is parsed in slices, which bounds how many requests are made of it at once
CHUNKED_SLICE_BYTES = 16 * 1024  # the same within a chunked body, which is mostly content
UNUSUAL = frozenset((b"transfer-encoding", b"upgrade", b"expect"))
ASGI = {"version": "3.0", "spec_version": "2.4"}


class Reader:
    """Makes an Exchange of every request head. Also the callbacks object of the parser."""

    __slots__ = (
        "_clean",
        "_conn",
        "_detour",
        "_headers",
        "_overhead",
        "_parser",
        "_plain",
        "_repeat",
        "_service",
        "_url",
        "deaf",
        "head_bytes",
        "incoming",
        "queue",
    )

    def __init__(self, conn: "Connection") -> None:
        """Begin before the first request."""
        self._conn = conn
        self._service: Service = conn.service
        self._parser: Any = httptools.HttpRequestParser(self)
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._overhead = 0  # bytes of a chunked body since its last content
        self._detour = b""
        self._repeat = Repeat()
        self._clean = True  # the parser stands between two requests
        self._plain = False  # the last head said nothing about framing but its length, and was accepted
        self.head_bytes = 0  # of a head that has begun and is not complete; 0 as long as it came in one piece
        self.incoming: Exchange | None = None  # its body is being read
        self.queue: deque[Exchange] = deque()  # not running yet; the last one may be the incoming one
        self.deaf = False  # what comes can not be a request and is dropped

    @property
    def between(self) -> bool:
        """Tell whether no request has begun."""
        return not (self.queue or self.incoming or self.head_bytes or self._url)

    def close(self) -> None:
        """Break the cycle with the parser."""
        self.deaf = True
        self.incoming = self._parser = None
        for exchange in self.queue:
            exchange.scope = None
        self.queue.clear()

    def cut(self) -> None:
        """Drop a request that will never be complete and has not run: the client has closed its side."""
        incoming, self.incoming = self.incoming, None
        if incoming is not None and self.queue and self.queue[-1] is incoming:
            self.queue.pop().scope = None

    def refuse(self, exchange: Exchange | None, refusal: Refusal) -> None:
        """Have a request, or what cannot be one, answered in the server's own words. Nothing is read after it."""
        self.deaf = True
        self.incoming = None
        if exchange is None:
            exchange = Exchange(self._conn, "GET", "1.1", False, 0, False)
            self.queue.append(exchange)
            refusal = replace(refusal, path=refusal.path or path_of(self._url))
        exchange.keep_alive = False
        exchange.discard()
        exchange.refusal = refusal

    def feed(self, data: bytes) -> bytes:
        """Parse up to the end of the requests that complete first; return the rest, which has to wait for their answers."""
        at, end = 0, len(data)
        if self.incoming is None and not self.deaf:
            if self._clean:
                at = self._repeated(data)
            if at == 0 and end <= SLICE_BYTES:
                self._head(data)
                return b""
            if at == end:
                return b""
        view = memoryview(data)
        while at < end and not self.deaf:
            incoming = self.incoming
            if incoming is None:
                if self.queue:
                    return data[at:]
                step = min(SLICE_BYTES, end - at)
                self._head(view[at : at + step])
            elif incoming.left > 0:
                # The parser need not see a body of known length: it is kept as it was read. A new parser takes the next head.
                step = min(incoming.left, end - at)
                incoming.feed(data if step == end else data[at : at + step])
                if incoming.left == 0:
                    if not self._clean:
                        self._parser = httptools.HttpRequestParser(self)
                        self._clean = True
                    self.on_message_complete()
            else:
                step = min(CHUNKED_SLICE_BYTES, end - at)
                received = incoming.received
                self._parse(view[at : at + step])
                if self._url:
                    self._partial_head(step, alone=False)
                self._overhead = self._overhead + step if incoming is self.incoming and incoming.received == received else 0
                if self._overhead > self._service.limits.max_header_bytes:
                    self.refuse(incoming, Refusal(400, "malformed request: chunk extensions or trailers are too long"))
            at += step
        return b""

    def _head(self, data: "bytes | memoryview") -> None:
        """Parse bytes that begin with a head, or go on with one."""
        fresh, self._clean = self._clean, False
        self._parse(data)
        queue = self.queue
        if self._url or not queue:
            self._partial_head(len(data), alone=not queue)
        elif fresh and self._plain and len(queue) == 1 and self._repeat.learning:
            exchange = queue[0]
            size = bytes(data).find(b"\r\n\r\n") + 4
            if exchange.scope is not None and size + exchange.received == len(data):  # nothing but this head and of its body
                self._repeat.learn(bytes(data[:size]), exchange.scope)
                self._clean = exchange.complete

    def _repeated(self, data: bytes) -> int:
        """Make a request of a head that is the last one again, and of what there is of its body; return how much of the data that was."""
        found = self._repeat.match(data)
        if found is None or found[1] > self._service.limits.max_body_bytes:
            return 0
        at, left, scope = found
        exchange = Exchange(self._conn, scope["method"], "1.1", True, left, False)
        exchange.scope = scope
        scope["extensions"] = {"dragoman.disconnect": exchange, "dragoman.chunks": exchange.chunks}
        self.queue.append(exchange)
        if left:
            exchange.streaming = self._service.streams is not None and self._service.streams(scope["path"])
            body = data[at : at + left]
            if body:
                exchange.feed(body)
            if exchange.left:
                self.incoming = exchange
                return at + len(body)
        exchange.complete = True
        return at + left

    def _parse(self, data: "bytes | memoryview") -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            if self.deaf:
                return
            if self.queue and self.queue[-1].tunnel:
                self.incoming = self.queue[-1]
                self.incoming.feed(bytes(data[exc.args[0] :]))
            else:  # an upgrade that is not offered may be ignored; the parser learns that from a head without it
                self._parser = httptools.HttpRequestParser(self)
                self._parse(self._detour)
                self._parse(data[exc.args[0] :])
        except httptools.HttpParserCallbackError as exc:
            log.error("a callback of the parser failed", exc_info=exc)
            self.refuse(None, Refusal(500, "internal error"))
        except httptools.HttpParserError as exc:
            if not self.deaf:
                preface = self._url == b"*" and not self._headers and "PRI" in str(exc)
                refusal = Refusal(505, "HTTP/2 is not supported") if preface else Refusal(400, f"malformed request: {exc}")
                # The parser gives no target that is wrong, or behind a method that it does not know.
                line = None if self._url else REQUEST_LINE.match(data)
                self.refuse(self.incoming, refusal if line is None else replace(refusal, path=path_of(line[1])))

    def _partial_head(self, size: int, *, alone: bool) -> None:
        """Count and time a head that is not complete after `size` more bytes; not all of them are its own unless it was `alone` in them."""
        if self.deaf:
            return
        limits = self._service.limits
        if not self.head_bytes:
            self._conn.deadline = self._service.now + limits.header_timeout_s
            if not alone:
                size = _size(self._url, self._headers)
        self.head_bytes += size
        if len(self._url) > limits.max_url_bytes:
            self.refuse(None, Refusal(414, f"the request target is longer than {limits.max_url_bytes} bytes"))
        elif self.head_bytes > limits.max_header_bytes:
            self.refuse(None, self._too_long())

    def _too_long(self) -> Refusal:
        return Refusal(431, f"the request head is longer than {self._service.limits.max_header_bytes} bytes")

    # -- called by the parser

    def on_url(self, url: bytes) -> None:
        """Collect the request target, which may come in parts."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header line."""
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Make a request of the head and queue it."""
        if self.deaf:
            return
        conn, service, parser = self._conn, self._service, self._parser
        limits = service.limits
        url, self._url = self._url, b""
        headers, self._headers = self._headers, []
        in_parts, self.head_bytes = self.head_bytes > 0, 0
        method: str = parser.get_method().decode()
        keep_alive: bool = parser.should_keep_alive()
        refusal = None
        target = service.targets.get(url)
        if target is None:
            try:
                target = service.target(url)
            except ValueError as exc:
                target = ("", url, b"")
                refusal = Refusal(400, f"malformed request: {exc}")
        named = dict(headers)
        declared = named.get(b"content-length")
        left = 0 if declared is None else int(declared)
        # only HTTP/1.1 keeps a connection alive without saying so; asking the parser makes a new string
        version = "1.1" if keep_alive and b"connection" not in named else parser.get_http_version()
        expecting = tunnel = False
        self._plain = plain = (
            keep_alive
            and version == "1.1"
            and method != "CONNECT"
            and UNUSUAL.isdisjoint(named)
            and b"host" in named
            and len(named) == len(headers)
            and left <= limits.max_body_bytes
        )
        streaming = (left > 0 or not plain) and service.streams is not None and service.streams(target[0])
        if not plain:
            refusal = framing(version, method, headers, named, tunnels=streaming) or refusal
            if refusal is None and parser.should_upgrade():
                tunnel = streaming and tunnelled(named)
                if not tunnel:
                    self._detour = without_upgrade(method, url, version, headers)
                    return
                left, keep_alive = sys.maxsize, False
            if b"transfer-encoding" in named:
                left = -1
            expecting = version == "1.1" and named.get(b"expect", b"").lower() == b"100-continue"
        exchange = Exchange(conn, method, version, keep_alive, left, expecting)
        exchange.streaming, exchange.tunnel = streaming, tunnel
        if len(url) > limits.max_url_bytes:
            refusal = Refusal(414, f"the request target is longer than {limits.max_url_bytes} bytes")
        if len(headers) > limits.max_headers:
            refusal = Refusal(431, f"the request has more than {limits.max_headers} headers")
        elif (in_parts or limits.max_header_bytes < CHUNKED_SLICE_BYTES) and _size(url, headers) > limits.max_header_bytes:
            refusal = refusal or self._too_long()
        exchange.scope = {
            "type": "http",
            "asgi": ASGI,
            "http_version": version,
            "method": method,
            "scheme": conn.scheme,
            "path": target[0],
            "raw_path": target[1],
            "query_string": target[2],
            "root_path": "",
            "headers": headers,
            "client": conn.client,
            "server": conn.server,
            "extensions": {"dragoman.disconnect": exchange, "dragoman.chunks": exchange.chunks},
        }
        if tunnel:
            exchange.scope["extensions"]["dragoman.upgrade"] = named[b"upgrade"]
        self.queue.append(exchange)
        self.incoming = None if tunnel and refusal is None else exchange  # the parser takes such a head for a whole request
        if refusal is not None:
            self._plain = False
            self.refuse(exchange, refusal)
        elif left > limits.max_body_bytes and not streaming:  # its rest may be short enough to be dropped, and the connection kept
            exchange.discard()
            exchange.refusal = Refusal(413, f"the request body has {left} bytes, more than the {limits.max_body_bytes} allowed here")

    def on_body(self, body: bytes) -> None:
        """Collect a piece of the body."""
        incoming = self.incoming
        if incoming is not None:
            incoming.feed(body)
            if incoming.left < 0 and not incoming.streaming and incoming.received > self._service.limits.max_body_bytes:
                limit = self._service.limits.max_body_bytes
                self.refuse(incoming, Refusal(413, f"the request body has more than the {limit} bytes allowed here"))

    def on_message_complete(self) -> None:
        """Mark the request as complete."""
        incoming = self.incoming
        if incoming is None:  # the head of a detour, or a request that was refused
            return
        self.incoming = None
        if incoming.left < 0:
            self._headers = []  # trailers, which nobody asked for
        incoming.complete = True
        if not incoming.keep_alive:
            self.deaf = True
        if not self.queue or self.queue[-1] is not incoming:
            self._conn.completed(incoming)


def _size(url: bytes, headers: list[tuple[bytes, bytes]]) -> int:
    """Return about how many bytes a head had."""
    return len(url) + sum([len(name) + len(value) + 4 for name, value in headers])
