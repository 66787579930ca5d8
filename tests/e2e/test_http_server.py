"""The HTTP server over real sockets: requests and answers as they should be. Bad input and time-outs have files of their own."""

import asyncio
import gc
import json
import logging
from typing import Any

import pytest

from dragoman.server.http import Application, ClientGone, HttpLimits
from tests.e2e.live_http import Client, Eager, Receive, Scope, Send, echo, read, reply, run_on, serving

pytestmark = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
BIG = bytes(range(256)) * 12_000  # 3 MB


@pytest.fixture(params=["tasks", "eager"])
def wrap(request: pytest.FixtureRequest) -> type[Eager] | Any:
    """Run an application by a task each, or stepped without one."""
    return Eager if request.param == "eager" else lambda app: app


def test_answers_with_length_and_date(loop: str, wrap: Any) -> None:
    """A plain answer carries status, date, the application's headers and a length that the application did not give."""

    async def test() -> None:
        async with serving(wrap(echo)) as live:
            answer = await (await live.client()).request("POST", "/a", b"x")
            assert (answer.status, answer.body) == (200, b"POST /a x")
            assert list(answer.headers) == ["date", "content-type", "content-length"]
            assert answer.headers["date"].endswith(" GMT")
            assert answer.headers["content-length"] == "9"

    run_on(loop, test())


@pytest.mark.parametrize("size", [0, 1, 4000, 4096, 5000, 70_000, 1_000_000, len(BIG)])
def test_echoes_bodies_of_any_size(loop: str, wrap: Any, size: int) -> None:
    """Bodies that come in one read, in several, and in more than is buffered before the application starts arrive whole."""

    async def test() -> None:
        async with serving(wrap(echo)) as live:
            client = await live.client()
            for _ in range(2):
                answer = await client.request("POST", "/", BIG[:size])
                assert answer.body == b"POST / " + BIG[:size]

    run_on(loop, test())


