"""Request ids and W3C trace context: read, checked, echoed, and put into log records. Wraps the application; called by the HTTP server.

A request that brings neither, on a server without access log, costs one look at its headers and nothing else. Traces of what happens inside
a model are another thing: see serving/tracing.py.
"""

import re
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeAlias

from dragoman.dialects import Receive, Scope

Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]

IDS_KEY = "dragoman.ids"
"""Where a request's scope has its Ids."""
_WANTED = frozenset({b"x-request-id", b"traceparent"})
_REQUEST_ID = re.compile(rb"[!-~]{1,128}")
_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_PASSED_ON = 0x03
"""Flags that a server hands on: sampled, and that the trace id is random."""


@dataclass(slots=True)
class Ids:
    """What a request is known by. Empty text stands for what it has not. `span_id` is this server's part of the trace."""

    request_id: str = ""
    trace_id: str = ""
    span_id: str = ""
    flags: int = 0

    def headers(self) -> list[tuple[bytes, bytes]]:
        """What the answer says of it."""
        found = []
        if self.request_id:
            found.append((b"x-request-id", self.request_id.encode()))
        if self.trace_id:
            found.append((b"traceparent", f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}".encode()))
        return found


CURRENT: ContextVar[Ids | None] = ContextVar("dragoman-ids", default=None)
"""The ids of the request that is being answered, for log records."""


def identify(headers: Iterable[tuple[bytes, bytes]], *, always: bool = False) -> Ids | None:
    """Read the ids of a request; None when it has none and needs none.

    A request id that is too long or has other than visible ASCII characters is replaced by a new one; a trace context that breaks its
    rules, or comes twice, is as good as none. With `always` every request gets a request id.
    """
    ids = Ids() if always else None
    parents = 0
    for name, value in headers:
        if name not in _WANTED:
            continue
        ids = ids or Ids()
        if name == b"traceparent":
            parents += 1
            _join_trace(ids, value)
        elif not ids.request_id:
            ids.request_id = value.decode() if _REQUEST_ID.fullmatch(value) else secrets.token_hex(16)
    if ids is None:
        return None
    if parents > 1:
        ids.trace_id = ids.span_id = ""
    if always and not ids.request_id:
        ids.request_id = secrets.token_hex(16)
    return ids if ids.request_id or ids.trace_id else None


def _join_trace(ids: Ids, value: bytes) -> None:
    found = _TRACEPARENT.fullmatch(value)
    if found is None:
        return
    version, trace_id, parent_id, flags, rest = found.groups()
    if version == b"ff" or (version == b"00" and rest is not None) or not trace_id.strip(b"0") or not parent_id.strip(b"0"):
        return
    ids.trace_id = trace_id.decode()
    ids.flags = int(flags, 16) & _PASSED_ON
    ids.span_id = secrets.token_hex(8)
    while not ids.span_id.strip("0"):
        ids.span_id = secrets.token_hex(8)


class Identified:
    """The application with ids around it. `eager` says whether the application may run without a task, as the HTTP server asks it.

    Where a request has ids it gets a task, so that its log records know them and nobody else's do.
    """

    def __init__(self, app: Application, *, eager: Callable[[Scope], bool] | None = None, always: bool = False) -> None:
        self._app = app
        self._app_eager = eager
        self._always = always

    def eager(self, scope: Scope) -> bool:
        return self._app_eager is not None and self._app_eager(scope) and not self._always and self._ids(scope) is None

    def cancels(self, scope: Scope) -> bool:
        """As the application says: with or without ids."""
        ask: Callable[[Scope], bool] | None = getattr(self._app, "cancels", None)
        return ask is not None and ask(scope)

    def streams(self, path: str) -> bool:
        """As the application says."""
        ask: Callable[[str], bool] | None = getattr(self._app, "streams", None)
        return ask is not None and ask(path)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        ids = self._ids(scope) if scope["type"] == "http" else None
        return self._app(scope, receive, send) if ids is None else self._answer(ids, scope, receive, send)

    def _ids(self, scope: Scope) -> Ids | None:
        if IDS_KEY in scope:
            known: Ids | None = scope[IDS_KEY]
            return known
        ids = scope[IDS_KEY] = identify(scope["headers"], always=self._always)
        return ids

    async def _answer(self, ids: Ids, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_ids(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *ids.headers()]}
            await send(message)

        CURRENT.set(ids)
        try:
            await self._app(scope, receive, send_with_ids)
        finally:
            CURRENT.set(None)
