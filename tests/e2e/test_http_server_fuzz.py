"""The HTTP server and bytes as they come: cut anywhere, damaged anyhow. It must answer the same, or refuse, and stay up."""

import asyncio
import logging
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dragoman.server.http import HttpLimits, HttpServer, bind
from tests.e2e.live_http import LOOPS, Eager, Receive, Scope, Send, echo

LIMITS = HttpLimits(max_body_bytes=50_000, max_header_bytes=6000, max_url_bytes=500, buffer_bytes=2000, linger_s=1.0)


class Site:
    """A server in a thread that lives for all examples, and what it has logged."""

    def __init__(self, loop: str, app: Any) -> None:
        """Start serving."""
        self._loop = LOOPS[loop]()
        self._server = HttpServer(app, limits=LIMITS)
        listener = bind("127.0.0.1", 0)
        self.address = listener.getsockname()
        self.logged: list[str] = []
        self._loop.run_until_complete(self._server.start([listener]))
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        asyncio.run_coroutine_threadsafe(self._server.drain(5), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
        self._loop.close()

    def exchange(self, pieces: list[bytes], *, end: bool) -> bytes:
        """Send pieces one after the other, say that nothing more comes if `end`, and return all that is answered."""
        with socket.create_connection(self.address, timeout=30) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            answered = b""
            try:
                for piece in pieces:
                    client.sendall(piece)
                if end:
                    client.shutdown(socket.SHUT_WR)
                while data := client.recv(65536):
                    answered += data
            except TimeoutError:
                raise
            except OSError:  # it had to close before all was sent; an example that expects answers compares them
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return answered


@pytest.fixture(scope="module", params=["asyncio-tasks", "uvloop-eager"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """Serve echo, log what the server logs."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await echo(scope, receive, send)

    loop, _, mode = request.param.partition("-")
    site = Site(loop, Eager(app) if mode == "eager" else app)
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: site.logged.append(record.getMessage())  # type: ignore[method-assign]  # a handler is its emit
    logger = logging.getLogger("dragoman.http")
    logger.addHandler(handler)
    yield site
    logger.removeHandler(handler)
    site.close()
    assert site.logged == []


def undated(answers: bytes) -> bytes:
    """Drop the lines that change by the second."""
    return b"\r\n".join(line for line in answers.split(b"\r\n") if not line.startswith(b"date: "))


REQUESTS = [
    b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\r\nGET /b?c=%20 HTTP/1.1\r\nHOST:x\r\nA:\r\nB: 1\r\nB: 2\r\n\r\n",
    b"POST /c HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n12345",
    b"POST /d HTTP/1.1\r\nHost: x\r\nContent-Length: 7000\r\n\r\n" + b"0123456789" * 700,
    b"POST /e HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nT: t\r\n\r\n",
    b"POST /f HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nBB8\r\n" + b"abc" * 1000 + b"\r\n0\r\n\r\n",
    b"HEAD /g HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /h HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"POST /i HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\n12345",
    b"POST /j HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"POST /k HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n" + bytes(60_000),
]
LAST = [
    b"GET /z HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"GET /z HTTP/1.0\r\n\r\n",
    b"GET /z HTTP/1.1\r\n\r\n",
    b"POST /z HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"noise\r\n\r\n",
    b"GET /z HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"GET /" + b"z" * 501 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /z HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 6000 + b"\r\n\r\n",
    b"POST /z HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nFDE8\r\n" + bytes(65_000) + b"\r\n0\r\n\r\n",
]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_same_bytes_get_the_same_answers_however_they_are_cut(site: Site, data: st.DataObject) -> None:
    """A stream of good requests and what may end it is answered the same in one piece and in any pieces."""
    stream = b"".join(data.draw(st.lists(st.sampled_from(REQUESTS), max_size=6))) + data.draw(st.sampled_from(LAST))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    whole, cut = site.exchange([stream], end=False), site.exchange(pieces, end=False)
    assert undated(cut) == undated(whole)
    assert b"HTTP/1.1 500 " not in whole


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests=st.lists(st.sampled_from(REQUESTS[:10]), min_size=1, max_size=4))
def test_every_request_of_a_stream_is_answered(site: Site, requests: list[bytes]) -> None:
    """As many answers come as requests were sent, also byte by byte."""
    small = b"".join(request for request in requests if len(request) < 2000)
    answers = site.exchange([small[at : at + 1] for at in range(len(small))], end=True)
    assert answers.count(b"HTTP/1.1 200 OK\r\n") == sum(len(request) < 2000 for request in requests)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(noise=st.binary(max_size=300))
def test_random_bytes(site: Site, noise: bytes) -> None:
    """Noise gets a refusal or nothing; it is never an error of ours."""
    answer = site.exchange([noise], end=True)
    assert answer == b"" or answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 505 "))


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_requests(site: Site, data: st.DataObject) -> None:
    """A good request with some bytes changed, dropped or doubled is answered or refused, never with a 500, and the server serves on."""
    stream = bytearray(b"".join(data.draw(st.lists(st.sampled_from(REQUESTS[:10]), min_size=1, max_size=3))))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(stream) - 1))
        new = data.draw(st.sampled_from([b"", b"\r", b"\n", b"\r\n", b"\0", b" ", b":", b"0", b"f", b";", b",", b"\xff", b"chunked"]))
        stream[at : at + data.draw(st.integers(0, 2))] = new
        stream = stream or bytearray(b"x")
    answers = site.exchange([bytes(stream)], end=True)
    assert b"HTTP/1.1 500 " not in answers
    assert site.exchange([REQUESTS[0]], end=True).endswith(b"\r\n\r\nGET /a ")
