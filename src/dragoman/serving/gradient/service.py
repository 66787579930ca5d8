"""Deployments with ids: create, start, stop, change, delete and look at them, on any worker. Called by dialects/gradient.

A deployment is a record in the store and, while it should run, a wish to serve its model under its id: so its endpoint is a served model like any
other, known to every worker, loaded again after a restart. What its state is follows from both; nothing is told, so nothing can lie.
"""

import asyncio
import logging
import secrets
import string
import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from dragoman.core import lifecycle
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.serving.doors import DOOR, door
from dragoman.serving.gateway import Gateway, VersionStatus
from dragoman.serving.gradient.logs import Logs, Row
from dragoman.serving.gradient.models import Model, Models
from dragoman.serving.gradient.records import ID, Record, State, check_tags, check_whole, checked, credentials, read_record
from dragoman.serving.late_store import LateStore
from dragoman.serving.passwords import lock_of
from dragoman.serving.registry import Registry
from dragoman.serving.settings import quoted
from dragoman.serving.wishes import Document, entry, failed_of, versions_of

log = logging.getLogger("dragoman.models")

KIND = "gradient deployment"
"""Of the documents in the store."""
_LETTERS = string.ascii_lowercase + string.digits
_USUAL = {"deploymentType": "TFServing", "apiType": "REST"}


def new_id() -> str:
    return "des" + "".join(secrets.choice(_LETTERS) for _ in range(12))


@dataclass(frozen=True, slots=True)
class Status:
    """How a deployment is at this moment. `reason`: why it is in Error, or why its last change did not take effect."""

    state: State
    reason: str = ""


class GradientDeployments:
    """Make it on the event loop; `close` before the registry's watch ends. `clock` gives seconds since the epoch.

    Whatever names a deployment raises NOT_FOUND (what="deployment") for one that is not there.
    """

    def __init__(
        self,
        store: LateStore,
        registry: Registry,
        gateway: Gateway,
        models: Models,
        logs: Logs,
        *,
        clock: Callable[[], float] = time.time,
        id_of: Callable[[], str] = new_id,
        grpc_port: int = 0,
    ) -> None:
        self.grpc_port = grpc_port
        """On which gRPC deployments answer, 0 for none."""
        self._store = store
        self._registry = registry
        self._gateway = gateway
        self._models = models
        self._logs = logs
        self._clock = clock
        self._id_of = id_of
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Stop waiting for what was wished; the wishes stand."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- changes ---

    async def create(self, given: Mapping[str, Any]) -> Record:
        """A new deployment of the fields of a request, which starts at once; returns before it runs.

        Raises INVALID_INPUT naming a field, UNSUPPORTED for what cannot be served here, and what `Models.find` raises; nothing is left then.
        """
        fields, secret = {**_USUAL, **checked(given)}, credentials(given)
        check_whole(fields)
        self._check_port(fields)
        deployment = self._id_of()
        fields = await self._models.fetched(fields, deployment)
        now = self._clock()
        record = Record(deployment, {}, await _locked(secret) or {}, created=now, started=now).changed(fields, now)
        model = await self._models.find(record)
        store = await self._store.get()
        await asyncio.to_thread(self._logs.begin, record.id)
        await store.edit_document(KIND, record.id, lambda _: asdict(record))
        self._say(record.id, f"deployment {quoted(record.get('name'))} is created")
        return await self._wish(record, model)

    async def start(self, deployment: str) -> Record:
        """Serve its model again, or go on; a model that was named without a version is the newest one of now. Returns before it runs."""
        model = await self._models.find(await self.one(deployment))
        now = self._clock()
        record = await self._edit(
            deployment, lambda r: replace(r, wanted=True, started=now if not r.wanted or not r.started else r.started)
        )
        return await self._wish(record, model)

    async def stop(self, deployment: str) -> Record:
        """Serve it no longer: from now on its endpoint answers 404. Requests in flight finish."""
        now = self._clock()
        record = await self._edit(deployment, lambda r: replace(r, wanted=False, stopped=now if r.wanted else r.stopped))
        self._say(deployment, "stopped")
        return await self._unwish(record)

    async def update(self, deployment: str, given: Mapping[str, Any]) -> Record:
        """Change fields; one that runs takes them over at once, the old model serving until the new one is ready. Raises as `create`."""
        changes, secret = checked(given), credentials(given)
        before = await self.one(deployment)
        if "modelUrl" in changes and "modelId" not in changes:
            changes["modelId"] = ""  # it was made of the url before, or would win over this one
        if any(name in changes for name in ("modelId", "containerModelPath")) and "modelUrl" not in changes:
            changes["modelUrl"] = ""
        changes = await self._models.fetched({**changes, "name": changes.get("name", before.get("name"))}, deployment)
        self._check_port(changes)
        lock = await _locked(secret)

        def change(record: Record) -> Record:
            changed = record.changed(changes, self._clock())
            return changed if lock is None else replace(changed, lock=lock)

        model = await self._models.find(change(before)) if before.wanted else None
        record = await self._edit(deployment, change)
        self._say(deployment, "changed")
        return record if model is None else await self._wish(record, model)

    async def delete(self, deployment: str) -> None:
        """Serve it no longer, and forget it, its log too. Its id is never given again."""
        record = await self.one(deployment)
        await self._unwish(record)
        gone = Record(deployment, {}, created=record.created, modified=self._clock(), wanted=False, deleted=True)
        await (await self._store.get()).edit_document(KIND, deployment, lambda _: asdict(gone))
        await asyncio.to_thread(self._logs.remove, deployment)

    async def tag(self, deployment: str, tags: Any) -> Record:
        """Give it these tags and no others."""
        words = check_tags("tags", tags)
        return await self._edit(deployment, lambda record: record.changed({"tags": words}, self._clock()))

    # --- what there is ---

    async def all(self) -> list[Record]:
        """Every deployment, oldest first."""
        store = await self._store.existing()
        found = [] if store is None else [read_record(body) for body in await store.documents(KIND, [""])]
        return [record for record in found if not record.deleted]

    async def one(self, deployment: str) -> Record:
        store = await self._store.existing()
        body = await store.document(KIND, deployment) if store is not None and ID.fullmatch(deployment) else None
        return _present(body, deployment)

    async def status(self, record: Record) -> Status:
        """Of all workers, as far as this one knows. Raises UNAVAILABLE when the store cannot be asked."""
        known = self._registry.generation(record.id) >= record.generation
        statuses = self._gateway.statuses(record.id)
        applied = known and await self._registry.applied(record.id)
        return status_of(record, self._registry.document(record.id), statuses, known=known, applied=applied)

    async def rows(self, deployment: str, line: int, limit: int) -> list[Row]:
        """Lines of its log."""
        await self.one(deployment)
        return await asyncio.to_thread(self._logs.read, deployment, line, limit)

    # --- how ---

    def _check_port(self, fields: Mapping[str, Any]) -> None:
        if fields.get("apiType") == "GRPC" and not self.grpc_port:
            raise invalid("apiType is GRPC, but this server has no gRPC port: its operator gives it one with --grpc-port", "apiType")

    async def _wish(self, record: Record, model: Model) -> Record:
        """Wish for the model under the deployment's id; returns when that is wished. Whether it loads is followed by a task."""
        document = {
            "versions": {model.version: entry(model.revision, model.origin)},
            "labels": {},
            DOOR: door(record.lock, grpc=record.grpc),
        }
        wished = asyncio.Event()
        task = self._begin(self._settle(record.id, document, wished))
        waiting = asyncio.ensure_future(wished.wait())
        try:
            await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if task.done() and not wished.is_set():
            if task.cancelled():
                raise ServingError(Kind.UNAVAILABLE, "the server is shutting down")
            task.result()
        return await self._noted(record)

    async def _settle(self, deployment: str, document: Document, wished: asyncio.Event) -> None:
        required = tuple(versions_of(document))
        try:
            await self._registry.deploy(deployment, lambda _: document, required=required, wished=wished)
        except ServingError as error:
            if not wished.is_set():
                raise
            self._say(deployment, error.message)
        else:
            if versions_of(self._registry.document(deployment)):  # it may have been stopped meanwhile
                self._say(deployment, "running")

    async def _unwish(self, record: Record) -> Record:
        await self._registry.wish(record.id, lambda standing: None if standing is None else {})
        return await self._noted(record)

    async def _noted(self, record: Record) -> Record:
        """The record with the wish that stands. One that was deleted meanwhile is not served: no wish comes after the deletion."""
        generation = self._registry.generation(record.id)
        try:
            return await self._edit(record.id, lambda r: replace(r, generation=max(generation, r.generation)))
        except ServingError as error:
            if error.kind is Kind.NOT_FOUND:
                await self._registry.wish(record.id, lambda standing: None if standing is None else {})
            raise

    async def _edit(self, deployment: str, change: Callable[[Record], Record]) -> Record:
        store = await self._store.existing()
        if store is None or not ID.fullmatch(deployment):
            raise _unknown(deployment)
        return read_record(await store.edit_document(KIND, deployment, lambda body: asdict(change(_present(body, deployment)))))

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, ServingError):
            log.error("following a deployment failed", exc_info=error)

    def _say(self, deployment: str, text: str) -> None:
        log.info("deployment %s: %s", deployment, text)
        self._logs.say(deployment, text)


