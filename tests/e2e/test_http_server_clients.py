"""The HTTP server and clients that others wrote, TLS, and listening sockets."""

import asyncio
import http.client
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import requests
import trustme

from dragoman.server.http import HttpLimits, HttpServer, bind
from tests.e2e.live_http import Eager, Receive, Scope, Send, echo, read, reply, run_on, serving

BODY = bytes(range(256)) * 3000


async def mirror(scope: Scope, receive: Receive, send: Send) -> None:
    """Echo, stream on `/stream`, fail on `/fail`, tell the scheme on `/scheme`."""
    if scope["path"] == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for number in range(100):
            await send({"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": True})
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b""})
    elif scope["path"] == "/fail":
        raise LookupError("secret")
    elif scope["path"] == "/scheme":
        await reply(send, scope["scheme"].encode())
    else:
        await reply(send, await read(receive), headers=((b"content-type", b"application/octet-stream"),))


class Thread:
    """A server in a thread of its own, for clients that block."""

    def __init__(self, app: object, ssl_context: ssl.SSLContext | None = None) -> None:
        """Start serving."""
        self._loop = asyncio.new_event_loop()
        self._server = HttpServer(app, limits=HttpLimits(max_body_bytes=10_000_000))  # type: ignore[arg-type]  # tests pass both kinds
        listener = bind("127.0.0.1", 0)
        self.port: int = listener.getsockname()[1]
        self._loop.run_until_complete(self._server.start([listener], ssl_context))
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def close(self) -> None:
        """Drain and end the thread."""
        cut = asyncio.run_coroutine_threadsafe(self._server.drain(10), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
        self._loop.close()
        assert cut == 0


@pytest.fixture(params=["tasks", "eager"])
def server(request: pytest.FixtureRequest) -> Iterator[Thread]:
    """Serve `mirror`."""
    thread = Thread(Eager(mirror) if request.param == "eager" else mirror)
    yield thread
    thread.close()


def test_http_client(server: Thread) -> None:
    """The standard library's client keeps its connection through bodies, chunks, HEAD, errors and streams."""
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    client.connect()
    own = client.sock
    for _ in range(3):
        client.request("POST", "/a", BODY)
        assert client.getresponse().read() == BODY
        client.request("POST", "/a", iter([b"one", b"two"]), encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
        assert client.getresponse().read() == b"onetwo"
        client.request("HEAD", "/stream")
        assert client.getresponse().read() == b""
        client.request("GET", "/stream")
        assert client.getresponse().read().count(b"data: ") == 100
        client.request("GET", "/fail")
        answer = client.getresponse()
        assert (answer.status, answer.read()) == (500, b'{"error":"internal error"}')
        assert client.sock is own
    client.close()


def test_requests(server: Thread) -> None:
    """requests with a session: JSON, files by generator, streams read line by line, and a refusal of a large upload."""
    base = f"http://127.0.0.1:{server.port}"
    with requests.Session() as session:
        assert session.post(base, json={"a": [1, 2]}, timeout=20).json() == {"a": [1, 2]}
        assert session.post(base, data=(BODY for _ in range(3)), timeout=20).content == BODY * 3
        with session.get(f"{base}/stream", stream=True, timeout=20) as answer:
            assert [line for line in answer.iter_lines() if line][-1] == b"data: 99"
        refused = session.post(base, data=bytes(20_000_000), timeout=20)
        assert (refused.status_code, refused.headers["connection"]) == (413, "close")
        assert refused.json()["error"].startswith("the request body has 20000000 bytes")
        assert session.get(base, timeout=20).content == b""


def test_requests_from_many_threads(server: Thread) -> None:
    """Sixteen threads with a session each get the answers to their own requests."""

    def work(number: int) -> int:
        with requests.Session() as session:
            for turn in range(25):
                body = f"{number}/{turn}/".encode() * (1 if turn % 5 else 5000)
                assert session.post(f"http://127.0.0.1:{server.port}/", data=body, timeout=20).content == body
        return number

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(work, range(16))) == list(range(16))


def test_httpx(server: Thread) -> None:
    """httpx keeps its pool through bodies and streams."""
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=20) as client:
        for _ in range(3):
            assert client.post("/", content=BODY).content == BODY
            with client.stream("GET", "/stream") as answer:
                assert len([line for line in answer.iter_lines() if line]) == 100


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Make a certificate authority."""
    return trustme.CA()


def contexts(authority: trustme.CA) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the contexts of a server and of a client that trusts it."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("app", [echo, Eager(echo)])
def test_tls(loop: str, app: object, authority: trustme.CA) -> None:
    """Over TLS the same is served: large bodies both ways, pipelining, refusals with unread bodies, 503 and draining."""

    async def test() -> None:
        tls, trust = contexts(authority)
        limits = HttpLimits(max_body_bytes=2_000_000, max_connections=2, linger_s=0.5)
        async with serving(app, serve_tls=tls, trust=trust, limits=limits) as live:  # type: ignore[arg-type]  # both kinds
            client = await live.client()
            assert (await client.request("POST", "/", BODY)).body == b"POST / " + BODY
            client.write(b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n")
            assert [(await client.answer()).body for _ in range(2)] == [b"GET /1 ", b"GET /2 "]
            refused = await live.client()
            refused.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n" + bytes(9_000_000))
            assert (await live.client()).reader is not None
            assert (await refused.answer()).status == 413
            await refused.close()
            assert (await client.request("GET", "/still")).body == b"GET /still "
            assert await live.server.drain(5) == 0

    run_on(loop, test())


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_tls_hang_up(loop: str, authority: trustme.CA) -> None:
    """A client that closes its TLS connection has hung up."""
    seen: list[str] = []

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        await receive()
        seen.append("waiting")
        seen.append((await receive())["type"])

    async def test() -> None:
        tls, trust = contexts(authority)
        async with serving(app, serve_tls=tls, trust=trust) as live:
            client = await live.raw(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            while not seen:
                await asyncio.sleep(0)
            await client.close()
            while len(seen) < 2:
                await asyncio.sleep(0)

    run_on(loop, test())
    assert seen == ["waiting", "http.disconnect"]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_plain_http_on_a_tls_port(loop: str, authority: trustme.CA) -> None:
    """A client that speaks no TLS is dropped, and the next one is served."""

    async def test() -> None:
        tls, trust = contexts(authority)
        async with serving(echo, serve_tls=tls, trust=trust) as live:
            reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"HTTP/" not in await reader.read()
            writer.close()
            assert (await (await live.client()).request("GET", "/")).status == 200

    run_on(loop, test())


def test_requests_over_tls(authority: trustme.CA, tmp_path: Path) -> None:
    """requests verifies the certificate; the scope says https."""
    tls, _ = contexts(authority)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    thread = Thread(mirror, tls)
    try:
        with requests.Session() as session:
            trust = str(tmp_path / "ca.pem")
            base = f"https://localhost:{thread.port}"
            assert session.get(f"{base}/scheme", timeout=20, verify=trust).text == "https"
            assert session.post(base, data=BODY, timeout=20, verify=trust).content == BODY
    finally:
        thread.close()


def test_bind_names_the_port_that_is_taken() -> None:
    """A second listener on a port fails with host and port in its text."""
    with bind("127.0.0.1", 0) as listener:
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {port}: the port is already in use"):
            bind("127.0.0.1", port)


def test_bind_shares_a_port() -> None:
    """With `reuse_port` several listeners, of several workers, share one port."""
    with bind("127.0.0.1", 0, reuse_port=True) as one, bind("127.0.0.1", one.getsockname()[1], reuse_port=True) as two:
        assert one.getsockname() == two.getsockname()


@pytest.mark.parametrize(
    ("host", "port", "text"),
    [("192.0.2.1", 0, "not one of this machine"), ("no-such-host.invalid", 0, "no-such-host.invalid"), ("127.0.0.1", 70_000, "70000")],
)
def test_bind_explains_what_is_wrong(host: str, port: int, text: str) -> None:
    """A host that is not here and a port that is none are refused with a text for people."""
    with pytest.raises(OSError, match=text):
        bind(host, port)


def has_ipv6() -> bool:
    """Tell whether this machine has an IPv6 loopback."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


BOTH = ["127.0.0.1", "::1"] if has_ipv6() else ["127.0.0.1"]
HOSTS = {"": BOTH, "0.0.0.0": ["127.0.0.1"], "localhost": BOTH[:1]} | ({"::": BOTH, "::1": ["::1"]} if has_ipv6() else {})


@pytest.mark.parametrize("host", HOSTS)
def test_bind_to_families(host: str) -> None:
    """No host, and the IPv6 wildcard, listen on both families; an address on its own."""

    async def test() -> None:
        listener = bind(host, 0)
        server = HttpServer(echo)
        await server.start([listener])
        port = listener.getsockname()[1]
        for address in HOSTS[host] if host != "localhost" else [listener.getsockname()[0]]:
            reader, writer = await asyncio.open_connection(address, port)
            writer.write(b"GET /x HTTP/1.0\r\n\r\n")
            assert (await reader.read()).endswith(b"GET /x ")
            writer.close()
        assert await server.drain(5) == 0

    run_on("asyncio", test())
