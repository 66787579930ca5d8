"""One worker: builds the parts, loads the targets, listens, and takes everything down again in reverse order.

Used by the command line (in its own process, or as one of several under the supervisor) and by dragoman.serve inside a program.
"""

import asyncio
import json
import logging
import math
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from dragoman import __version__
from dragoman.core.errors import Kind, ServingError
from dragoman.core.lifecycle import State
from dragoman.core.model import BatchPolicy, ModelSpec, Servable
from dragoman.core.plugins import find, names
from dragoman.core.samples import instances, row_example, v2_inputs
from dragoman.core.tensors import Form, Signature
from dragoman.dialects import Dialect, Request, ServerInfo, Services
from dragoman.dialects.v2.rest import EXTENSIONS
from dragoman.engines import Context, Engines
from dragoman.engines.environment import FOLDER, Environments
from dragoman.server.app import App
from dragoman.server.guard import Guard
from dragoman.server.http import HttpLimits, HttpServer, Peers
from dragoman.server.logs import AccessLog, log_settings
from dragoman.server.settings import Settings
from dragoman.server.telemetry import Telemetry
from dragoman.server.tls import server_context
from dragoman.server.trace import Identified
from dragoman.serving.artifact_folder import ArtifactFolder
from dragoman.serving.catalog import Catalog
from dragoman.serving.composed import Ensemble
from dragoman.serving.fetch import FetchPolicy
from dragoman.serving.files import FileLimits, admit, resolve
from dragoman.serving.gateway import Gateway, VersionStatus
from dragoman.serving.late_store import LateStore
from dragoman.serving.library.opening import lookup
from dragoman.serving.live_settings import LiveSettings
from dragoman.serving.meters import Meters, Tally
from dragoman.serving.operations import Operations
from dragoman.serving.origins import Origins
from dragoman.serving.predictions import Limits, Parts, Predictions
from dragoman.serving.reconciler import Reconciler
from dragoman.serving.registry import Registry
from dragoman.serving.repository import Defaults, Found, Repository
from dragoman.serving.roots import Roots
from dragoman.serving.trace_settings import TraceSettings
from dragoman.serving.tracing import Tracer
from dragoman.serving.uploads import Uploads
from dragoman.serving.webhooks import Webhooks
from dragoman.store.sql import open_store, store_url

log = logging.getLogger("dragoman")

_WHOLE_BODY = 8 << 20
"""Bodies up to this size are complete before a handler starts: handlers read them whole anyway, and images as JSON have some megabytes."""

_HELD = 1000
"""Predictions that one worker has in memory; those that wait behind them are in the store only."""

_LONG_ROW = 120
"""Tensors that are longer, written as JSON, are shown in the protocols that are made for them only."""

Progress: TypeAlias = Callable[[str], None]


Sample: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Loaded:
    """How the targets of the command line came out."""

    ready: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]
    """(name, reason)"""
    samples: tuple[Sample, ...] = ()
    """Example inputs of models that are ready: name, rows (/predict), inputs (Open Inference Protocol), instances (TensorFlow Serving); where a
    protocol has no small one, None."""


