"""One worker: builds the parts, loads the targets, listens, and takes everything down again in reverse order.

Used by the command line (in its own process, or as one of several under the supervisor) and by dragoman.serve inside a program.
"""

import asyncio
import logging
import math
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dragoman import __version__
from dragoman.core.errors import Kind, ServingError
from dragoman.core.plugins import find, names
from dragoman.core.tensors import Signature
from dragoman.dialects import Dialect, Request, ServerInfo, Services
from dragoman.dialects.v2.rest import EXTENSIONS
from dragoman.server.app import App
from dragoman.server.elsewhere import artifacts_for_requests
from dragoman.server.guard import Guard
from dragoman.server.http import Application, HttpLimits, HttpServer, Peers
from dragoman.server.jobs import JobsPart
from dragoman.server.loading import Loaded, Progress
from dragoman.server.logs import AccessLog, log_settings
from dragoman.server.models import ModelsPart
from dragoman.server.recording import Records
from dragoman.server.settings import Settings
from dragoman.server.telemetry import MetricsOnly, Telemetry
from dragoman.server.tls import server_context
from dragoman.server.trace import Identified
from dragoman.serving.artifact_folder import ArtifactFolder
from dragoman.serving.catalog import Catalog
from dragoman.serving.data_urls import inputs_at
from dragoman.serving.deployments import Deployments
from dragoman.serving.doors import Doors
from dragoman.serving.fetch import FetchPolicy
from dragoman.serving.files import FileLimits, admit, resolve
from dragoman.serving.gateway import Gateway
from dragoman.serving.gradient.logs import LogHandler, Logs, attach, detach
from dragoman.serving.gradient.models import Models
from dragoman.serving.gradient.service import GradientDeployments
from dragoman.serving.jobs.accounts import Accounts
from dragoman.serving.late_store import LateStore
from dragoman.serving.live_settings import LiveSettings
from dragoman.serving.log_settings import LogSettings
from dragoman.serving.meters import Meters, Tally
from dragoman.serving.predictions import Limits, Parts, Predictions
from dragoman.serving.trace_settings import TraceSettings
from dragoman.serving.tracing import Tracer
from dragoman.serving.tracking import Tracking
from dragoman.serving.uploads import Uploads
from dragoman.serving.webhooks import Webhooks
from dragoman.store.sql import exists, open_store
from dragoman.streams.service import Streams

if TYPE_CHECKING:
    from dragoman.server.grpc import GrpcServer

log = logging.getLogger("dragoman")

_WHOLE_BODY = 8 << 20
"""Bodies up to this size are complete before a handler starts: handlers read them whole anyway, and images as JSON have some megabytes."""

_HELD = 1000
"""Predictions that one worker has in memory; those that wait behind them are in the store only."""


