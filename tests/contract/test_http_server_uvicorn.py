"""One application behind our HTTP server and behind uvicorn: a client sees the same answers, an application the same scope and messages."""

import asyncio
import http.client
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from dragoman.server.http import HttpServer, bind
from tests.e2e.live_http import Eager, Receive, Scope, Send

OURS = {"asgi", "client", "server", "extensions", "state"}  # differ by connection, or are extras of one of the two


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer in many ways, by path."""
    body = b""
    messages = 0
    while True:
        message = await receive()
        messages += 1
        body += message["body"]
        if not message["more_body"]:
            break
    status = 200
    headers: list[tuple[bytes, bytes]] = [(b"content-type", b"text/plain")]
    path = scope["path"]
    if path == "/scope":
        shown = {key: value for key, value in scope.items() if key not in OURS}
        pieces = [json.dumps(shown, default=lambda value: value.decode("latin-1"), sort_keys=True).encode()]
    elif path == "/stream":
        pieces = [b"one", b"", b"two", b"x" * 100_000]
    elif path == "/length":
        headers.append((b"content-length", b"6"))
        pieces = [b"abc", b"def"]
    elif path == "/status":
        status = int(scope["query_string"])
        pieces = [b""]
    elif path == "/headers":
        headers += [(b"X-Upper", b"1"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
        pieces = [b""]
    elif path == "/fail":
        raise LookupError("secret")
    else:
        headers.append((b"content-length", str(len(body)).encode()))
        pieces = [body]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    for number, piece in enumerate(pieces, 1):
        await send({"type": "http.response.body", "body": piece, "more_body": number < len(pieces)})


class Uvicorn:
    """uvicorn in a thread."""

    def __init__(self) -> None:
        """Start serving."""
        config = uvicorn.Config(application, http="httptools", loop="uvloop", lifespan="off", access_log=False, log_level="critical")
        self._server = uvicorn.Server(config)
        listener = bind("127.0.0.1", 0)
        listener.listen()  # so that a client that is quicker than uvicorn waits
        self.port = listener.getsockname()[1]
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]})
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        self._server.should_exit = True
        self._thread.join(20)


class Ours:
    """Our server in a thread."""

    def __init__(self, app: Any) -> None:
        """Start serving."""
        self._loop = asyncio.new_event_loop()
        self._server = HttpServer(app)
        listener = bind("127.0.0.1", 0)
        self.port = listener.getsockname()[1]
        self._loop.run_until_complete(self._server.start([listener]))
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        asyncio.run_coroutine_threadsafe(self._server.drain(5), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
        self._loop.close()


@pytest.fixture(scope="module")
def theirs() -> Iterator[Uvicorn]:
    """Serve behind uvicorn."""
    server = Uvicorn()
    yield server
    server.close()


@pytest.fixture(scope="module", params=["tasks", "eager"])
def ours(request: pytest.FixtureRequest) -> Iterator[Ours]:
    """Serve behind our server."""
    server = Ours(application if request.param == "tasks" else Eager(application))
    yield server
    server.close()


Request = tuple[str, str, Any, dict[str, str]]
REQUESTS: dict[str, Request] = {
    "get": ("GET", "/", None, {}),
    "post": ("POST", "/", b"hello", {}),
    "empty post": ("POST", "/", b"", {}),
    "large post": ("POST", "/", b"0123456789" * 150_000, {}),
    "chunked post": ("POST", "/", [b"a" * 10, b"b" * 70_000, b"c"], {"Transfer-Encoding": "chunked"}),
    "put": ("PUT", "/", b"x", {"Content-Type": "application/json"}),
    "delete": ("DELETE", "/", None, {}),
    "options": ("OPTIONS", "/", None, {"Origin": "http://other"}),
    "patch": ("PATCH", "/", b"{}", {}),
    "scope": ("GET", "/scope", None, {"X-One": "1", "x-two": "zwei"}),
    "scope with query": ("GET", "/scope?a=1&b=%20&c", None, {}),
    "scope with escapes": ("GET", "/scope", None, {"Accept": "*/*", "Authorization": "Bearer x"}),
    "encoded path": ("GET", "/sc%6Fpe?x", None, {}),
    "stream": ("GET", "/stream", None, {}),
    "head": ("HEAD", "/", None, {}),
    "head of a stream": ("HEAD", "/stream", None, {}),
    "head with length": ("HEAD", "/length", None, {}),
    "length and pieces": ("GET", "/length", None, {}),
    "204": ("GET", "/status?204", None, {}),
    "304": ("GET", "/status?304", None, {}),
    "404": ("GET", "/status?404", None, {}),
    "503": ("GET", "/status?503", None, {}),
    "headers": ("GET", "/headers", None, {}),
    "close": ("POST", "/", b"bye", {"Connection": "close"}),
    "upgrade": ("GET", "/", None, {"Connection": "Upgrade", "Upgrade": "h2c"}),
    "expect": ("POST", "/", b"please", {"Expect": "100-continue"}),
}


def ask(port: int, request: Request) -> tuple[Any, ...]:
    """Send a request twice on one connection; return what a client can see of both answers."""
    method, target, body, headers = request
    seen = []
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    for _ in range(2):
        client.request(method, target, iter(body) if isinstance(body, list) else body, headers, encode_chunked=isinstance(body, list))
        answer = client.getresponse()
        shown = sorted((name.lower(), value) for name, value in answer.getheaders() if name.lower() not in ("date", "server"))
        seen.append((answer.status, answer.reason, shown, answer.read().replace(str(port).encode(), b"PORT"), answer.will_close))
    client.close()
    return tuple(seen)


@pytest.mark.parametrize("name", REQUESTS)
def test_answers_are_the_same(name: str, ours: Ours, theirs: Uvicorn) -> None:
    """Status, reason, headers, body and the fate of the connection are what uvicorn gives.

    But for two freedoms: a body in one piece whose length the application does not say is chunked by uvicorn and has a length from us, and
    a HEAD answer need not say that its body would be chunked.
    """
    mine, other = ask(ours.port, REQUESTS[name]), ask(theirs.port, REQUESTS[name])
    chunked = ("transfer-encoding", "chunked")
    for one, two in zip(mine, other, strict=True):
        if REQUESTS[name][0] == "HEAD" and chunked in one[2]:
            one[2].remove(chunked)
        elif chunked in two[2] and chunked not in one[2]:
            two[2].remove(chunked)
            one[2][:] = [line for line in one[2] if line[0] != "content-length"]
    assert mine == other


def test_a_failing_application(ours: Ours, theirs: Uvicorn) -> None:
    """Both answer 500 without saying why, each in its own words, and go on."""
    mine, other = ask(ours.port, ("GET", "/fail", None, {})), ask(theirs.port, ("GET", "/fail", None, {}))
    assert [each[:2] for each in mine] == [each[:2] for each in other] == [(500, "Internal Server Error")] * 2
    assert b"secret" not in mine[0][3]
