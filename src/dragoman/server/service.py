"""What all connections of one HTTP server share: the application, its limits, a coarse clock, small caches, and who is connected.

Made and ticked by `http.py`, read by `connection.py`, `reader.py` and `exchange.py` on every request.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

from dragoman.server.eager import Stepped
from dragoman.server.wire import (
    ErrorBody,
    HttpLimits,
    Message,
    OnResponse,
    Refusal,
    Scope,
    answer_prefix,
    header_line,
    http_date,
    json_error,
    split_target,
)

if TYPE_CHECKING:
    from dragoman.server.connection import Connection

log = logging.getLogger("dragoman.http")

Application = Callable[[Scope, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Coroutine[Any, Any, None]]

CACHED = 1024  # entries of a cache, which is emptied when it is full
CACHED_BYTES = 256  # longer keys are not kept


class Service:
    """The shared state.

    `now` and the Date header are as old as the last tick, so that a request costs no clock call. `now` stands still while the loop is
    blocked: clients are not blamed for what was not read.
    """

    __slots__ = (
        "_error_body",
        "_ticked",
        "app",
        "cancels",
        "connections",
        "draining",
        "eager",
        "empty",
        "limits",
        "lines",
        "loop",
        "now",
        "on_response",
        "prefixes",
        "stepped",
        "streams",
        "targets",
        "tasks",
    )

    def __init__(
        self,
        app: Application,
        limits: HttpLimits,
        error_body: ErrorBody,
        on_response: OnResponse | None,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.app = app
        self.eager: Callable[[Scope], bool] | None = getattr(app, "eager", None)
        self.cancels: Callable[[Scope], bool] | None = getattr(app, "cancels", None)
        self.streams: Callable[[str], bool] | None = getattr(app, "streams", None)
        self.limits = limits
        self._error_body = error_body
        self.on_response = on_response
        self.loop = loop
        self.connections: set[Connection] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.stepped: set[Stepped] = set()
        self.draining = False
        self.empty = asyncio.Event()
        self.empty.set()
        self.lines: dict[Any, bytes | int] = {}
        self.targets: dict[bytes, tuple[str, bytes, bytes]] = {}
        self.prefixes: dict[int, bytes] = {}
        self.now = self._ticked = loop.time()

    def tick(self, interval_s: float) -> None:
        """Renew clock and date, and end what has waited too long. To be called about every `interval_s`."""
        time = self.loop.time()
        self.now += min(time - self._ticked, 2 * interval_s)
        self._ticked = time
        self.prefixes.clear()
        for connection in [each for each in self.connections if each.deadline <= self.now or each.write_deadline <= self.now]:
            connection.expire()

    def prefix(self, status: int) -> bytes:
        """Return status line and Date header for a status that `prefixes` does not hold since the last tick."""
        line = self.prefixes[status] = answer_prefix(status, http_date())
        return line

    def words(self, refusal: Refusal, path: str) -> tuple[bytes, bytes]:
        """Return type and body of an error of the server's own."""
        try:
            return self._error_body(refusal.status, refusal.text, path)
        except Exception:
            log.exception("wording an error failed")
            return json_error(refusal.status, refusal.text, path)

    def line(self, header: tuple[bytes, bytes]) -> bytes | int:
        """Return what `header_line` makes of a header that `lines` does not hold."""
        name, value = header
        line = header_line(name, value)
        if len(value) <= CACHED_BYTES:
            if len(self.lines) >= CACHED:
                self.lines.clear()
            self.lines[header] = line
        return line

    def target(self, url: bytes) -> tuple[str, bytes, bytes]:
        """Return what `split_target` makes of a target that `targets` does not hold. Raises ValueError as it does."""
        target = split_target(url)
        if len(url) <= CACHED_BYTES:
            if len(self.targets) >= CACHED:
                self.targets.clear()
            self.targets[url] = target
        return target

    def add(self, connection: "Connection") -> None:
        """Count a connection in."""
        self.connections.add(connection)
        self.empty.clear()

    def discard(self, connection: "Connection") -> None:
        """Count a connection out."""
        self.connections.discard(connection)
        if not self.connections:
            self.empty.set()