class Worker:
    """Make it on the event loop that will serve. `run_dir` is shared by the workers of one server, empty for a single one.

    `index` is this worker's place among them, `serial` a number that no worker of this server has or had. `keeper` is the socket of whoever
    keeps the model processes of all workers; without one this worker keeps its own. `run` names this start of the server.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        run_dir: str = "",
        index: int = 0,
        serial: int = 0,
        keeper: str = "",
        run: str = "",
    ) -> None:
        self.settings = settings
        shared = Path(run_dir) if run_dir else None
        self._peers = Peers(shared / "connections", index, settings.workers) if shared is not None else None
        live = LiveSettings(shared)
        logs = log_settings()
        logs.share(live)
        traces = TraceSettings(live)
        tracer = Tracer(traces, settings.data_path / "traces", serial)
        self.meters = Meters(shared, serial)
        fetching = FetchPolicy.parse(settings.allow_fetch, max_bytes=settings.max_file, timeout_s=settings.fetch_timeout)
        self._records = Records(settings, live, fetching, self.meters.tally, index)
        self.gateway = Gateway(self.meters, settings.timeout or math.inf, tracer, settings.max_inputs, self._records.recorder)
        self.gateway.starting = True
        self.gateway.lenient = settings.lenient_readiness
        opener = partial(open_store, settings.store_url)
        self.store = LateStore(opener, partial(exists, settings.store_url))
        self._models = models = ModelsPart(settings, self.store, opener, self.gateway, self.meters, shared=shared, keeper=keeper, run=run)
        self.registry = models.registry
        self.deployments = Deployments(self.store, self.registry, self.gateway)
        tracking = Tracking(self.store)
        self.catalog = self._catalog(tracking)
        self._deployment_logs = Logs(settings.data_path)
        self.gradient = GradientDeployments(
            self.store,
            self.registry,
            self.gateway,
            Models(self.catalog, self.deployments, models.origins),
            self._deployment_logs,
            grpc_port=settings.grpc_port[0] if settings.grpc_port else 0,
        )
        self.uploads = Uploads(settings.data_path / "uploads", max_file=settings.max_file, expiry_s=settings.upload_expiration)
        self.predictions = self._predictions(fetching)
        self.streams = Streams(
            settings.stream,
            self.gateway,
            self.store,
            index=index,
            shared=shared,
            model_wait_s=settings.model_wait,
            load=lambda url: inputs_at(url, fetching),
        )
        self._jobs = JobsPart(settings, self.store, index)
        self.telemetry = Telemetry(
            self.meters, self.gateway, tracer, live, __version__, self.predictions.unfinished, settings.monitoring_path,
            self.streams.report, self._jobs.metering,
        )  # fmt: skip
        accounts = Accounts(settings.data_path)
        self.services = self._services(logs, traces, fetching, tracking, accounts)
        self.dialects: list[Dialect] = [*(find("dialects", name)(self.services) for name in names("dialects")), self.telemetry]
        self._guard = Guard(settings, Doors(self.registry, self.gateway), accounts)
        self.app = App(self.dialects, self._guard, settings.max_body)
        self.asgi = Identified(self.app, eager=self.app.eager, always=settings.access_log)
        """The application as the world sees it: what a test client calls, too."""
        self._pulse: asyncio.Task[None] | None = None
        self._log_handler: LogHandler | None = None
        self._servers: list[HttpServer | GrpcServer] = []

    def _catalog(self, tracking: Tracking) -> Catalog:
        roots = self._models.roots
        return Catalog(
            self.store,
            roots,
            self.settings.data_path,
            after=self.deployments.follow,
            served=self.deployments.serving,
            logged=tracking.location,
            fetch=artifacts_for_requests(self.settings, roots).fetch,
        )

    def _services(
        self, logs: LogSettings, traces: TraceSettings, fetching: FetchPolicy, tracking: Tracking, accounts: Accounts
    ) -> Services:
        """What dialects may ask of this worker."""
        return Services(
            gateway=self.gateway,
            registry=self.registry,
            operations=self._models.operations(self.deployments),
            meters=self.meters,
            info=ServerInfo(self.settings.server_name, __version__),
            extensions=EXTENSIONS,
            log_settings=logs,
            trace_settings=traces,
            record_settings=self._records.settings,
            public_url=self.settings.public_url.rstrip("/"),
            check_methods=self.settings.check_signature_methods,
            fetching=fetching,
            streams=self.streams.report,
            jobs=self._jobs.jobs,
            code=self._jobs.code,
            data_sets=self._jobs.data_sets,
            predictions=self.predictions,
            uploads=self.uploads,
            catalog=self.catalog,
            deployments=self.deployments,
            gradient=self.gradient,
            artifacts=ArtifactFolder(self._models.roots.artifacts),
            tracking=tracking,
            accounts=accounts,
        )

    def _predictions(self, fetching: FetchPolicy) -> Predictions:
        settings = self.settings
        limits = Limits(
            waiting=settings.max_predictions,
            held=min(settings.max_predictions, _HELD),
            expiration_s=settings.result_expiration,
            run_timeout_s=settings.prediction_timeout or math.inf,
            model_wait_s=settings.model_wait,
        )
        files = FileLimits(max_file=settings.max_file, max_total=max(settings.max_file, settings.max_body))

        async def resolved(rows: Sequence[Any], signature: Signature) -> list[Any]:
            return await resolve(rows, signature, fetching, files, self.uploads)

        owners = settings.data_path / "owners"
        return Predictions(
            Parts(
                self.gateway,
                self.store,
                resolved,
                Webhooks(fetching),
                owners,
                limits,
                admit=lambda rows, signature: admit(rows, signature, files),
                tidy=self.uploads.sweep,
                alone=settings.alone,
                ended=lambda model, how: self.meters.tally(model, Tally(how.value)),
            )
        )

    async def serve(
        self, sockets: Sequence[socket.socket], progress: Progress = lambda _: None, listening: Callable[[], None] = lambda: None
    ) -> Loaded:
        """Load every target and listen: at once with --load background, otherwise when all have loaded or failed and one is ready.

        `listening` is called when the port is open before the models are there. Returns when loading has ended. When every target failed and
        the port was to wait for them, it does not listen.
        """
        background = self.settings.load == "background"
        if background:
            await self.listen(sockets)
            listening()
        loaded = await self.load(progress)
        if not background and not loaded.hopeless:
            await self.listen(sockets)
        return loaded

    async def load(self, progress: Progress = lambda _: None, *, deployed: bool = True) -> Loaded:
        """Load the targets and, with `deployed`, whatever is deployed in the store; one bad model does not stop the others."""
        self._log_handler = attach(self._deployment_logs)
        self._pulse = asyncio.get_running_loop().create_task(self.telemetry.pulse())
        self._records.start()
        await self.predictions.start()
        if deployed:
            await self._models.follow()
            await self._jobs.start()
        self.streams.start()
        return await self._models.load(progress)

    async def listen(self, sockets: Sequence[socket.socket]) -> None:
        """Answer on these sockets (see listeners.py): every dialect on each, but for the one for metrics only."""
        several = len(self.settings.port)
        await self._answer(sockets[:several], self.asgi, self._peers)
        if sockets[several:]:
            await self._answer(sockets[several:], MetricsOnly(self.app), None)
        if self.settings.grpc_port:
            from dragoman.server.grpc_listener import listen

            self._servers.append(await listen(self.settings, self.services, self._guard))

    async def _answer(self, sockets: Sequence[socket.socket], application: Application, peers: Peers | None) -> None:
        settings = self.settings
        limits = HttpLimits(
            buffer_bytes=min(_WHOLE_BODY, settings.max_body),
            max_body_bytes=settings.max_body,
            max_connections=settings.max_connections,
            keep_alive_timeout_s=settings.keep_alive,
        )
        server = HttpServer(
            application,
            limits=limits,
            error_body=self._error_body,
            on_response=AccessLog() if settings.access_log else None,
            peers=peers,
        )
        self._servers.append(server)
        await server.start(sockets, server_context(settings.tls_cert, settings.tls_key, settings.tls_client_ca))

    def _error_body(self, status: int, text: str, path: str) -> tuple[bytes, bytes]:
        """An error that the HTTP server found itself, in the words of whoever owns the path."""
        kind = {413: Kind.TOO_LARGE, 408: Kind.TIMEOUT, 503: Kind.OVERLOADED}.get(status, Kind.INVALID_INPUT)
        scope = {"method": "", "path": path, "headers": []}
        answer = self.app.dialect_of(path).refuse(Request(scope, _nothing, 0), ServingError(kind, text, what="body", status=status))
        assert isinstance(answer.body, bytes)
        return answer.media_type, answer.body

    async def close(self, *, abandoned: bool = False) -> None:
        """Drain: ready turns false, nothing new is accepted, requests in flight finish up to the time-out, then the models are closed.

        Predictions that run have that time, too; those that wait stay in the store for the next start. `abandoned`: the server was killed, and
        what lives on without one is left to the next.
        """
        self.gateway.draining = True
        end_s = time.monotonic() + self.settings.drain_timeout
        time_s = self.settings.drain_timeout
        drained, _, _ = await asyncio.gather(self._drain(), self.predictions.close(time_s), self.streams.drain(time_s))
        await self._jobs.close(abandoned=abandoned)
        if drained:
            log.warning("%d requests were still running after %g s and were broken off", drained, time_s)
        if self._pulse is not None:
            self._pulse.cancel()
            await asyncio.gather(self._pulse, return_exceptions=True)
        await self._records.close(end_s - time.monotonic())
        await self.telemetry.close()
        await self.gradient.close()
        await self.deployments.close()
        await self._models.close()
        await self.store.close()
        if self._log_handler is not None:
            detach(self._log_handler)

    async def _drain(self) -> int:
        return sum(await asyncio.gather(*(server.drain(self.settings.drain_timeout) for server in self._servers)))


async def _nothing() -> dict[str, Any]:
    return {"type": "http.disconnect"}
