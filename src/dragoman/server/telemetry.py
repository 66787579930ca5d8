"""The metrics page, and the pulse that keeps what workers know of each other fresh. Made by the worker; the page is a dialect like any other.

The page is made from counters that all workers share, so it does not matter which worker a scrape reaches.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from dragoman.core.errors import ServingError
from dragoman.dialects import USUAL_STATUS, Access, Answer, Receive, Request, Route, Scope, method_error, path_error
from dragoman.server import vitals
from dragoman.server.app import App, Send
from dragoman.server.exposition import MEDIA_TYPE
from dragoman.server.metrics import Unfinished, exposition
from dragoman.serving.gateway import Gateway
from dragoman.serving.jobs.metering import Metering
from dragoman.serving.live_settings import LiveSettings
from dragoman.serving.meters import Meters
from dragoman.serving.tracing import Tracer

log = logging.getLogger("dragoman")

PATH = "/metrics"
_PERIOD_S = 1.0
_STORE_S = 2.0
"""A page does not wait longer for the store of predictions."""


class Telemetry:
    """`version` is the server's; `unfinished` counts predictions, and may raise a ServingError. `path` is a second one for the page, "" for none.

    Whoever makes it runs `pulse` as a task of its own, and calls `close` after that has ended.
    """

    name: str = "metrics"

    def __init__(
        self,
        meters: Meters,
        gateway: Gateway,
        tracer: Tracer,
        live: LiveSettings,
        version: str,
        unfinished: Callable[[], Awaitable[Unfinished]],
        path: str = "",
        streams: Callable[[], list[dict[str, Any]]] = list,
        jobs: Callable[[], Awaitable[Metering | None]] | None = None,
    ) -> None:
        self.prefixes: tuple[str, ...] = tuple(dict.fromkeys([PATH, path.rstrip("/") or PATH]))
        self._meters = meters
        self._gateway = gateway
        self._tracer = tracer
        self._live = live
        self._version = version
        self._unfinished = unfinished
        self._streams = streams
        self._jobs = jobs
        self._processor = vitals.Processor()
        self._one_at_a_time = asyncio.Lock()

    # --- the page ---

    def route(self, request: Request) -> Route:
        if request.path.rstrip("/") not in self.prefixes:
            raise path_error(request)
        if request.method not in ("GET", "HEAD"):
            raise method_error(request, ["GET"])
        return Route(self._page, Access.PUBLIC)

    def refuse(self, request: Request, error: ServingError) -> Answer:
        status = 405 if error.what == "method" else USUAL_STATUS[error.kind]
        headers = [(b"allow", b"GET, HEAD")] if status == 405 else []
        return Answer(status, (error.message + "\n").encode("utf-8", "replace"), b"text/plain; charset=utf-8", headers)

    async def _page(self, request: Request) -> Answer:
        return Answer(200, await self.page(), MEDIA_TYPE)

    async def page(self) -> bytes:
        """The metrics of all workers. Made in a thread, one at a time: with many models it takes milliseconds."""
        self._refresh()
        async with self._one_at_a_time:
            unfinished: Unfinished | None = None
            jobs: Metering | None = None
            try:
                async with asyncio.timeout(_STORE_S):
                    unfinished = await self._unfinished()
                    jobs = await self._jobs() if self._jobs is not None else None
            except (ServingError, TimeoutError):
                pass  # a store that is down is in the log; everything else is still to be seen
            return await asyncio.to_thread(self._make, unfinished, jobs)

    def _make(self, unfinished: Unfinished | None, jobs: Metering | None) -> bytes:
        load = self._processor.utilization
        return exposition(self._meters.read(), self._version, load, vitals.of_machine(), unfinished, self._streams(), jobs)

    # --- the pulse ---

    async def pulse(self, period_s: float = _PERIOD_S) -> None:
        """Until cancelled: show this worker's gauges, obey settings that another worker changed, write traces."""
        while True:
            try:
                self._refresh()
                self._processor.look()
                self._live.refresh()
                due = self._tracer.take()
                if due:
                    await asyncio.to_thread(self._tracer.write, due)
            except Exception:  # the pulse is what the other workers see of this one: it goes on
                log.exception("a round of the pulse failed")
            await asyncio.sleep(period_s)

    async def close(self) -> None:
        """Write the traces that are left; the gauges of this worker go, its counts stay."""
        await asyncio.to_thread(self._tracer.write, self._tracer.take(everything=True))
        self._meters.close()

    def _refresh(self) -> None:
        self._meters.refresh(self._gateway.gauges(), vitals.of_process())


class MetricsOnly:
    """The application of a port that only scrapers reach: the pages of metrics, and 404 for everything else."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._app.dialect_of(scope["path"]).name == Telemetry.name:
            await self._app(scope, receive, send)
            return
        text = b"this port has metrics and nothing else\n"
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(text)).encode())]
        await send({"type": "http.response.start", "status": 404, "headers": headers})
        await send({"type": "http.response.body", "body": text})