def status_of(record: Record, document: Document, statuses: Collection[VersionStatus], *, known: bool, applied: bool) -> Status:
    """The state that follows from the record, the wish that stands, and what this worker has of it. Pure.

    `known`: whether this worker has heard of the record's last wish; `applied`: whether all have done what the standing one says.
    """
    states = {status.state for status in statuses}
    reasons = [*failed_of(document).values(), *(s.reason for s in statuses if s.state is lifecycle.State.FAILED)]
    reason = reasons[0] if reasons else ""
    if record.generation == 0:
        return Status(State.BUILDING)
    if not known:
        return Status(State.PROVISIONING if record.wanted else State.STOPPING)
    if versions_of(document):
        if lifecycle.State.READY in states:
            return Status(State.RUNNING if applied else State.STARTING, reason)
        if lifecycle.State.FAILED in states:
            return Status(State.ERROR, reason)
        return Status(State.STARTING if states - {lifecycle.State.GONE} else State.PROVISIONING)
    if reasons and record.wanted:
        return Status(State.ERROR, reason)
    stopping = states & {lifecycle.State.READY, lifecycle.State.LOADING, lifecycle.State.DRAINING} or not applied
    return Status(State.STOPPING if stopping else State.STOPPED)


async def _locked(secret: tuple[str, str] | None) -> dict[str, str] | None:
    """What is kept of a user name and a password: {} for none from now on, None where nothing was said."""
    if secret is None:
        return None
    return await asyncio.to_thread(lock_of, *secret) if secret[0] else {}


def _present(body: Mapping[str, Any] | None, deployment: str) -> Record:
    if body is None or (record := read_record(body)).deleted:
        raise _unknown(deployment)
    return record


def _unknown(deployment: str) -> ServingError:
    return ServingError(Kind.NOT_FOUND, f"there is no deployment {quoted(deployment)}", what="deployment")
