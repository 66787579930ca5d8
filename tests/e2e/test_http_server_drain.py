"""Stopping the HTTP server: no request that reached it is lost, and nothing is left behind."""

import asyncio
import socket
from typing import Any

import pytest

from dragoman.server.http import HttpLimits, HttpServer, bind
from tests.e2e.live_http import Client, Eager, Receive, Scope, Send, echo, reply, run_on, serving

pytestmark = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
GET = b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n"


class Held:
    """An application whose answers wait until they are released."""

    def __init__(self) -> None:
        """Begin holding."""
        self.started = 0
        self.release = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wait, then echo."""
        self.started += 1
        await self.release.wait()
        await echo(scope, receive, send)

    async def has_started(self, count: int) -> None:
        """Wait until so many requests are being answered."""
        while self.started < count:
            await asyncio.sleep(0)


def test_closes_what_is_idle(loop: str) -> None:
    """Connections between requests are closed, nothing counts as cut off, and nobody can connect any more."""

    async def test() -> None:
        async with serving(echo) as live:
            clients = [await live.client() for _ in range(5)]
            for client in clients:
                await client.request("GET", "/")
            assert await live.server.drain(10) == 0
            assert live.server.connections == 0
            for client in clients:
                assert await client.closed() == b""
            with pytest.raises(ConnectionRefusedError):
                await live.client()

    run_on(loop, test())


def test_requests_in_flight_finish(loop: str) -> None:
    """Requests that are being answered when the server stops are answered, and told that the connection closes."""

    async def test() -> None:
        app = Held()
        async with serving(app) as live:
            clients = [await live.raw(GET % number) for number in range(10)]
            await app.has_started(10)
            draining = asyncio.ensure_future(live.server.drain(10))
            for _ in range(10):
                await asyncio.sleep(0)
            assert live.server.connections == 10
            app.release.set()
            for number, client in enumerate(clients):
                answer = await client.answer()
                assert (answer.body, answer.headers["connection"]) == (b"GET /%d " % number, "close")
                assert await client.closed() == b""
                await client.close()
            assert await draining == 0

    run_on(loop, test())


def test_pipelined_requests_finish(loop: str) -> None:
    """All requests that had been read are answered; only the last answer says that the connection closes."""

    async def test() -> None:
        app = Held()
        async with serving(app) as live:
            client = await live.raw(b"".join(GET % number for number in range(300)))
            await app.has_started(1)
            draining = asyncio.ensure_future(live.server.drain(10))
            await asyncio.sleep(0)
            app.release.set()
            answers = [await client.answer() for _ in range(300)]
            assert [answer.body for answer in answers] == [b"GET /%d " % number for number in range(300)]
            assert [number for number, answer in enumerate(answers) if "connection" in answer.headers] == [299]
            await client.close()
            assert await draining == 0

    run_on(loop, test())


def test_requests_that_nobody_has_read_are_served(loop: str) -> None:
    """Connections that the kernel has accepted, with and without a request in their buffers, are served all the same."""

    async def test() -> None:
        listener = bind("127.0.0.1", 0)
        server = HttpServer(echo)
        await server.start([listener])
        port = listener.getsockname()[1]
        raw = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]  # blocking: the loop has seen none of them
        for number, each in enumerate(raw[:10]):
            each.sendall(GET % number)
        draining = asyncio.ensure_future(server.drain(10))
        clients = [Client(*await asyncio.open_connection(sock=each)) for each in raw]
        for number, client in enumerate(clients[10:], 10):
            client.write(GET % number)
        for number, client in enumerate(clients):
            answer = await client.answer()
            assert (answer.body, answer.headers["connection"]) == (b"GET /%d " % number, "close")
            await client.close()
        assert await draining == 0

    run_on(loop, test())


def test_bodies_that_are_on_their_way_are_read(loop: str) -> None:
    """A request of which the server has read a part is read to its end."""

    async def test() -> None:
        async with serving(echo) as live:
            heads = [b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345", b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Le"]
            rests = [b"67890", b"ngth: 10\r\n\r\n1234567890"]
            clients = [await live.raw(head) for head in heads]
            await live.passes()
            draining = asyncio.ensure_future(live.server.drain(10))
            for _ in range(10):
                await asyncio.sleep(0)
            for client, rest in zip(clients, rests, strict=True):
                await client.send(rest)
                answer = await client.answer()
                assert (answer.body, answer.headers["connection"]) == (b"POST /a 1234567890", "close")
                await client.close()
            assert await draining == 0

    run_on(loop, test())


def test_an_idle_connection_may_still_ask(loop: str) -> None:
    """A request in the buffer of a connection that looks idle is served before the connection closes."""

    async def test() -> None:
        async with serving(echo) as live:
            client = await live.client()
            await client.request("GET", "/")
            client.write(GET % 7)
            draining = asyncio.ensure_future(live.server.drain(10))
            answer = await client.answer()
            assert (answer.body, answer.headers["connection"]) == (b"GET /7 ", "close")
            await client.close()
            assert await draining == 0

    run_on(loop, test())


def test_what_takes_too_long_is_cut_off(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    """After the time-out the rest is closed, counted and cancelled, silently."""
    ends: list[str] = []

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        try:
            if scope["path"] == "/stream":
                await send({"type": "http.response.start", "status": 200})
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            ends.append(scope["path"])
            raise

    async def test() -> None:
        for wrapped in (app, Eager(app)):
            async with serving(wrapped) as live:
                clients = [await live.raw(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()) for path in ("/wait", "/stream")]
                assert (await clients[1].head()).status == 200
                assert await live.server.drain(0.05) == 2
                assert live.server.connections == 0
            assert sorted(ends) == ["/stream", "/wait"]
            ends.clear()

    run_on(loop, test())
    assert not [record for record in caplog.records if record.name == "dragoman.http"]


def test_work_behind_an_answer_is_awaited(loop: str) -> None:
    """What an application does after its answer is part of draining, up to the time-out, and cancelled then."""
    ends = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await echo(scope, receive, send)
        try:
            for _ in range(100):
                await asyncio.sleep(0)
            if scope["path"] == "/ever":
                await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise
        ends.append("finished")

    async def test() -> None:
        for path, end in (("/", "finished"), ("/ever", "cancelled")):
            async with serving(app) as live:
                await (await live.client()).request("GET", path)
                assert await live.server.drain(0.5) == 0
                assert ends.pop() == end

    run_on(loop, test())


def test_new_connections_of_other_listeners_close_too(loop: str) -> None:
    """A server with several sockets drains all of them."""

    async def test() -> None:
        listeners = [bind("127.0.0.1", 0) for _ in range(3)]
        ports = [each.getsockname()[1] for each in listeners]
        server = HttpServer(echo)
        await server.start(listeners[:2])
        await server.start(listeners[2:])
        clients = [Client(*await asyncio.open_connection("127.0.0.1", port)) for port in ports]
        for client, port in zip(clients, ports, strict=True):
            assert (await client.request("GET", f"/{port}")).body == f"GET /{port} ".encode()
        assert await server.drain(5) == 0
        for client, port in zip(clients, ports, strict=True):
            assert await client.closed() == b""
            await client.close()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port)

    run_on(loop, test())


def test_a_server_that_never_started_drains(loop: str) -> None:
    """Draining twice, or without a start, does nothing."""

    async def test() -> None:
        assert await HttpServer(echo).drain(1) == 0
        async with serving(echo) as live:
            assert await live.server.drain(1) == 0
            assert await live.server.drain(1) == 0
            assert live.server.connections == 0

    run_on(loop, test())


def test_a_client_that_does_not_close_does_not_hold_the_drain(loop: str) -> None:
    """A client that keeps its side open after its last answer is closed after the linger time, and was not cut off."""

    async def test() -> None:
        app = Held()
        async with serving(app, limits=HttpLimits(linger_s=0.05)) as live:
            client = await live.raw(GET % 1)
            await app.has_started(1)
            draining = asyncio.ensure_future(live.server.drain(20))
            await asyncio.sleep(0)
            app.release.set()
            assert (await client.answer()).body == b"GET /1 "
            assert await draining == 0

    run_on(loop, test())


@pytest.mark.parametrize("app", [Eager(echo), echo])
def test_no_request_is_lost_under_load(loop: str, app: Any) -> None:
    """With 32 busy clients, every request that was sent on a connection that had not been closed is answered."""
    answered = 0

    async def worker(live: Any) -> None:
        nonlocal answered
        client = None
        while True:
            if client is None:
                try:
                    client = await live.client()
                except ConnectionRefusedError:
                    return
            try:
                answer = await client.request("POST", f"/{answered}", b"abc")
            except (asyncio.IncompleteReadError, ConnectionError):
                raise AssertionError("a request was lost") from None
            assert answer.body.endswith(b" abc")
            answered += 1
            if answer.headers.get("connection") == "close":
                await client.close()
                client = None

    async def test() -> None:
        async with serving(app) as live:
            workers = [asyncio.ensure_future(worker(live)) for _ in range(32)]
            while answered < 500:
                await asyncio.sleep(0)
            assert await live.server.drain(10) == 0
            await asyncio.gather(*workers)

    run_on(loop, test())


def test_a_refusal_is_not_cut_short(loop: str) -> None:
    """An answer that fills the client's buffers is written to its end while the server drains."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await reply(send, bytes(30_000_000))

    async def test() -> None:
        async with serving(app) as live:
            client = await live.raw(GET % 1)
            await client.head()
            draining = asyncio.ensure_future(live.server.drain(20))
            assert len(await client.reader.readexactly(30_000_000)) == 30_000_000
            assert await client.closed() == b""
            await client.close()
            assert await draining == 0

    run_on(loop, test())
