"""The dialect seam: what a protocol module offers and what it is given. Called by server/app.py; every dialect imports its types from here.

A dialect owns its URLs, its wire format and its table of error answers. It never sees a socket: it gets a Request and returns an Answer.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol, TypeAlias
from urllib.parse import unquote_to_bytes

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.serving.artifact_folder import ArtifactFolder
from dragoman.serving.catalog import Catalog
from dragoman.serving.deployments import Deployments
from dragoman.serving.fetch_policy import FetchPolicy
from dragoman.serving.gateway import Gateway
from dragoman.serving.gradient.service import GradientDeployments
from dragoman.serving.jobs.accounts import Accounts
from dragoman.serving.jobs.code import Code
from dragoman.serving.jobs.data_sets import DataSets
from dragoman.serving.jobs.service import Jobs
from dragoman.serving.log_settings import LogSettings
from dragoman.serving.meters import Meters
from dragoman.serving.operations import Operations
from dragoman.serving.predictions import Predictions
from dragoman.serving.records.settings import RecordSettings
from dragoman.serving.registry import Registry
from dragoman.serving.trace_settings import TraceSettings
from dragoman.serving.tracking import Tracking
from dragoman.serving.uploads import Uploads

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Headers: TypeAlias = Iterable[tuple[bytes, bytes]]


CALLER = "dragoman.caller"
"""Where the server leaves in the scope whose API key a request was made with."""

ACCOUNT = "dragoman.account"
"""Where it leaves that this is no key but somebody's account, who sees what is theirs: for as long as the request takes, whatever is changed."""

PINNED = "dragoman.pinned"
"""Where it leaves the model and version below whose prefix a request came (see prefixes.py)."""

SHARED = "dragoman.shared"
"""Where a dialect says that, with --cors, web pages may read every answer to a request and not only those of inference."""


class Access(Enum):
    """What a caller must be allowed to do for a route."""

    PUBLIC = "public"
    """Health, metadata, statistics: anyone who can connect."""
    INFER = "infer"
    JOBS = "jobs"
    """People's own jobs, data and code: with accounts, or keys in force, only for those who have one."""
    ADMIN = "admin"
    """Whatever changes the server's state."""


class Request:
    """One HTTP request. `path` is percent-decoded, `raw_path` as it came; header names are lower-case bytes."""

    __slots__ = ("_body", "_complete", "_receive", "_size", "max_body", "method", "path", "scope")

    def __init__(self, scope: Scope, receive: Receive, max_body: int) -> None:
        self.scope = scope
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.max_body = max_body
        self._receive = receive
        self._body: bytes | None = None
        self._complete = False
        self._size = 0

    def header(self, name: bytes) -> bytes | None:
        """The first header of that lower-case name."""
        headers: Headers = self.scope["headers"]
        for key, value in headers:
            if key == name:
                return value
        return None

    @property
    def raw_path(self) -> bytes:
        raw: bytes | None = self.scope.get("raw_path")
        return raw if raw is not None else self.path.encode()

    @property
    def caller(self) -> str:
        """The name of the API key that admitted the request, "" for none."""
        caller: str = self.scope.get(CALLER, "")
        return caller

    @property
    def pinned(self) -> tuple[str, str] | None:
        """Model and version ("" for any) below whose prefix the request came; None for one at the root."""
        pinned: tuple[str, str] | None = self.scope.get(PINNED)
        return pinned

    @property
    def query(self) -> bytes:
        query: bytes = self.scope.get("query_string", b"")
        return query

    async def body(self) -> bytes:
        """The whole body as it was sent. Raises TOO_LARGE above the server's limit, CANCELLED when the client went away."""
        if self._body is None:
            chunks: list[bytes] = []
            while not self._complete:
                chunks.append(self._taken(await self._receive()))
            self._body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        return self._body

    async def read(self) -> bytes:
        """The next piece of the body, b"" when it has ended: for bodies that are not to be in memory whole. Raises like `body`.

        Who reads pieces does not ask for the body.
        """
        chunk = b""
        while not chunk and not self._complete:
            chunk = self._taken(await self._receive())
        return chunk

    async def pieces(self, most: int | None = None) -> AsyncGenerator[bytes, None]:
        """The body as it comes, to its end. Raises like `body`; `most` takes the place of the server's limit, for who has one of their own."""
        if most is not None:
            self.max_body = most
        while piece := await self.read():
            yield piece

    def _taken(self, message: MutableMapping[str, Any]) -> bytes:
        if message["type"] == "http.disconnect":
            raise ServingError(Kind.CANCELLED, "the client closed the connection before its request was complete")
        chunk: bytes = message.get("body", b"")
        self._size += len(chunk)
        if self._size > self.max_body:
            raise ServingError(Kind.TOO_LARGE, f"the request body is larger than the limit of {self.max_body} bytes", what="body")
        self._complete = not message.get("more_body", False)
        return chunk


@dataclass(slots=True)
class Answer:
    """What goes back. `body` is bytes, or an async iterator for streams (its first item is awaited before the status is sent)."""

    status: int = 200
    body: bytes | AsyncGenerator[bytes, None] = b""
    media_type: bytes = b"application/json"
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)


Handler: TypeAlias = Callable[..., Awaitable[Answer]]


