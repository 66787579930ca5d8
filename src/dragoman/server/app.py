"""The ASGI application: one request from first byte of the head to last byte of the answer, read top to bottom. Called by the HTTP server.

It finds the dialect by path, asks it for a route, checks access, calls the handler, and turns whatever happened into an answer in that
dialect's words. No framework: the paths are few and fixed, and a routing framework costs more than a small model.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any
from urllib.parse import unquote_to_bytes

from dragoman.core.errors import Kind, ServingError
from dragoman.dialects import PINNED, Access, Answer, Dialect, Receive, Request, Scope, prefixes
from dragoman.server.guard import Guard

log = logging.getLogger("dragoman.http")

Send = Callable[[dict[str, Any]], Awaitable[None]]

_EAGER_ENDINGS = ("/infer", ":predict", "/predict", "/predictions", "/invocations", "/infer_dict", "/predict_dict")
"""Paths whose handlers never look at the current task, so that the HTTP server may run their first step without one."""

_ADMITTED = (Access.ADMIN, Access.JOBS)

_REGISTRIES = ("/api/v1/", "/api/2.0/", "//api/v1/", "/expose/")
"""Below them paths end in names that people gave, to models and files: such an ending says nothing there."""

_UPLOADS = ("api/v1/modules", "api/v1/upload/")
"""Where jobs' code and data come in, which have limits of their own."""

_POLLED = len("/predictions/") + 32
"""The length of the path of one prediction at the root."""

_CANCELLED_ENDINGS = (
    *("/infer", ":predict", "/predict", "/generate", "/generate_stream", ":classify", ":regress", "/events", "/invocations"),
    *("/infer_dict", "/predict_dict", "/explain"),
)
"""Paths whose work nobody needs once the client has left."""


class App:
    """`dialects` are asked by longest prefix; the one called "console" answers for every path that no prefix claims."""

    def __init__(self, dialects: Sequence[Dialect], guard: Guard, max_body: int) -> None:
        self._guard = guard
        self._max_body = max_body
        self._default = next(d for d in dialects if d.name == "console")
        self._by_segment: dict[str, list[tuple[str, Dialect]]] = {}
        for dialect in dialects:
            for prefix in dialect.prefixes:
                self._by_segment.setdefault(prefix.split("/", 2)[1], []).append((prefix, dialect))
        for claims in self._by_segment.values():
            claims.sort(key=lambda claim: len(claim[0]), reverse=True)

    @staticmethod
    def eager(scope: Scope) -> bool:
        """Whether the first step of this request may run outside of a task (see server/http.py)."""
        path: str = scope["path"]
        if path.endswith(_EAGER_ENDINGS):
            return not path.startswith(_REGISTRIES)
        # A poll, which is asked for many times per prediction; with a query it may wait, which needs a task.
        return len(path) == _POLLED and path.startswith("/predictions/") and not scope.get("query_string")

    @staticmethod
    def cancels(scope: Scope) -> bool:
        """Whether a client that hangs up ends its request: inference and long polls do, whatever changes the server goes on."""
        path: str = scope["path"]
        if prefixes.endpoint(path):
            return True
        return (path.endswith(_CANCELLED_ENDINGS) and not path.startswith(_REGISTRIES)) or (
            scope.get("method") == "GET" and b"wait=" in scope.get("query_string", b"") and not path.endswith("/cancel")
        )

    @staticmethod
    def streams(path: str) -> bool:
        """Whether what is sent there is passed on as it comes, whatever its size: to a job's own program, or to the disk."""
        return prefixes.endpoint(path) or path.lstrip("/").startswith(_UPLOADS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise TypeError(f"this application answers http, not {scope['type']}")
        astray: ServingError | None = None
        if prefixes.possible(scope["path"]):
            scope, astray = _without_prefix(scope)
        request = Request(scope, receive, self._max_body)
        dialect = self._owner(request.path)
        try:
            if astray is not None:
                raise astray
            if (
                request.method == "OPTIONS"
                and not prefixes.endpoint(request.path)
                and (preflight := self._guard.preflight(request, lambda: dialect.route(request))) is not None
            ):
                answer = preflight
            else:
                route = dialect.route(request)
                if self._guard.locked:
                    await self._guard.open(scope["headers"])
                if self._guard.active or route.access in _ADMITTED:
                    self._guard.admit(request, route.access)
                answer = await route.handler(request, *route.args)
            # A stream that fails before its first item is still an ordinary error: nothing has been sent.
            first = b"" if isinstance(answer.body, bytes) else await anext(answer.body, b"")
        except ServingError as error:
            answer = self._refuse(dialect, request, error)
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            answer = self._refuse(dialect, request, ServingError(Kind.INTERNAL, "internal error"))
        body = answer.body
        self._guard.decorate(request, answer)
        headers = [(b"content-type", answer.media_type), *answer.headers] if answer.media_type else answer.headers
        if isinstance(body, bytes):
            headers.append((b"content-length", str(len(body)).encode()))
            await send({"type": "http.response.start", "status": answer.status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        else:
            async with aclosing(body):  # also when the client leaves before the first item is sent
                await send({"type": "http.response.start", "status": answer.status, "headers": headers})
                await send({"type": "http.response.body", "body": first, "more_body": True})
                async for part in body:
                    await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    def dialect_of(self, path: str) -> Dialect:
        """Who answers for a path that a client sent: for errors that the HTTP server finds before there is a request."""
        if prefixes.possible(path):
            path = prefixes.rewritten(path.encode("utf-8", "replace")).decode("utf-8", "replace")
        return self._owner(path)

    def _owner(self, path: str) -> Dialect:
        for prefix, dialect in self._by_segment.get(path.split("/", 2)[1] if path.startswith("/") else "", ()):
            if path.startswith(prefix) and (len(path) == len(prefix) or path[len(prefix)] == "/"):
                return dialect
        lower = path.lower()  # TensorFlow Serving's paths are blind to case
        return self._default if lower == path else self._owner(lower)

    def _refuse(self, dialect: Dialect, request: Request, error: ServingError) -> Answer:
        if error.kind is Kind.MODEL_FAILED and error.__cause__ is not None:
            log.error("%s", error.message, exc_info=error.__cause__)
        answer = dialect.refuse(request, error)
        if error.retry_after_s is not None:
            answer.headers.append((b"retry-after", str(max(1, math.ceil(error.retry_after_s))).encode()))
        if error.kind is Kind.UNAUTHENTICATED:
            answer.headers.append((b"www-authenticate", b'Basic realm="deployment"' if error.what == "deployment" else b"Bearer"))
        return answer


def _without_prefix(scope: Scope) -> tuple[Scope, ServingError | None]:
    """The request at its protocol's own path, and the error where that leads away from its prefix.

    A copy: the access log goes on seeing what was sent.
    """
    sent: bytes = scope.get("raw_path") or scope["path"].encode("utf-8", "replace")
    place, raw = prefixes.pinned(sent), prefixes.rewritten(sent)
    if place is None or raw is sent:
        return scope, None
    astray = None
    if prefixes.astray(sent, raw):
        only = f"model '{place.name[:256]}'" + (f" version {place.version[:60]}" if place.version else "")
        text = f"there is nothing at {scope['path'][:200]}: below this prefix is {only}, and nothing else"
        astray = ServingError(Kind.NOT_FOUND, text, what="version")
    moved = {"path": unquote_to_bytes(raw).decode("utf-8", "replace"), "raw_path": raw, PINNED: (place.name, place.version)}
    return {**scope, **moved}, astray
