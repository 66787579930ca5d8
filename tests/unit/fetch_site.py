"""A real web server for tests of `fetch`: it answers on loopback with raw bytes and remembers what it was asked."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest

from dragoman.core.errors import ServingError
from dragoman.serving.fetch import FetchPolicy, Resolver, fetch

LOOPBACK = FetchPolicy.parse(["127.0.0.0/8"], max_bytes=1000, timeout_s=20)
Answer = Callable[[str], bytes]


@dataclass
class Site:
    """A server that answers each request with raw bytes, chosen by path, and remembers the heads it read."""

    port: int = 0
    heads: list[str] = field(default_factory=list)

    def url(self, path: str = "/", host: str = "127.0.0.1", scheme: str = "http") -> str:
        """The URL of a path of this site, under any spelling of its host."""
        return f"{scheme}://{host}:{self.port}{path}"


@contextlib.asynccontextmanager
async def site(answer: Answer, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> AsyncIterator[Site]:
    """Serves until the block ends, one request a connection."""
    found = Site()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                found.heads.append(head)
                writer.write(answer(head.split()[1]))
                await writer.drain()
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

    server = await asyncio.start_server(handle, host, 0, ssl=tls)
    found.port = server.sockets[0].getsockname()[1]
    async with server:
        yield found


def ok(body: bytes, *headers: str, length: int | None = None) -> bytes:
    """A 200 answer with a Content-Length."""
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def redirect(location: str, status: int = 302) -> bytes:
    """A redirect; its body must never be taken for the answer."""
    return f"HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 5\r\n\r\nmoved".encode()


def names(**hosts: list[str]) -> Resolver:
    """A resolver that knows these hosts only; underscores in keywords stand for dots."""

    async def resolver(host: str, port: int) -> list[str]:
        if host.replace(".", "_") not in hosts:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return hosts[host.replace(".", "_")]

    return resolver


def run(scenario: Coroutine[Any, Any, None]) -> None:
    """Runs one scenario; a hang would be cut off by the time limit of every test."""
    asyncio.run(scenario)


async def refused(url: str, policy: FetchPolicy = LOOPBACK, **options: Any) -> ServingError:
    """The error of a fetch that must fail."""
    with pytest.raises(ServingError) as caught:
        await fetch(url, policy, **options)
    return caught.value