@dataclass(slots=True)
class Route:
    """The outcome of matching: who handles it, with which pieces of the path, and who may call it."""

    handler: Handler
    access: Access
    args: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """Facts about this server that dialects report."""

    name: str
    version: str


@dataclass(slots=True)
class Services:
    """What a dialect may call."""

    gateway: Gateway
    registry: Registry
    operations: Operations
    meters: Meters
    info: ServerInfo
    extensions: tuple[str, ...] = ()
    """Open Inference Protocol extensions that this server has, as its metadata lists them."""
    max_inflated: int = 100 << 20
    """Bytes that a compressed request body may inflate to."""
    check_methods: bool = False
    """Whether TensorFlow Serving's calls refuse signatures that name another method than theirs."""
    log_settings: LogSettings = field(default_factory=LogSettings)
    trace_settings: TraceSettings = field(default_factory=TraceSettings)
    record_settings: RecordSettings = field(default_factory=RecordSettings)
    """What is recorded of requests for monitoring, and where."""
    public_url: str = ""
    """Scheme and authority (and path) that clients reach this server by, "" where it is what they use."""
    fetching: FetchPolicy = field(default_factory=FetchPolicy)
    """What requests may make the server read, for data_urls.py and fetch.py."""
    streams: Callable[[], list[dict[str, Any]]] = list
    """How the streams of all workers are: one row each."""
    jobs: Jobs | None = None
    """None where this server runs no jobs, as are `code` and `data_sets`."""
    code: Code | None = None
    data_sets: DataSets | None = None
    accounts: Accounts = field(default_factory=Accounts)
    """The people whose jobs run here, where they are told apart."""
    predictions: Predictions = field(kw_only=True)
    uploads: Uploads = field(kw_only=True)
    catalog: Catalog = field(kw_only=True)
    deployments: Deployments = field(kw_only=True)
    gradient: GradientDeployments = field(kw_only=True)
    artifacts: ArtifactFolder = field(kw_only=True)
    tracking: Tracking = field(kw_only=True)


class Dialect(Protocol):
    """One serving protocol. `prefixes` are the paths it answers for: whole segments, longest match wins ("/v2", "/api/v1/serve")."""

    name: str
    prefixes: tuple[str, ...]

    def route(self, request: Request) -> Route:
        """Match method and path; nothing is read or awaited. Raises ServingError (NOT_FOUND, or UNSUPPORTED what="method") for no match."""
        ...

    def refuse(self, request: Request, error: ServingError) -> Answer:
        """The answer to an error, in this dialect's words. Total: every Kind has one. Also called for errors outside of a handler."""
        ...


def path_text(part: bytes) -> str:
    """A piece of a path as it was sent, percent-decoded: an encoded slash belongs to it. What is no UTF-8 is replaced."""
    return (unquote_to_bytes(part) if b"%" in part else part).decode("utf-8", "replace")


def path_error(request: Request) -> ServingError:
    """The usual error for a path that no route has."""
    return ServingError(Kind.NOT_FOUND, f"there is nothing at {request.path[:200]}", what="path")


def method_error(request: Request, allowed: Iterable[str]) -> ServingError:
    """The usual error for a path that exists, but not with this method."""
    return ServingError(
        Kind.UNSUPPORTED, f"{request.method} is not possible at {request.path[:200]}; use {' or '.join(allowed)}", what="method"
    )


def chosen(request: Request, methods: Mapping[str, Route]) -> Route:
    """The route of a path that has these, by method; HEAD is answered as GET is. Raises the errors above, for a path that has none, too."""
    route = methods.get("GET" if request.method == "HEAD" else request.method)
    if route is None:
        raise method_error(request, methods) if methods else path_error(request)
    return route


def check_table(table: Mapping[Kind, Any]) -> None:
    """A dialect's error table must have every kind; called when its module is imported, so that a gap cannot reach a user."""
    missing = [kind.name for kind in Kind if kind not in table]
    if missing:
        raise TypeError(f"an error table lacks {', '.join(missing)}")


USUAL_STATUS: Mapping[Kind, int] = {
    Kind.INVALID_INPUT: 400,
    Kind.NOT_FOUND: 404,
    Kind.NOT_READY: 503,
    Kind.CONFLICT: 409,
    Kind.OVERLOADED: 503,
    Kind.TIMEOUT: 504,
    Kind.CANCELLED: 499,
    Kind.MODEL_FAILED: 500,
    Kind.UNSUPPORTED: 501,
    Kind.UNAVAILABLE: 503,
    Kind.TOO_LARGE: 413,
    Kind.UNAUTHENTICATED: 401,
    Kind.FORBIDDEN: 403,
    Kind.INTERNAL: 500,
}
"""HTTP statuses for pages that belong to no protocol; a protocol has a table of its own."""
check_table(USUAL_STATUS)


__all__ = [
    "ACCOUNT",
    "CALLER",
    "PINNED",
    "SHARED",
    "USUAL_STATUS",
    "Access",
    "Answer",
    "Dialect",
    "Handler",
    "Receive",
    "Request",
    "Route",
    "Scope",
    "ServerInfo",
    "Services",
    "check_table",
    "chosen",
    "invalid",
    "method_error",
    "path_error",
    "path_text",
]
