"""The HTTP server against clients that send too much, too slowly, or what is no HTTP."""

import asyncio
import logging
import resource
from typing import Any

import pytest

from dragoman.server.http import HttpLimits, HttpServer
from tests.e2e.live_http import Live, Receive, Scope, Send, echo, reply, run_on, serving

pytestmark = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
HEAD = b"POST /p HTTP/1.1\r\nHost: x\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"

MALFORMED = {
    "no http": b"hello\r\n\r\n",
    "tls hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
    "unknown method": b"FOO / HTTP/1.1\r\nHost: x\r\n\r\n",
    "lower case method": b"get / HTTP/1.1\r\nHost: x\r\n\r\n",
    "space in target": b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
    "control in target": b"GET /\x01 HTTP/1.1\r\nHost: x\r\n\r\n",
    "high byte in target": b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    "fragment": b"GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n",
    "other scheme": b"GET ftp://x/a HTTP/1.1\r\nHost: x\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "bare line feeds": b"GET / HTTP/1.1\nHost: x\n\n",
    "bare line feed in head": b"GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n",
    "bare carriage return": b"GET / HTTP/1.1\r\nHost: x\rA: b\r\n\r\n",
    "nul in value": b"GET / HTTP/1.1\r\nHost: x\0\r\n\r\n",
    "folded line": b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
    "space before colon": HEAD + b"Content-Length : 1\r\n\r\na",
    "space before name": b"GET / HTTP/1.1\r\n Host: x\r\n\r\n",
    "empty name": HEAD + b": a\r\n\r\n",
    "parenthesis in name": HEAD + b"A(: a\r\n\r\n",
    "no colon": HEAD + b"A\r\n\r\n",
    "length twice": HEAD + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na",
    "two lengths": HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\naa",
    "list of lengths": HEAD + b"Content-Length: 1, 1\r\n\r\na",
    "signed length": HEAD + b"Content-Length: +1\r\n\r\na",
    "negative length": HEAD + b"Content-Length: -1\r\n\r\na",
    "hexadecimal length": HEAD + b"Content-Length: 0x1\r\n\r\na",
    "empty length": HEAD + b"Content-Length: \r\n\r\na",
    "overlong length": HEAD + b"Content-Length: 99999999999999999999999\r\n\r\na",
    "length and coding": HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding and length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n",
    "coding twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked not last": HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunk size not hexadecimal": CHUNKED + b"x\r\n\r\n",
    "chunk size with sign": CHUNKED + b"-1\r\na\r\n0\r\n\r\n",
    "chunk size with prefix": CHUNKED + b"0x1\r\na\r\n0\r\n\r\n",
    "chunk size with space": CHUNKED + b"1 \r\na\r\n0\r\n\r\n",
    "chunk size missing": CHUNKED + b"\r\na\r\n0\r\n\r\n",
    "chunk size overflow": CHUNKED + b"fffffffffffffffff\r\na\r\n",
    "chunk line ends by line feed": CHUNKED + b"1\na\n0\n\n",
    "chunk longer than said": CHUNKED + b"1\r\nab\r\n0\r\n\r\n",
    "line feed in chunk extension": CHUNKED + b"1;a\nb\r\na\r\n0\r\n\r\n",
    "length in trailer": CHUNKED + b"1\r\na\r\n0\r\nContent-Length: 1\r\n\r\n",
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_requests_are_refused(loop: str, case: str) -> None:
    """What two parsers could read differently is answered with 400, and nothing behind it is taken for a request."""
    runs = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        runs.append(scope["path"])
        await echo(scope, receive, send)

    async def test() -> None:
        async with serving(app) as live:
            client = await live.raw(MALFORMED[case] + b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
            answer = await client.answer()
            assert (answer.status, answer.headers["connection"]) == (400, "close")
            assert answer.error.startswith("malformed request: ")
            assert await client.closed() == b""
            assert runs == []

    run_on(loop, test())


@pytest.mark.parametrize(
    ("request_head", "status", "text"),
    [
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, "Transfer-Encoding"),
        (b"GET /\r\n\r\n", 505, "HTTP version"),
        (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505, "HTTP version"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "HTTP/2"),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\nxyz", 501, "CONNECT"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\nxyz", 501, "WebSocket"),
    ],
)
def test_what_is_not_offered(loop: str, request_head: bytes, status: int, text: str) -> None:
    """Other versions, codings, tunnels and WebSockets are refused by name."""

    async def test() -> None:
        async with serving(echo) as live:
            client = await live.raw(request_head + b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = await client.answer()
            assert answer.status == status
            assert text in answer.error
            assert await client.closed() == b""

    run_on(loop, test())


@pytest.mark.parametrize("framing", ["none", "length", "chunked"])
@pytest.mark.parametrize("size", [10, 100_000])
def test_other_upgrades_are_ignored(loop: str, framing: str, size: int) -> None:
    """A wish to go on in HTTP/2, as Java clients send it, does not change how the request and the next ones are served."""
    head = b"POST /u HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    body = {
        "none": b"\r\n",
        "length": b"Content-Length: %d\r\n\r\n" % size + bytes(size),
        "chunked": b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (size, bytes(size)),
    }

    async def test() -> None:
        async with serving(echo) as live:
            client = await live.client()
            client.write((head + body[framing]) * 2 + b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n")
            for _ in range(2):
                assert (await client.answer()).body == b"POST /u " + bytes(0 if framing == "none" else size)
            assert (await client.answer()).body == b"GET /next "

    run_on(loop, test())


def test_an_ignored_upgrade_still_closes(loop: str) -> None:
    """`Connection: close` beside an upgrade is not forgotten."""

    async def test() -> None:
        async with serving(echo) as live:
            client = await live.raw(b"GET /u HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: h2c\r\n\r\n")
            assert (await client.answer()).headers["connection"] == "close"
            assert await client.closed() == b""

    run_on(loop, test())


def test_good_requests_before_a_bad_one_are_answered(loop: str) -> None:
    """The refusal comes in its turn."""

    async def slowly(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0)
        await echo(scope, receive, send)

    async def test() -> None:
        async with serving(slowly) as live:
            client = await live.raw(b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\nbad\r\n\r\n")
            assert [(await client.answer()).status for _ in range(3)] == [200, 200, 400]
            assert await client.closed() == b""

    run_on(loop, test())


def test_nothing_is_read_behind_the_last_request(loop: str) -> None:
    """Bytes after a request that closes the connection are neither run nor held against it."""

    async def test() -> None:
        async with serving(echo) as live:
            client = await live.raw(b"GET /1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\nnoise")
            assert (await client.answer()).body == b"GET /1 "
            assert await client.closed() == b""

    run_on(loop, test())


@pytest.mark.parametrize("piece", [1, 100, 10_000])
@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 3000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a" * 3000, 431),
        (b"\r\n" * 1500, 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: a\r\n" * 51 + b"\r\n", 431),
        (b"GET /" + b"a" * 1000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET /" + b"a" * 3000, 414),
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    ],
)
def test_heads_that_are_too_long(loop: str, piece: int, head: bytes, status: int) -> None:
    """A head over the limits is refused, in one piece or dripping, complete or not."""
    limits = HttpLimits(max_header_bytes=2000, max_headers=50, max_url_bytes=1000)

    async def test() -> None:
        async with serving(echo, limits=limits) as live:
            client = await live.client()
            for at in range(0, min(len(head), 5000), piece):
                client.write(head[at : at + piece])
                if piece == 1:
                    await asyncio.sleep(0)
            answer = await client.answer()
            assert (answer.status, answer.headers["connection"]) == (status, "close")
            assert "longer than" in answer.error or "more than" in answer.error

    run_on(loop, test())


def test_heads_at_the_limits(loop: str) -> None:
    """The longest target and head that are allowed are served."""
    limits = HttpLimits(max_header_bytes=3000, max_headers=3, max_url_bytes=1000)

    async def test() -> None:
        async with serving(echo, limits=limits) as live:
            client = await live.client()
            target = "/" + "a" * 999
            answer = await client.request("GET", target, None, "A: " + "a" * 1900, "B: b")
            assert answer.body == f"GET {target} ".encode()

    run_on(loop, test())


@pytest.mark.parametrize("size", [1001, 100_000])
def test_a_body_a_little_too_long(loop: str, size: int) -> None:
    """A declared body over the limit is refused before it is read; a short one is then dropped and the connection kept."""

    async def test() -> None:
        async with serving(echo, limits=HttpLimits(max_body_bytes=1000)) as live:
            client = await live.raw(HEAD + b"Content-Length: %d\r\n\r\n" % size)
            answer = await client.answer()
            assert answer.status == 413
            assert answer.error == f"the request body has {size} bytes, more than the 1000 allowed here"
            assert "connection" not in answer.headers
            await client.send(bytes(size))
            assert (await client.request("POST", "/next", bytes(1000))).body == b"POST /next " + bytes(1000)

    run_on(loop, test())


def test_a_body_far_too_long(loop: str) -> None:
    """A client that sends all of a body that is refused still sees the answer, not a reset."""

    async def test() -> None:
        async with serving(echo, limits=HttpLimits(max_body_bytes=1000)) as live:
            client = await live.client()
            client.write(HEAD + b"Content-Length: 50000000\r\n\r\n" + bytes(50_000_000))
            await client.writer.drain()
            answer = await client.answer()
            assert (answer.status, answer.headers["connection"]) == (413, "close")
            assert await client.closed() == b""

    run_on(loop, test())


def test_a_body_too_long_that_is_expected(loop: str) -> None:
    """The refusal comes instead of 100 Continue."""

    async def test() -> None:
        async with serving(echo, limits=HttpLimits(max_body_bytes=1000)) as live:
            client = await live.raw(HEAD + b"Expect: 100-continue\r\nContent-Length: 1001\r\n\r\n")
            assert (await client.answer()).status == 413
            assert await client.closed() == b""

    run_on(loop, test())


@pytest.mark.parametrize("buffer_bytes", [500, 10_000])
def test_a_chunked_body_too_long(loop: str, buffer_bytes: int) -> None:
    """A chunked body is refused when it passes the limit, before the application starts and while it reads."""
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["extensions"]["dragoman.disconnect"].add_callback(lambda: seen.append("called"))
        while (message := await receive())["type"] == "http.request":
            seen.append("body")
        seen.append(message["type"])
        with pytest.raises(OSError, match="hung up"):
            await reply(send, b"too late")

    async def test() -> None:
        async with serving(app, limits=HttpLimits(max_body_bytes=1000, buffer_bytes=buffer_bytes)) as live:
            client = await live.raw(CHUNKED + b"300\r\n" + bytes(0x300) + b"\r\n")
            while buffer_bytes == 500 and not seen:
                await asyncio.sleep(0)
            client.write((b"300\r\n" + bytes(0x300) + b"\r\n") * 3 + b"0\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = await client.answer()
            assert (answer.status, answer.headers["connection"]) == (413, "close")
            assert await client.closed() == b""
            await asyncio.sleep(0)

    run_on(loop, test())
    assert seen == ([] if buffer_bytes == 10_000 else ["body", "called", "http.disconnect"])


def test_a_chunked_body_too_long_behind_the_head_of_the_answer(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    """When the answer has begun there is nothing left to say: the connection is closed within it."""

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        while (message := await receive())["type"] == "http.request":
            await send({"type": "http.response.body", "body": message["body"], "more_body": True})

    async def test() -> None:
        async with serving(app, limits=HttpLimits(max_body_bytes=1000, buffer_bytes=500)) as live:
            client = await live.raw(CHUNKED + b"300\r\n" + bytes(0x300) + b"\r\n")
            assert (await client.head()).status == 200
            await client.send(b"300\r\n" + bytes(0x300) + b"\r\n")
            assert not (await client.closed()).endswith(b"0\r\n\r\n")

    run_on(loop, test())
    assert not [record for record in caplog.records if record.name == "dragoman.http"]


@pytest.mark.parametrize("noise", [b"1;" + b"a" * 20_000, b"0\r\n" + b"A: a\r\n" * 5000, b"0\r\nA: " + b"a" * 20_000])
def test_endless_chunk_extensions_and_trailers(loop: str, noise: bytes) -> None:
    """What surrounds the chunks is limited like a head."""

    async def test() -> None:
        async with serving(echo, limits=HttpLimits(max_header_bytes=8000)) as live:
            client = await live.client()
            client.write(CHUNKED + noise)
            assert "too long" in (await client.answer()).error
            assert await client.closed() == b""

    run_on(loop, test())


def test_errors_in_the_words_of_a_dialect(loop: str) -> None:
    """`error_body` words what the server answers itself and is told the path; when it fails, the default is sent."""

    def word(status: int, text: str, path: str) -> tuple[bytes, bytes]:
        if path == "/broken":
            raise RuntimeError("no words")
        return b"text/plain", f"{status}|{text}|{path}".encode()

    async def test() -> None:
        async with serving(echo, limits=HttpLimits(max_body_bytes=10), error_body=word) as live:
            client = await live.client()
            answer = await client.request("POST", "/v2/a%20b?c", bytes(11))
            assert (answer.status, answer.headers["content-type"]) == (413, "text/plain")
            assert answer.body == b"413|the request body has 11 bytes, more than the 10 allowed here|/v2/a b"
            assert "more than" in (await client.request("POST", "/broken", bytes(11))).error
            assert (await client.request("GET", "/\r\nbad")).body.startswith(b"400|malformed request: ")

    run_on(loop, test())


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /v2/a HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", 400),
        (b"GET /v2/a HTTP/1.1\r\nHost: x\r\nno colon /v2/other\r\n\r\n", 400),
        (b"NONSENSE /v2/a HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /v2/a?\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET http://x/v2/%61 HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 9000, 431),
        (b"GET /v2/a?" + b"a" * 9000, 414),
    ],
)
def test_a_head_that_cannot_be_read_is_refused_where_it_went(loop: str, head: bytes, status: int) -> None:
    """The words are those of the path, as far as it is known: heads are refused before they are requests."""

    def word(status: int, text: str, path: str) -> tuple[bytes, bytes]:
        return b"text/plain", f"{status}|{path}".encode()

    async def test() -> None:
        async with serving(echo, limits=HttpLimits(max_header_bytes=8000, max_url_bytes=8000), error_body=word) as live:
            client = await live.raw(head)
            answer = await client.answer()
            assert (answer.status, answer.body) == (status, f"{status}|/v2/a".encode())

    run_on(loop, test())


SOON = 0.05


async def time_out(live: Live) -> None:
    """Wait until the server has lost patience with two clients, one after the other: longer than any time-out of `SOON`."""
    for _ in range(2):
        assert await (await live.client()).closed() == b""


@pytest.mark.parametrize("begun", [b"GET /", b"\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nA: "])
def test_a_head_that_does_not_come(loop: str, begun: bytes) -> None:
    """A head that stays incomplete is answered with 408, also when it drips."""

    async def drip(live_client: Any) -> None:
        while True:
            live_client.write(begun[-1:])
            await asyncio.sleep(0)

    async def test() -> None:
        async with serving(echo, limits=HttpLimits(header_timeout_s=SOON)) as live:
            client = await live.raw(begun)
            dripping = asyncio.ensure_future(drip(client))
            answer = await client.answer()
            dripping.cancel()
            assert (answer.status, answer.error) == (408, "the request head did not come in time")
            assert await client.closed() == b""

    run_on(loop, test())


def test_a_connection_without_a_request(loop: str) -> None:
    """A client that says nothing is let go without an answer."""

    async def test() -> None:
        async with serving(echo, limits=HttpLimits(header_timeout_s=SOON)) as live:
            assert await (await live.client()).closed() == b""

    run_on(loop, test())


def test_an_idle_connection(loop: str) -> None:
    """Between requests the keep-alive time counts, and the end of it is silent."""

    async def test() -> None:
        async with serving(echo, limits=HttpLimits(keep_alive_timeout_s=SOON)) as live:
            client = await live.client()
            await client.request("GET", "/")
            assert await client.closed() == b""

    run_on(loop, test())


def test_a_long_request_is_not_idle(loop: str) -> None:
    """No time-out of the connection ends a request that is being answered."""

    lives: list[Live] = []

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await time_out(lives[0])
        await reply(send, b"at last")

    async def test() -> None:
        limits = HttpLimits(header_timeout_s=SOON, body_timeout_s=SOON, keep_alive_timeout_s=SOON, write_timeout_s=SOON)
        async with serving(app, limits=limits) as live:
            lives.append(live)
            client = await live.client()
            client.write(HEAD + b"Content-Length: 1\r\n\r\n-" + HEAD + b"Content-Length: 9000\r\n\r\n" + bytes(9000))
            assert (await client.answer()).body == b"at last"
            assert (await client.answer()).body == b"at last"

    run_on(loop, test())


@pytest.mark.parametrize(
    "begun", [HEAD + b"Content-Length: 5\r\n\r\n12", CHUNKED + b"5\r\n12", HEAD + b"Content-Length: 9000\r\n\r\n" + bytes(8000)]
)
def test_a_body_that_stalls(loop: str, begun: bytes) -> None:
    """A body that stops coming is answered with 408, and the application never starts."""
    runs: list[Scope] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        runs.append(scope)

    async def test() -> None:
        async with serving(app, limits=HttpLimits(body_timeout_s=SOON)) as live:
            client = await live.raw(begun)
            assert (await client.answer()).error == "the request body did not come in time"
            assert await client.closed() == b""

    run_on(loop, test())
    assert runs == []


def test_a_body_that_stalls_while_it_is_read(loop: str) -> None:
    """A running application is told that its client is gone, and the client is answered in its place."""
    seen = []

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        while (message := await receive())["type"] == "http.request":
            pass
        seen.append(message["type"])

    async def test() -> None:
        async with serving(app, limits=HttpLimits(body_timeout_s=SOON, buffer_bytes=1000)) as live:
            client = await live.raw(HEAD + b"Content-Length: 9000\r\n\r\n" + bytes(8000))
            assert (await client.answer()).status == 408
            assert await client.closed() == b""

    run_on(loop, test())
    assert seen == ["http.disconnect"]


def test_a_body_that_stalls_behind_its_answer(loop: str) -> None:
    """The rest of a refused body that was to be dropped and does not come ends the connection."""

    async def test() -> None:
        async with serving(echo, limits=HttpLimits(body_timeout_s=SOON, max_body_bytes=10)) as live:
            client = await live.raw(HEAD + b"Content-Length: 5000\r\n\r\n")
            assert (await client.answer()).status == 413
            assert await client.closed() == b""

    run_on(loop, test())


def test_an_application_may_take_its_time_with_a_body(loop: str) -> None:
    """A client that was stopped because the application reads slowly is not blamed for it."""

    lives: list[Live] = []

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        size = 0
        while True:
            await time_out(lives[0])
            message = await receive()
            size += len(message["body"])
            if not message["more_body"]:
                break
        await reply(send, b"%d" % size)

    async def test() -> None:
        async with serving(app, limits=HttpLimits(header_timeout_s=SOON, body_timeout_s=SOON, buffer_bytes=500_000)) as live:
            lives.append(live)
            client = await live.client()
            assert (await client.request("POST", "/", bytes(2_000_000))).body == b"2000000"

    run_on(loop, test())


def test_a_client_that_takes_no_answer(loop: str) -> None:
    """A client that stops reading is cut off, and the application that sends to it learns so."""
    ended = asyncio.Event()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        try:
            while True:
                await send({"type": "http.response.body", "body": bytes(2**20), "more_body": True})
        finally:
            ended.set()

    async def test() -> None:
        async with serving(app, limits=HttpLimits(write_timeout_s=SOON)) as live:
            client = await live.raw(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await ended.wait()
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await client.answer()

    run_on(loop, test())


def test_a_client_that_never_closes(loop: str) -> None:
    """A refused client that keeps its side open is cut off after the linger time."""

    async def test() -> None:
        async with serving(echo, limits=HttpLimits(linger_s=SOON)) as live:
            await live.raw(b"bad\r\n\r\n")
            while not live.server.connections:
                await asyncio.sleep(0)
            while live.server.connections:
                await asyncio.sleep(0)

    run_on(loop, test())


def test_too_many_connections(loop: str) -> None:
    """Clients over the limit are told so; when one leaves, there is room again; a flood is cut off."""

    async def test() -> None:
        async with serving(echo, limits=HttpLimits(max_connections=3)) as live:
            clients = [await live.client() for _ in range(3)]
            for client in clients:
                assert (await client.request("GET", "/")).status == 200
            answer = await (excess := await live.client()).answer()
            assert (answer.status, answer.error, answer.headers["connection"]) == (503, "too many connections", "close")
            assert await excess.closed() == b""
            await excess.close()
            flood = [await live.client() for _ in range(80)]
            ends = await asyncio.gather(*[client.closed() for client in flood], return_exceptions=True)
            assert sum(isinstance(end, bytes) and end.startswith(b"HTTP/1.1 503 ") for end in ends) >= 60
            assert sum(isinstance(end, OSError) or end == b"" for end in ends) > 0
            for client in (*flood, clients[0]):
                await client.close()
            while live.server.connections > 2:
                await asyncio.sleep(0)
            assert (await (await live.client()).request("GET", "/")).status == 200
            assert (await clients[1].request("GET", "/")).status == 200

    run_on(loop, test())


def test_bad_clients_are_not_logged(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    """What strangers send does not fill the log."""
    caplog.set_level(logging.INFO, "dragoman.http")

    async def test() -> None:
        async with serving(echo, limits=HttpLimits(max_body_bytes=10)) as live:
            for data in (b"bad\r\n\r\n", HEAD + b"Content-Length: 11\r\n\r\n", MALFORMED["chunk longer than said"]):
                await (await live.raw(data)).answer()

    run_on(loop, test())
    assert [record for record in caplog.records if record.name == "dragoman.http"] == []


@pytest.mark.parametrize(
    "values", [{"max_body_bytes": 0}, {"linger_s": -1.0}, {"max_headers": True}, {"keep_alive_timeout_s": float("inf")}]
)
def test_limits_are_checked(loop: str, values: dict[str, Any]) -> None:
    """A limit that would serve nobody is refused by name."""
    with pytest.raises(ValueError, match=next(iter(values))):
        HttpLimits(**values)


@pytest.mark.parametrize("first", [b"GE", b"G", b"\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\nP", b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nX"])
def test_a_known_head_behind_something_else(loop: str, first: bytes) -> None:
    """A head that was seen before is only a head where a request begins."""
    known = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"

    async def test() -> None:
        async with serving(echo) as live:
            client = await live.raw(known)
            assert (await client.answer()).status == 200
            await client.send(first)
            if b"\r\n\r\n" in first:
                assert (await client.answer()).status == 200
            await live.passes(3)
            await client.send(known)
            answer = await client.answer()
            assert (answer.status, answer.headers["connection"]) == (400, "close")

    run_on(loop, test())


def test_a_known_head_is_still_limited(loop: str) -> None:
    """A head that was accepted with a short body is refused with a long one, and time-outs of its body count."""

    async def test() -> None:
        async with serving(echo, limits=HttpLimits(max_body_bytes=1000, body_timeout_s=SOON)) as live:
            client = await live.client()
            for _ in range(3):
                assert (await client.request("POST", "/", bytes(1000))).status == 200
            assert (await client.request("POST", "/", bytes(1001))).status == 413
            assert (await client.request("POST", "/", bytes(1000))).status == 200
            await client.send(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\n123")
            assert (await client.answer()).status == 408

    run_on(loop, test())


def test_tiny_chunks_do_not_pile_up(loop: str) -> None:
    """A body in very many small chunks is held in few pieces, and whole."""
    counts: list[int] = []

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        chunks = scope["extensions"]["dragoman.chunks"]()
        counts.append(len(chunks))
        await reply(send, b"".join(chunks))

    async def test() -> None:
        async with serving(app) as live:
            client = await live.client()
            pieces = [b"%05d" % number for number in range(20_000)]
            client.write(CHUNKED + b"".join(b"5\r\n%b\r\n" % piece for piece in pieces) + b"0\r\n\r\n")
            assert (await client.answer()).body == b"".join(pieces)

    run_on(loop, test())
    assert counts[0] < 600


def test_a_stalled_upload_does_not_harm_the_request_before_it(loop: str) -> None:
    """A body that is refused and stalls behind a request that takes long ends the connection only after both are answered."""
    lives: list[Live] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await time_out(lives[0])
        await echo(scope, receive, send)

    async def test() -> None:
        limits = HttpLimits(header_timeout_s=SOON, body_timeout_s=SOON, max_body_bytes=10)
        for second in (b"Content-Length: 5000\r\n\r\n", b"Content-Length: 5\r\n\r\n12"):
            async with serving(app, limits=limits) as live:
                lives[:] = [live]
                client = await live.raw(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n" + HEAD + second)
                assert (await client.answer()).body == b"GET /slow "
                assert (await client.answer()).status == (413 if b"5000" in second else 408)
                assert await client.closed() == b""

    run_on(loop, test())


def test_connections_are_limited_by_open_files(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    """A server does not promise more connections than the process may open; it says so once."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1000, hard))
    try:
        HttpServer(echo, limits=HttpLimits(max_connections=700))
        assert caplog.messages == []
        HttpServer(echo, limits=HttpLimits(max_connections=800))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caplog.messages == ["at most 744 connections are taken, not 800: the limit of open files is 1000"]