@pytest.mark.parametrize("piece", [1, 100, 70_000])
def test_echoes_chunked_bodies(loop: str, wrap: Any, piece: int) -> None:
    """A chunked request is put together, whatever the chunks; its trailers are dropped."""
    body = BIG[: piece * 40]

    async def test() -> None:
        async with serving(wrap(echo)) as live:
            client = await live.client()
            await client.send(b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n")
            for at in range(0, len(body), piece):
                await client.send(b"%X;ext=1\r\n%b\r\n" % (piece, body[at : at + piece]))
            await client.send(b"0\r\nX-Trailer: 1\r\n\r\n")
            assert (await client.answer()).body == b"POST /c " + body
            assert (await client.request("GET", "/next")).body == b"GET /next "

    run_on(loop, test())


def test_keeps_the_connection(loop: str, wrap: Any) -> None:
    """An HTTP/1.1 connection serves one request after the other."""

    async def test() -> None:
        async with serving(wrap(echo)) as live:
            client = await live.client()
            for number in range(100):
                assert (await client.request("POST", f"/{number}", b"%d" % number)).body == b"POST /%d %d" % (number, number)
            assert live.server.connections == 1

    run_on(loop, test())


@pytest.mark.parametrize(
    ("request_head", "connection"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "close"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Close\r\n\r\n", "close"),
        (b"GET / HTTP/1.0\r\n\r\n", "close"),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "keep-alive"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n", None),
    ],
)
def test_closes_when_asked(loop: str, wrap: Any, request_head: bytes, connection: str | None) -> None:
    """The client's wish about the connection is honoured and said."""

    async def test() -> None:
        async with serving(wrap(echo)) as live:
            client = await live.raw(request_head)
            answer = await client.answer()
            assert answer.headers.get("connection") == connection
            if connection == "close":
                assert await client.closed() == b""
            else:
                assert (await client.request("GET", "/again")).body == b"GET /again "

    run_on(loop, test())


def test_application_closes_the_connection(loop: str, wrap: Any) -> None:
    """`Connection: close` from the application closes; its other framing headers are ours to decide."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        headers = ((b"Connection", b"close"), (b"Transfer-Encoding", b"chunked"), (b"Date", b"yesterday"), (b"X-A", b"1"))
        await reply(send, b"bye", headers=headers)

    async def test() -> None:
        async with serving(wrap(app)) as live:
            client = await live.client()
            answer = await client.request("GET", "/")
            assert (answer.body, answer.headers["connection"], answer.headers["x-a"]) == (b"bye", "close", "1")
            assert answer.headers["date"] != "yesterday"
            assert "transfer-encoding" not in answer.headers
            assert await client.closed() == b""

    run_on(loop, test())


@pytest.mark.parametrize("count", [2, 40, 5000])
def test_answers_pipelined_requests_in_order(loop: str, wrap: Any, count: int) -> None:
    """Requests sent without waiting are answered in their order, each with its own answer."""

    async def slowly(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(int(scope["query_string"]) % 3):
            await asyncio.sleep(0)
        await echo(scope, receive, send)

    async def test() -> None:
        async with serving(wrap(slowly)) as live:
            client = await live.client()
            client.write(b"".join(b"POST /%d?%d HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n-" % (n, n) for n in range(count)))
            for number in range(count):
                assert (await client.answer()).body == b"POST /%d -" % number
            assert (await client.request("GET", "/last?0")).body == b"GET /last "

    run_on(loop, test())


def test_pipelined_requests_with_big_bodies(loop: str, wrap: Any) -> None:
    """Large and chunked bodies behind one another do not mix, also when the application of the first has not read its own."""

    async def test() -> None:
        async with serving(wrap(echo), limits=HttpLimits(buffer_bytes=10_000)) as live:
            client = await live.client()
            for _ in range(3):
                client.write(b"POST /long HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n" + BIG[:300_000])
                client.write(b"POST /chunked HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
                client.write(b"493E0\r\n" + BIG[:300_000] + b"\r\n0\r\n\r\nGET /none HTTP/1.1\r\nHost: x\r\n\r\n")
            for _ in range(3):
                assert (await client.answer()).body == b"POST /long " + BIG[:300_000]
                assert (await client.answer()).body == b"POST /chunked " + BIG[:300_000]
                assert (await client.answer()).body == b"GET /none "

    run_on(loop, test())


def test_a_pipelining_client_is_stopped(loop: str) -> None:
    """Requests behind one that takes long are not read without end, nor started."""
    started = 0
    release = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal started
        if scope["path"] == "/wait":
            started += 1
            await release.wait()
        await echo(scope, receive, send)

    async def test() -> None:
        async with serving(app) as live:
            client = await live.client()
            wait = b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n"
            while client.writer.transport.get_write_buffer_size() < 2**20:  # the kernel's buffers are full
                client.write(wait * 50_000)
                await live.passes(5)
            before = client.writer.transport.get_write_buffer_size()
            await live.passes(50)
            assert client.writer.transport.get_write_buffer_size() == before
            assert started == 1
            client.reset()
            release.set()

    run_on(loop, test())


def test_head_has_no_body(loop: str, wrap: Any) -> None:
    """HEAD gets the head that GET would, with the same length, and no body; the connection goes on."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/stream":
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"abc", "more_body": True})
            await send({"type": "http.response.body", "body": b"def"})
        elif scope["path"] == "/declared":
            await reply(send, b"", headers=((b"content-length", b"12345"),))
        else:
            await reply(send, b"hello")

    async def test() -> None:
        async with serving(wrap(app)) as live:
            client = await live.client()
            for path, name, value in [
                ("/", "content-length", "5"),
                ("/stream", "transfer-encoding", "chunked"),
                ("/declared", "content-length", "12345"),
            ]:
                answer = await client.request("HEAD", path)
                assert (answer.status, answer.headers[name]) == (200, value)
            assert (await client.request("GET", "/")).body == b"hello"

    run_on(loop, test())