class Worker:
    """Make it on the event loop that will serve. `run_dir` is shared by the workers of one server, empty for a single one.

    `index` is this worker's place among them, `serial` a number that no worker of this server has or had. `keeper` is the socket of whoever
    keeps the model processes of all workers; without one this worker keeps its own.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        run_dir: str = "",
        index: int = 0,
        serial: int = 0,
        keeper: str = "",
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
        self.gateway = Gateway(self.meters, settings.timeout or math.inf, tracer, settings.max_inputs)
        self.gateway.starting = True
        self.registry = Registry()
        self.engines = Engines(
            Context(
                keeper=keeper,
                environments=Environments(settings.data_path / FOLDER),
                restarted=lambda model: self.meters.tally(model, Tally.RESTARTS),
            )
        )
        self.reconciler = Reconciler(self.registry, self.gateway, opener=self._open, drain_timeout_s=settings.drain_timeout)
        self.roots = Roots.of(settings.model_root, settings.trusted_root, settings.data_path)
        self.repository = Repository(settings.targets, defaults(settings), lookup(settings.data_path), self.roots)
        fixed = (  # changes at run time need a store that all workers share
            f"this server runs {settings.workers} workers, each with its own models, so they cannot be changed while it runs;"
            " start it with --workers 1"
            if settings.workers > 1
            else ""
        )
        operations = Operations(self.registry, self.repository, self.gateway, fixed)
        fetching = FetchPolicy.parse(settings.allow_fetch)
        self.store = LateStore(
            partial(open_store, store_url(settings.data_path)),
            lambda: Path(store_url(settings.data_path).removeprefix("sqlite:///")).exists(),
        )
        self.catalog = Catalog(self.store, self.roots, settings.data_path)
        self.origins = Origins(self.store, self.roots, self.repository, settings.data_path)
        self.uploads = Uploads(settings.data_path / "uploads", max_file=settings.max_file, expiry_s=settings.upload_expiration)
        self.predictions = self._predictions(fetching)
        self.telemetry = Telemetry(self.meters, self.gateway, tracer, live, __version__, self.predictions.unfinished)
        self.services = Services(
            gateway=self.gateway,
            registry=self.registry,
            repository=self.repository,
            operations=operations,
            meters=self.meters,
            info=ServerInfo("dragoman", __version__),
            fetching=fetching,
            extensions=EXTENSIONS,
            log_settings=logs,
            trace_settings=traces,
            public_url=settings.public_url.rstrip("/"),
            predictions=self.predictions,
            uploads=self.uploads,
            store=self.store,
            roots=self.roots,
            catalog=self.catalog,
            artifacts=ArtifactFolder(self.roots.artifacts),
        )
        self.dialects: list[Dialect] = [*(find("dialects", name)(self.services) for name in names("dialects")), self.telemetry]
        self.app = App(self.dialects, Guard(settings), settings.max_body)
        self.asgi = Identified(self.app, eager=self.app.eager, always=settings.access_log)
        """The application as the world sees it: what a test client calls, too."""
        self._pulse: asyncio.Task[None] | None = None
        self._http: HttpServer | None = None

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
                alone=settings.workers == 1,
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
        if not background and (loaded.ready or not loaded.failed):
            await self.listen(sockets)
        return loaded

    async def _open(self, spec: ModelSpec) -> Servable:
        """Composed models are made of what this worker serves; everything else is loaded by its engine."""
        if not spec.steps:
            return await self.engines.open(spec)
        ensemble = Ensemble(spec, self.gateway)
        ensemble.check_members()
        return ensemble

    async def load(self, progress: Progress = lambda _: None) -> Loaded:
        """Load every target side by side; one bad model does not stop the others. Composed models come after their members."""
        self._pulse = asyncio.get_running_loop().create_task(self.telemetry.pulse())
        await self.predictions.start()
        found = await asyncio.get_running_loop().run_in_executor(None, self.repository.discover)
        self.gateway.named = tuple(f.name for f in found)
        reasons: dict[int, str] = {}
        for wave in waves(found):
            results = await asyncio.gather(*(self._load_one(found[i], progress) for i in wave))
            reasons |= dict(zip(wave, results, strict=True))
        self.gateway.starting = False
        return Loaded(
            tuple(f.name for i, f in enumerate(found) if not reasons[i]),
            tuple((f.name, reasons[i]) for i, f in enumerate(found) if reasons[i]),
            tuple(self._samples()),
        )

    def _samples(self) -> Iterator[Sample]:
        """An example request of each model that is small enough to show."""
        for entry in self.gateway.entries():
            signature = entry.signatures[""]
            row, inputs, rows = row_example(signature), v2_inputs(signature), instances(signature)
            if signature.form is Form.TENSORS and len(json.dumps(row)) > _LONG_ROW:
                row = None
            if row is not None or (inputs is not None and rows is not None):
                yield {"name": entry.name, "rows": None if row is None else [row], "inputs": inputs, "instances": rows}

    async def _load_one(self, found: Found, progress: Progress) -> str:
        """Deploy one model; returns the reason, which is in the log by then, when it cannot be served, "" when it is."""
        reason = found.error
        if found.error:
            log.error("model '%s' cannot be loaded: %s", found.name, found.error)
            self.gateway.publish(found.name, [VersionStatus(found.name, "", State.FAILED, found.error, since=time.time())], {})
        else:
            progress(f"{found.name}: loading")
            try:
                await self.registry.deploy(found.name, found.versions, found.labels)
            except ServingError as error:
                # Another version of the same model may well be ready.
                reason = "" if any(s.state is State.READY for s in self.gateway.statuses(found.name)) else error.message
        progress(f"{found.name}: {'failed' if reason else 'ready'}")
        return reason

    async def listen(self, sockets: Sequence[socket.socket]) -> None:
        """Answer on these sockets, every dialect on each."""
        settings = self.settings
        limits = HttpLimits(
            buffer_bytes=min(_WHOLE_BODY, settings.max_body),
            max_body_bytes=settings.max_body,
            max_connections=settings.max_connections,
            keep_alive_timeout_s=settings.keep_alive,
        )
        self._http = HttpServer(
            self.asgi,
            limits=limits,
            error_body=self._error_body,
            on_response=AccessLog() if settings.access_log else None,
            peers=self._peers,
        )
        await self._http.start(sockets, server_context(settings.tls_cert, settings.tls_key, settings.tls_client_ca))

    def _error_body(self, status: int, text: str, path: str) -> tuple[bytes, bytes]:
        """An error that the HTTP server found itself, in the words of whoever owns the path."""
        kind = {413: Kind.TOO_LARGE, 408: Kind.TIMEOUT, 503: Kind.OVERLOADED}.get(status, Kind.INVALID_INPUT)
        scope = {"method": "", "path": path, "headers": []}
        answer = self.app.dialect_of(path).refuse(Request(scope, _nothing, 0), ServingError(kind, text, what="body", status=status))
        assert isinstance(answer.body, bytes)
        return answer.media_type, answer.body

    async def close(self) -> None:
        """Drain: ready turns false, nothing new is accepted, requests in flight finish up to the time-out, then the models are closed.

        Predictions that run have that time, too; those that wait stay in the store for the next start.
        """
        self.gateway.draining = True
        drained, _ = await asyncio.gather(self._drain_http(), self.predictions.close(self.settings.drain_timeout))
        if drained:
            log.warning("%d requests were still running after %g s and were broken off", drained, self.settings.drain_timeout)
        if self._pulse is not None:
            self._pulse.cancel()
            await asyncio.gather(self._pulse, return_exceptions=True)
        await self.telemetry.close()
        await self.reconciler.close()
        await self.engines.close()
        await self.store.close()
        self.repository.close()

    async def _drain_http(self) -> int:
        return await self._http.drain(self.settings.drain_timeout) if self._http is not None else 0


async def _nothing() -> dict[str, Any]:
    return {"type": "http.disconnect"}


def waves(found: Sequence[Found]) -> list[list[int]]:
    """Indexes of models in the order in which to load them: each wave needs only members of earlier ones, as far as there are any."""
    names_of = {f.name for f in found}
    waiting = {i: {s.model for spec in f.versions.values() for s in spec.steps} & names_of - {f.name} for i, f in enumerate(found)}
    done: set[str] = set()
    result: list[list[int]] = []
    while waiting:
        wave = [i for i, needs in waiting.items() if needs <= done] or list(waiting)  # a circle fails by itself, with its reason
        result.append(wave)
        done |= {found[i].name for i in wave}
        waiting = {i: needs for i, needs in waiting.items() if i not in wave}
    return result


def defaults(settings: Settings) -> Defaults:
    """What the settings say about every model that does not say it itself."""
    arguments: dict[str, Any] = {"trust_pickle": settings.trust_pickle}
    if settings.threads:
        arguments["threads"] = settings.threads
    else:  # this worker's share, of which each runtime takes what suits its framework
        arguments["processors"] = max(1, (os.cpu_count() or 1) // settings.workers)
    if settings.device:
        arguments["device"] = settings.device
    return Defaults(
        name=settings.name,
        batch=BatchPolicy(
            max_size=settings.batch_size or BatchPolicy().max_size,
            max_delay_s=settings.batch_delay_ms / 1000,
            max_queue=settings.max_queue,
        ),
        instances=settings.instances,
        engine=settings.engine,
        arguments=arguments,
        batch_size=settings.batch_size,
        environments=settings.environments,
        run_timeout_s=settings.prediction_timeout or math.inf,
        load_timeout_s=settings.setup_timeout or math.inf,
        repeatable=settings.repeat,
    )
