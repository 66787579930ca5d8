"""A running HttpServer and a raw client for the tests of the HTTP server: bytes go out as the test wrote them."""

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self

import uvloop

from dragoman.server.http import Application, HttpServer, bind

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def run_on(loop: str, test: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine on a loop of that kind; no test may take longer than 30 seconds."""
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(asyncio.wait_for(test, 30))


class Eager:
    """An application that agrees to be stepped without a task."""

    def __init__(self, app: Application) -> None:
        """Wrap an application that does not say so itself."""
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        """Call it."""
        return self._app(scope, receive, send)

    def eager(self, _scope: Scope) -> bool:
        """Agree."""
        return True


async def read(receive: Receive) -> bytes:
    """Read a request body to its end."""
    pieces = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ConnectionError("hung up")
        pieces.append(message["body"])
        if not message["more_body"]:
            return b"".join(pieces)


async def reply(send: Send, body: bytes = b"", status: int = 200, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    """Answer in one piece."""
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer method, path and body."""
    body = await read(receive)
    await reply(send, f"{scope['method']} {scope['path']} ".encode() + body, headers=((b"content-type", b"text/plain"),))


@dataclass
class Answer:
    """An answer as it was on the wire; `rest` is what came on a connection after the last one."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> str:
        """The text of an error in the server's own words."""
        assert self.headers["content-type"] == "application/json"
        return str(json.loads(self.body)["error"])


class Client:
    """One connection, read with nothing but the rules of RFC 9112."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take an open connection."""
        self.reader = reader
        self.writer = writer

    def write(self, data: bytes) -> None:
        """Put bytes on the wire."""
        self.writer.write(data)

    async def send(self, data: bytes) -> None:
        """Put bytes on the wire and wait until the kernel has taken most of them."""
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> Answer:
        """Read a head."""
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        protocol, status, _ = lines[0].split(" ", 2)
        assert protocol == "HTTP/1.1"
        headers: dict[str, str] = {}
        for line in lines[1:-2]:
            name, value = line.split(": ", 1)
            assert name not in headers
            headers[name] = value
        return Answer(int(status), headers, b"")

    async def answer(self, method: str = "GET") -> Answer:
        """Read an answer to its end."""
        answer = await self.head()
        if method == "HEAD" or answer.status in (204, 304) or answer.status < 200:
            return answer
        if answer.headers.get("transfer-encoding") == "chunked":
            while size := int((await self.reader.readuntil(b"\r\n"))[:-2], 16):
                answer.body += await self.reader.readexactly(size)
                assert await self.reader.readexactly(2) == b"\r\n"
            assert await self.reader.readexactly(2) == b"\r\n"
        elif "content-length" in answer.headers:
            answer.body = await self.reader.readexactly(int(answer.headers["content-length"]))
        else:
            answer.body = await self.reader.read()
        return answer

    async def request(self, method: str, target: str, body: bytes | None = None, *headers: str) -> Answer:
        """Send a request and read its answer."""
        lines = [f"{method} {target} HTTP/1.1", "Host: test", *headers]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        await self.send("\r\n".join([*lines, "", ""]).encode() + (body or b""))
        return await self.answer(method)

    async def closed(self) -> bytes:
        """Wait for the server to close; return what came before that."""
        return await self.reader.read()

    async def close(self) -> None:
        """Hang up."""
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()

    def reset(self) -> None:
        """Hang up without a goodbye."""
        self.writer.transport.abort()


class Live:
    """A server on a free port of the loop that runs the test."""

    def __init__(self, server: HttpServer, port: int, trust: ssl.SSLContext | None) -> None:
        """Take a started server."""
        self.server = server
        self.port = port
        self._trust = trust
        self._clients: list[Client] = []

    async def client(self) -> Client:
        """Open a connection."""
        name = "localhost" if self._trust else None
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port, ssl=self._trust, server_hostname=name, limit=2**20))
        self._clients.append(client)
        return client

    async def raw(self, data: bytes) -> Client:
        """Open a connection and send bytes."""
        client = await self.client()
        await client.send(data)
        return client

    async def passes(self, count: int = 20) -> None:
        """Let the server do `count` rounds of work for somebody else, so that what it can do for others is done."""
        client = await self.client()
        for _ in range(count):
            await client.request("GET", "/passes")
        await client.close()

    async def close(self) -> None:
        """Hang up everywhere and stop."""
        for client in self._clients:
            await client.close()
        await self.server.drain(0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


@asynccontextmanager
async def serving(
    app: Application, *, serve_tls: ssl.SSLContext | None = None, trust: ssl.SSLContext | None = None, **options: Any
) -> AsyncIterator[Live]:
    """Serve an application for the time of a test."""
    listener: socket.socket = bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    server = HttpServer(app, **options)
    await server.start([listener], serve_tls)
    async with Live(server, port, trust) as live:
        yield live