@pytest.mark.parametrize(("status", "length"), [(204, None), (304, None)])
def test_answers_without_body(loop: str, wrap: Any, status: int, length: str | None) -> None:
    """204 and 304 have no body and invent no length, whatever the application sends."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await reply(send, b"ignored", status)

    async def test() -> None:
        async with serving(wrap(app)) as live:
            client = await live.client()
            for _ in range(2):
                answer = await client.request("GET", "/")
                assert (answer.status, answer.headers.get("content-length"), answer.body) == (status, length, b"")

    run_on(loop, test())


def test_any_status_from_200_to_999(loop: str, wrap: Any) -> None:
    """A status without a name is sent all the same; one that is none fails the application."""

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        await reply(send, b"", int(scope["query_string"]))

    async def test() -> None:
        async with serving(wrap(app)) as live:
            client = await live.client()
            assert (await client.request("GET", "/?299")).status == 299
            assert (await client.request("GET", "/?999")).status == 999
            assert (await client.request("GET", "/?101")).status == 500

    run_on(loop, test())


def test_streams_in_chunks(loop: str, wrap: Any) -> None:
    """A body of unknown length is sent in chunks as the pieces come; empty pieces do not end it."""
    more = asyncio.Event()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        await more.wait()
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        await send({"type": "http.response.body", "body": memoryview(BIG), "more_body": True})
        await send({"type": "http.response.body"})

    async def test() -> None:
        async with serving(wrap(app)) as live:
            client = await live.raw(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
            assert (await client.head()).headers["transfer-encoding"] == "chunked"
            assert await client.reader.readexactly(14) == b"9\r\ndata: 1\n\n\r\n"  # before the application goes on
            more.set()
            assert await client.reader.readuntil(b"\r\n") == b"%x\r\n" % len(BIG)
            assert await client.reader.readexactly(len(BIG) + 7) == BIG + b"\r\n0\r\n\r\n"
            assert (await client.answer()).body == b"data: 1\n\n" + BIG

    run_on(loop, test())


def test_streams_with_a_length_and_to_old_clients(loop: str, wrap: Any) -> None:
    """A known length is not chunked; HTTP/1.0 gets a body of unknown length up to the close, also when it asks to keep alive."""

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"6")] if scope["path"] == "/known" else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for piece, last in ((b"abc", False), (bytearray(b"def"), True)):
            await send({"type": "http.response.body", "body": piece, "more_body": not last})

    async def test() -> None:
        async with serving(wrap(app)) as live:
            client = await live.client()
            answer = await client.request("GET", "/known")
            assert (answer.headers["content-length"], answer.body) == ("6", b"abcdef")
            await client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            answer = await client.answer()
            assert (answer.headers["connection"], answer.body) == ("close", b"abcdef")
            assert "transfer-encoding" not in answer.headers

    run_on(loop, test())


def test_a_slow_reader_stops_the_application(loop: str, wrap: Any) -> None:
    """`send` waits while the client does not read, and goes on when it does: nothing piles up and nothing is lost."""
    sent = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        if scope["path"] != "/stream":
            await echo(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % (2**20 * 64))]})
        for sent in range(1, 65):
            await send({"type": "http.response.body", "body": bytes(2**20), "more_body": sent < 64})

    async def test() -> None:
        async with serving(wrap(app)) as live:
            client = await live.raw(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
            await live.passes(50)
            stopped = sent
            await live.passes(50)
            assert sent == stopped < 64
            assert len((await client.answer()).body) == 64 * 2**20

    run_on(loop, test())


def test_a_slow_reader_gets_no_further_answers(loop: str, wrap: Any) -> None:
    """Pipelined requests are not run while the answer before them has not left."""
    runs = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal runs
        runs += scope["path"] == "/big"
        await reply(send, bytes(8 * 2**20) if scope["path"] == "/big" else b"")

    async def test() -> None:
        async with serving(wrap(app)) as live:
            client = await live.raw(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n" * 10)
            await live.passes(50)
            assert runs < 3
            for _ in range(10):
                assert len((await client.answer()).body) == 8 * 2**20
            assert runs == 10

    run_on(loop, test())


def test_a_long_body_is_read_at_the_pace_of_the_application(loop: str) -> None:
    """The client is stopped while the application takes nothing; what is buffered stays near `buffer_bytes`."""
    sizes = []
    go = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/passes":
            await echo(scope, receive, send)
            return
        await go.wait()
        while True:
            message = await receive()
            sizes.append(len(message["body"]))
            if not message["more_body"]:
                break
        await reply(send, b"%d" % sum(sizes))

    async def test() -> None:
        total = 64 * 2**20
        async with serving(app, limits=HttpLimits(buffer_bytes=100_000)) as live:
            client = await live.client()
            client.write(b"POST /up HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % total + bytes(total))
            await live.passes(50)
            before = client.writer.transport.get_write_buffer_size()
            await live.passes(20)
            assert client.writer.transport.get_write_buffer_size() == before > 2**20
            go.set()
            assert (await client.answer()).body == b"%d" % total
            assert max(sizes) < 800_000
            assert min(sizes[:-1]) >= 100_000

    run_on(loop, test())


def test_tells_a_waiting_application_of_the_hang_up(loop: str, wrap: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A client that closes reaches `receive` and the callbacks; a withdrawn callback is not called, a late one is called at once."""
    seen: list[object] = []
    done = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        client = scope["extensions"]["dragoman.disconnect"]
        await receive()
        withdrawn = lambda: seen.append("withdrawn")  # noqa: E731
        client.add_callback(lambda: seen.append("called"))
        client.add_callback(lambda: seen.append(1 / 0))
        client.add_callback(withdrawn)
        client.add_callback(lambda: seen.append("too"))
        client.remove_callback(withdrawn)
        client.remove_callback(withdrawn)
        seen.append(client.connected)
        both = await asyncio.gather(receive(), receive())
        seen.extend([message["type"] for message in both])
        seen.append(client.connected)
        client.add_callback(lambda: seen.append("late"))
        done.set()

    async def test() -> None:
        async with serving(wrap(app)) as live:
            client = await live.raw(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n-")
            while not seen:
                await asyncio.sleep(0)
            await client.close()
            await done.wait()

    run_on(loop, test())
    assert seen == [True, "called", "too", "http.disconnect", "http.disconnect", False, "late"]
    assert [record.message for record in caplog.records if record.name == "dragoman.http"] == ["a disconnect callback failed"]


def test_callbacks_are_not_called_after_the_answer(loop: str, wrap: Any) -> None:
    """A hang-up behind a complete answer is no hang-up."""
    called: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["extensions"]["dragoman.disconnect"].add_callback(lambda: called.append(1))
        await echo(scope, receive, send)
        called.append((await receive())["type"])

    async def test() -> None:
        async with serving(wrap(app)) as live:
            client = await live.client()
            await client.request("GET", "/")
            await client.close()
            while live.server.connections:
                await asyncio.sleep(0)

    run_on(loop, test())
    assert called == ["http.disconnect"]


def test_send_tells_of_the_hang_up(loop: str, wrap: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A streaming application ends by ClientGone, an OSError, which is nothing to log."""
    ended: list[BaseException] = []

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        try:
            while True:
                await send({"type": "http.response.body", "body": bytes(2**16), "more_body": True})
                await asyncio.sleep(0)
        except OSError as exc:
            ended.append(exc)
            raise

    async def test() -> None:
        async with serving(wrap(app)) as live:
            client = await live.raw(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await client.head()
            client.reset()
            while not ended:
                await asyncio.sleep(0)

    run_on(loop, test())
    assert isinstance(ended[0], ClientGone)
    assert not [record for record in caplog.records if record.name == "dragoman.http"]


def test_answers_a_client_that_closed_its_sending_side(loop: str, wrap: Any) -> None:
    """Complete requests are answered although the client says that nothing more comes; a truncated one is not run."""
    paths = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        paths.append(scope["path"])
        await asyncio.sleep(0)
        await echo(scope, receive, send)

    async def test() -> None:
        async with serving(wrap(app)) as live:
            for rest in (b"", b"GET /c HT", b"POST /c HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n1"):
                paths.clear()
                client = await live.client()
                client.write(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n-GET /b HTTP/1.1\r\nHost: x\r\n\r\n" + rest)
                client.writer.write_eof()
                assert (await client.answer()).body == b"POST /a -"
                assert (await client.answer()).body == b"GET /b "
                assert await client.closed() == b""
                assert paths == ["/a", "/b"]

    run_on(loop, test())


def test_a_truncated_request_is_never_run(loop: str, wrap: Any) -> None:
    """A client that goes away within head or body leaves nothing behind."""
    runs = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        runs.append(scope["path"])
        await echo(scope, receive, send)

    async def test() -> None:
        whole = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\n" + bytes(10_000)
        async with serving(wrap(app)) as live:
            for end in (1, 20, 45, 60, 5000, len(whole) - 1):
                client = await live.raw(whole[:end])
                await client.close()
            while live.server.connections:
                await asyncio.sleep(0)
        assert runs == []

    run_on(loop, test())


def test_a_cut_upload_reaches_the_application(loop: str) -> None:
    """An application that reads a long body learns that it will not be complete."""
    seen = []

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        while (message := await receive())["type"] == "http.request":
            pass
        seen.append(message["type"])

    async def test() -> None:
        async with serving(app, limits=HttpLimits(buffer_bytes=1000)) as live:
            client = await live.raw(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + bytes(50_000))
            await live.passes(0)
            await client.close()
            while not seen:
                await asyncio.sleep(0)

    run_on(loop, test())


def test_expect_is_answered_when_the_application_reads(loop: str, wrap: Any) -> None:
    """`Expect: 100-continue` starts the application, whose first `receive` asks for the body; the connection is kept."""

    async def test() -> None:
        async with serving(wrap(echo)) as live:
            client = await live.client()
            for size in (5, 300_000):
                await client.send(b"POST /e HTTP/1.1\r\nHost: x\r\nExpect: 100-Continue\r\nContent-Length: %d\r\n\r\n" % size)
                assert (await client.answer()).status == 100
                await client.send(BIG[:size])
                answer = await client.answer()
                assert (answer.body, answer.headers.get("connection")) == (b"POST /e " + BIG[:size], None)

    run_on(loop, test())


def test_expect_with_the_body_at_once(loop: str, wrap: Any) -> None:
    """A client that does not wait gets no 100; HTTP/1.0 knows none."""

    async def test() -> None:
        async with serving(wrap(echo)) as live:
            client = await live.raw(b"POST /e HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi")
            assert (await client.answer()).body == b"POST /e hi"
            await client.send(b"POST /o HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
            await client.send(b"hi")
            assert (await client.answer()).body == b"POST /o hi"

    run_on(loop, test())


def test_an_application_refuses_an_expected_body(loop: str, wrap: Any) -> None:
    """An answer without reading comes instead of 100, and closes: whether the body follows nobody knows."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await reply(send, b"no", 403)

    async def test() -> None:
        async with serving(wrap(app)) as live:
            client = await live.raw(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
            answer = await client.answer()
            assert (answer.status, answer.body, answer.headers["connection"]) == (403, b"no", "close")
            assert await client.closed() == b""

    run_on(loop, test())


@pytest.mark.parametrize(("size", "kept"), [(200_000, True), (3_000_000, False)])
def test_an_answer_before_the_body_is_read(loop: str, size: int, kept: bool) -> None:
    """The unread rest of a body is dropped to keep the connection if it is short; else the client still sees the answer."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (reply(send, b"no", 403) if scope["method"] == "POST" else echo(scope, receive, send))

    async def test() -> None:
        async with serving(app, limits=HttpLimits(buffer_bytes=1000)) as live:
            client = await live.client()
            client.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
            await client.send(bytes(2000))
            answer = await client.answer()
            assert (answer.status, answer.headers.get("connection")) == (403, None if kept else "close")
            await client.send(bytes(size - 2000))
            if kept:
                assert (await client.request("GET", "/next")).body == b"GET /next "
            else:
                assert await client.closed() == b""

    run_on(loop, test())


def test_gives_the_scope_of_the_request(loop: str, wrap: Any) -> None:
    """The scope has the keys of ASGI 3 with the values of the request."""
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await echo(scope, receive, send)

    async def test() -> None:
        async with serving(wrap(app)) as live:
            client = await live.client()
            await client.request("PUT", "/a%20b/%E2%82%AC/%ff%2F?x=%20&y", b"", "X-One: 1", "x-one: 2", "Accept:")
            scope = scopes[0]
            assert scope.pop("extensions").keys() == {"dragoman.disconnect", "dragoman.chunks"}
            assert scope == {
                "type": "http",
                "asgi": {"version": "3.0", "spec_version": "2.4"},
                "http_version": "1.1",
                "method": "PUT",
                "scheme": "http",
                "path": "/a b/€/\ufffd/",
                "raw_path": b"/a%20b/%E2%82%AC/%ff%2F",
                "query_string": b"x=%20&y",
                "root_path": "",
                "headers": [(b"host", b"test"), (b"x-one", b"1"), (b"x-one", b"2"), (b"accept", b""), (b"content-length", b"0")],
                "client": client.writer.get_extra_info("sockname"),
                "server": ("127.0.0.1", live.port),
            }
            await client.send(b"GET /v HTTP/1.0\r\nHost: x\r\n\r\n")
            await client.answer()
            assert scopes[1]["http_version"] == "1.0"

    run_on(loop, test())


@pytest.mark.parametrize(
    ("target", "path"), [("http://other/a?b", "/a"), ("HTTPS://other", "/"), ("*", "*"), ("/?", "/"), ("//a//b", "//a//b")]
)
def test_other_forms_of_the_target(loop: str, wrap: Any, target: str, path: str) -> None:
    """Absolute targets lose their authority, the asterisk stays, and nothing else is normalised."""

    async def test() -> None:
        async with serving(wrap(echo)) as live:
            answer = await (await live.client()).request("OPTIONS", target)
            assert answer.body == f"OPTIONS {path} ".encode()

    run_on(loop, test())


def test_hands_over_the_pieces_of_a_body(loop: str, wrap: Any) -> None:
    """`dragoman.chunks` gives a whole body unjoined, once, and nothing after `receive` took a part of it."""
    pieces: list[list[bytes] | None] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        chunks = scope["extensions"]["dragoman.chunks"]
        if scope["path"] == "/late":
            await receive()
        pieces.append(chunks())
        await reply(send, b"")
        pieces.append(chunks())

    async def test() -> None:
        async with serving(wrap(app)) as live:
            client = await live.client()
            await client.request("POST", "/", BIG[:500_000])
            await client.request("POST", "/late", b"x")
            await client.request("GET", "/")

    run_on(loop, test())
    assert len(pieces[0] or ()) > 1
    assert b"".join(pieces[0] or ()) == BIG[:500_000]
    assert pieces[1:] == [None, None, None, [], None]


def test_no_pieces_of_an_incomplete_body(loop: str) -> None:
    """A body that is longer than the buffer can only be received."""
    pieces = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        pieces.append(scope["extensions"]["dragoman.chunks"]())
        await echo(scope, receive, send)

    async def test() -> None:
        async with serving(app, limits=HttpLimits(buffer_bytes=1000)) as live:
            client = await live.raw(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n" + bytes(3000))
            while not pieces:
                await asyncio.sleep(0)
            await client.send(bytes(2000))
            assert (await client.answer()).body == b"POST / " + bytes(5000)

    run_on(loop, test())
    assert pieces == [None]


def test_reports_answers_to_the_hook(loop: str, wrap: Any) -> None:
    """`on_response` gets scope, status, body bytes and start of every complete answer; what it raises hurts nobody."""
    reports: list[tuple[Any, ...]] = []

    def hook(scope: Scope | None, status: int, sent: int, started_ns: int) -> None:
        reports.append((scope and scope["path"], status, sent))
        assert started_ns > 0
        raise RuntimeError("the hook is broken")

    async def test() -> None:
        async with serving(wrap(echo), on_response=hook) as live:
            client = await live.client()
            await client.request("GET", "/a")
            await client.request("HEAD", "/b")
            assert (await client.request("FOO", "/c")).status == 400

    run_on(loop, test())
    assert reports == [("/a", 200, 7), ("/b", 200, 0), (None, 400, len(b'{"error":"malformed request: Invalid method encountered"}'))]


def test_requests_leave_no_garbage(loop: str, wrap: Any) -> None:
    """Nothing of a finished request waits for the cyclic collector."""

    async def test() -> None:
        async with serving(wrap(echo)) as live:
            client = await live.client()
            await client.request("GET", "/")
            gc.collect()
            gc.disable()
            try:
                for _ in range(50):
                    client.write(b"POST /g HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n-")
                    await client.reader.readuntil(b"POST /g -")
                await asyncio.sleep(0)
                assert gc.collect() < 50
            finally:
                gc.enable()

    run_on(loop, test())


def test_step_without_a_task(loop: str) -> None:
    """An eager application runs in no task up to its first suspension, in one after it, and may suspend as often as it likes."""
    tasks: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = await read(receive)
        tasks.append(asyncio.current_task() is None)
        for _ in range(3):
            await asyncio.sleep(0)
            await asyncio.get_running_loop().run_in_executor(None, lambda: None)
            tasks.append(asyncio.current_task() is None)
        async with asyncio.timeout(5):
            await reply(send, body)

    async def test() -> None:
        async with serving(Eager(app)) as live:
            client = await live.client()
            assert (await client.request("POST", "/", b"abc")).body == b"abc"
            assert tasks == [True, False, False, False]

    run_on(loop, test())


def test_an_application_chooses_what_is_eager(loop: str) -> None:
    """`eager` is asked for each request with its scope; without True, or before the body is complete, there is a task."""
    tasks: dict[str, bool] = {}

    class Some:
        def eager(self, scope: Scope) -> bool:
            return bool(scope["path"] == "/eager")

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            tasks[scope["path"] + scope["query_string"].decode()] = asyncio.current_task() is not None
            await echo(scope, receive, send)

    async def test() -> None:
        async with serving(Some()) as live:
            client = await live.client()
            await client.request("GET", "/eager")
            await client.request("GET", "/other")
            await client.send(b"POST /eager?expect HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n")
            assert (await client.answer()).status == 100
            await client.send(b"-")
            await client.answer()

    run_on(loop, test())
    assert tasks == {"/eager": False, "/other": True, "/eagerexpect": True}


def test_many_clients_get_their_own_answers(loop: str, wrap: Any) -> None:
    """Every answer belongs to its request, with many connections and requests that suspend."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = await read(receive)
        if len(body) % 3:
            await asyncio.sleep(0)
        await reply(send, json.dumps([scope["path"], body.decode()]).encode())

    async def one(client: Client, number: int) -> None:
        for turn in range(20):
            body = f"{number}-{turn}" * (turn % 5 + 1)
            answer = await client.request("POST", f"/{number}/{turn}", body.encode())
            assert json.loads(answer.body) == [f"/{number}/{turn}", body]

    async def test() -> None:
        async with serving(wrap(app)) as live:
            await asyncio.gather(*[one(await live.client(), number) for number in range(64)])

    run_on(loop, test())


@pytest.mark.parametrize("app", [echo, Eager(echo)])
def test_nothing_is_logged_for_good_requests(loop: str, app: Application, caplog: pytest.LogCaptureFixture) -> None:
    """A served request leaves no line in the log."""
    caplog.set_level(logging.DEBUG, "dragoman.http")

    async def test() -> None:
        async with serving(app) as live:
            await (await live.client()).request("POST", "/", b"x")

    run_on(loop, test())
    assert [record for record in caplog.records if record.name == "dragoman.http"] == []


@pytest.mark.parametrize("split", [False, True])
def test_repeated_heads_with_other_bodies(loop: str, wrap: Any, split: bool) -> None:
    """Requests whose heads differ in their length only, or not at all, each get the answer to their own body."""
    sizes = [3, 3, 0, 10, 5000, 5, 300_000, 300_000, 1, 4096, 2_000_000, 7]

    async def test() -> None:
        async with serving(wrap(echo)) as live:
            client = await live.client()
            for turn, size in enumerate(sizes * 2):
                head = b"POST /same HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nAccept: */*\r\n\r\n" % size
                body = BIG[turn : turn + size]
                if split:
                    await client.send(head)
                    await live.passes(1)
                    await client.send(body)
                else:
                    await client.send(head + body)
                assert (await client.answer()).body == b"POST /same " + body

    run_on(loop, test())


def test_repeated_heads_in_a_pipeline(loop: str, wrap: Any) -> None:
    """The same requests over and over, sent at once, are answered each with its own body."""

    async def test() -> None:
        async with serving(wrap(echo)) as live:
            client = await live.client()
            bodies = [b"%d" % number * (1 + number % 7) for number in range(2000)]
            await client.request("POST", "/p", b"first")
            client.write(b"".join(b"POST /p HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body) for body in bodies))
            for body in bodies:
                assert (await client.answer()).body == b"POST /p " + body

    run_on(loop, test())


def test_each_scope_of_repeated_heads_is_its_own(loop: str, wrap: Any) -> None:
    """An application may keep and change a scope; the next one is as it should be."""
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append({key: value for key, value in scope.items() if key != "extensions"} | {"headers": scope["headers"].copy()})
        body = await read(receive)
        scope["headers"].append((b"x-forged", b"1"))
        scope["path"] = "/forged"
        scope["extensions"].clear()
        await reply(send, body)

    async def test() -> None:
        async with serving(wrap(app)) as live:
            client = await live.client()
            for body in (b"a", b"a", b"bcd", b"a"):
                assert (await client.request("POST", "/s?q", body)).body == body

    run_on(loop, test())
    assert scopes[0] == scopes[1] == scopes[3]
    assert scopes[2] == scopes[0] | {"headers": [(b"host", b"test"), (b"content-length", b"3")]}
