"""Calls the application as the HTTP server does, without a socket; and dialects that do what a test tells them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dragoman.core.errors import ServingError
from dragoman.dialects import Access, Answer, Dialect, Request, Route, method_error, path_error
from dragoman.server.app import App
from dragoman.server.guard import Guard
from dragoman.server.settings import Settings
from tests.servables import run

Do = Callable[[Request], Answer]


@dataclass
class Reply:
    """What was sent. `parts` are the bodies as they came."""

    messages: list[dict[str, Any]] = field(default_factory=list)

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def headers(self) -> Mapping[bytes, bytes]:
        found = dict(self.messages[0]["headers"])
        assert len(found) == len(self.messages[0]["headers"]), "a header came twice"
        return found

    @property
    def parts(self) -> list[bytes]:
        return [m["body"] for m in self.messages[1:]]

    @property
    def body(self) -> bytes:
        return b"".join(self.parts)


class Speaker:
    """A dialect that answers with its own name and the path, or does what it is told."""

    def __init__(self, name: str, *prefixes: str, do: Do | None = None, access: Access = Access.PUBLIC) -> None:
        self.name = name
        self.prefixes = prefixes
        self._do = do
        self._access = access

    def route(self, request: Request) -> Route:
        if request.path.endswith("/lost"):
            raise path_error(request)
        if request.method not in ("GET", "POST", "HEAD"):
            raise method_error(request, ["GET", "POST"])
        return Route(self._handle, self._access, ("an argument",))

    async def _handle(self, request: Request, argument: str) -> Answer:
        assert argument == "an argument"
        return self._do(request) if self._do is not None else Answer(200, f"{self.name} {request.path}".encode(), b"text/plain")

    def refuse(self, request: Request, error: ServingError) -> Answer:
        return Answer(444, f"{self.name}: {error.kind.name} {error.message}".encode(), b"text/plain")


def app(*dialects: Dialect, **settings: Any) -> App:
    others = [d for d in dialects if d.name != "console"]
    console = [d for d in dialects if d.name == "console"] or [Speaker("console", "/dragoman/v1")]
    return App([*others, *console], Guard(Settings(**settings)), max_body=100)


def doing(do: Do, access: Access = Access.PUBLIC, **settings: Any) -> App:
    """An application with one dialect at /v2 that does this."""
    return app(Speaker("v2", "/v2", do=do, access=access), **settings)


def call(
    app_: App,
    method: str = "GET",
    path: str = "/v2/models",
    headers: Mapping[str, str] | None = None,
    body: list[bytes] | None = None,
    gone_after: int = 99,
    unfinished: bool = False,
) -> Reply:
    """One request. The client is gone when that many messages were sent; an unfinished body never gets its end."""
    reply = Reply()
    pieces = iter(body or [b""])
    left = [len(body or [b""])]

    async def receive() -> dict[str, Any]:
        left[0] -= 1
        piece = next(pieces, None)
        return (
            {"type": "http.disconnect"}
            if piece is None
            else {"type": "http.request", "body": piece, "more_body": left[0] > 0 or unfinished}
        )

    async def send(message: dict[str, Any]) -> None:
        if len(reply.messages) >= gone_after:
            raise OSError("the client is gone")
        reply.messages.append(message)

    listed = [(k.encode(), v.encode()) for k, v in {"host": "127.0.0.1:3000", **(headers or {})}.items()]
    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"", "headers": listed}

    async def whole() -> None:
        await app_(scope, receive, send)

    run(whole)
    return reply


def raising(error: Exception) -> Do:
    """Something to do that fails."""

    def do(request: Request) -> Answer:
        raise error

    return do
