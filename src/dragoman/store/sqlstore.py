"""The store over SQLAlchemy: hands each call to a lane, and large payloads to files where the database wants that.

Made by sql.py's `open_store`. Which database it is, only the object beneath knows (database.py).
"""

import asyncio
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import EMPTY
from dragoman.core.predictions import Prediction, Progress
from dragoman.store import (
    Bell,
    Change,
    Edit,
    RegisteredModel,
    Report,
    Rewrite,
    StoredVersion,
    Wish,
    deployments,
    documents,
    models,
    predictions,
)
from dragoman.store.blobs import LEAST_BYTES, Blobs
from dragoman.store.database import Database, Transactions
from dragoman.store.lanes import Lane
from dragoman.store.predictions import Found, Payload

R = TypeVar("R")


class SqlStore:
    """Implements `dragoman.store.Store`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        writing, reading = database.transactions(write=True), database.transactions(write=False)
        self._writer = Lane("store-writer", writing, disconnect=writing.disconnect)
        self._reader = Lane("store-reader", reading, disconnect=reading.disconnect)
        self._stopped = threading.Event()
        self._collector: threading.Thread | None = None
        if database.blobs is not None:
            arguments = (database.blobs, database.transactions(write=False))
            self._collector = threading.Thread(target=self._collect, args=arguments, name="store-files", daemon=True)
            self._collector.start()

    @classmethod
    async def over(cls, database: Database) -> "SqlStore":
        """Made or migrated where that is due, and connected: a disk that is full later does not keep it from being read."""
        await asyncio.to_thread(database.prepare)
        store = cls(database)
        try:
            await store._write_some(lambda _: None)
            await store._read(lambda _: None)
        except BaseException:
            await store.close()
            raise
        return store

    async def bell(self) -> Bell:
        return await self._database.bell()

    async def close(self) -> None:
        self._stopped.set()
        await self._writer.close()
        await self._reader.close()
        if self._collector is not None:
            await asyncio.to_thread(self._collector.join)

    # --- models ---

    async def add_model(self, model: RegisteredModel) -> RegisteredModel:
        return await self._write(lambda connection: models.add_model(connection, model))

    async def model(self, name: str) -> RegisteredModel | None:
        return await self._read(lambda connection: models.find_model(connection, name))

    async def models(self) -> list[RegisteredModel]:
        return await self._read(models.all_models)

    async def change_model(
        self, name: str, *, updated: float, new_name: str | None = None, description: str | None = None
    ) -> RegisteredModel:
        return await self._write(lambda connection: models.change_model(connection, name, updated, new_name, description))

    async def remove_model(self, name: str) -> bool:
        return await self._write(lambda connection: models.remove_model(connection, name))

    async def tag_model(self, name: str, key: str, value: str | None, *, updated: float) -> None:
        await self._write(lambda connection: models.tag_model(connection, name, key, value, updated))

    async def add_version(
        self,
        version: StoredVersion,
        *,
        aliases: Iterable[str] = (),
        replace: bool = False,
        reuse: Callable[[StoredVersion], bool] | None = None,
    ) -> StoredVersion:
        addition = models.Addition(version, tuple(aliases), replace, reuse)
        return await self._write(lambda connection: models.add_version(connection, addition))

    async def change_version(
        self,
        model: str,
        version: str,
        *,
        updated: float,
        description: str | None = None,
        stage: str | None = None,
        facts: Mapping[str, str] = EMPTY,
        archive: str = "",
    ) -> StoredVersion:
        edit = models.Edit(updated, description, stage, dict(facts), archive)
        return await self._write(lambda connection: models.change_version(connection, model, version, edit))

    async def tag_version(self, model: str, version: str, key: str, value: str | None, *, updated: float) -> None:
        await self._write(lambda connection: models.tag_version(connection, model, version, key, value, updated))

    async def version(self, model: str, version: str) -> StoredVersion | None:
        return await self._read(lambda connection: models.find_version(connection, model, version))

    async def versions(self, model: str = "") -> list[StoredVersion]:
        return await self._read(lambda connection: models.all_versions(connection, model))

    async def remove_version(self, model: str, version: str) -> bool:
        return await self._write(lambda connection: models.remove_version(connection, model, version))

    async def aliases(self, model: str = "") -> dict[tuple[str, str], str]:
        return await self._read(lambda connection: models.all_aliases(connection, model))

    async def set_alias(self, model: str, alias: str, version: str) -> None:
        await self._write(lambda connection: models.set_alias(connection, model, alias, version))

    async def remove_alias(self, model: str, alias: str) -> bool:
        return await self._write(lambda connection: models.remove_alias(connection, model, alias))

    # --- wishes, and who has applied them ---

    async def wish(self, model: str, rewrite: Rewrite, *, run: str = "", stages: Mapping[tuple[str, str], str] = EMPTY) -> Wish:
        given = dict(stages)
        wished = await self._write(lambda connection: deployments.wish(connection, model, run, rewrite, given), rings=deployments.is_new)
        if isinstance(wished.stands, Exception):
            raise wished.stands
        return wished.stands

    async def wishes(self, *, since: int = 0) -> list[Wish]:
        return await self._read(lambda connection: deployments.all_wishes(connection, since))

    async def forget_run(self, run: str) -> None:
        if not run:
            raise ValueError("the wishes of no run outlive every server")
        await self._write(lambda connection: deployments.forget_run(connection, run))

    async def join(self, worker: str, lease_until: float) -> bool:
        return await self._write(lambda connection: deployments.join(connection, worker, lease_until))

    async def leave(self, workers: Sequence[str]) -> None:
        gone = list(workers)
        await self._write(lambda connection: deployments.leave(connection, gone), rings=bool)

    async def workers(self, *, now: float) -> list[str]:
        return await self._read(lambda connection: deployments.living(connection, now))

    async def report(self, reports: Sequence[Report]) -> None:
        new = list(reports)
        await self._write(lambda connection: deployments.report(connection, new), rings=bool)

    async def reports(self, model: str) -> list[Report]:
        return await self._read(lambda connection: deployments.reports_on(connection, model))

    # --- documents ---

    async def document(self, kind: str, key: str) -> Mapping[str, Any] | None:
        return await self._read(lambda connection: documents.find_document(connection, kind, key))

    async def documents(self, kind: str, groups: Sequence[str] | None = None) -> list[Mapping[str, Any]]:
        return [*await self._read(lambda connection: documents.all_documents(connection, kind, groups))]

    async def edit_document(self, kind: str, key: str, edit: Edit, *, group: str = "", rings: bool = False) -> Mapping[str, Any]:
        stands = await self._write(lambda connection: documents.edit_document(connection, kind, key, group, edit), rings=lambda _: rings)
        if isinstance(stands, Exception):
            raise stands
        return stands

    async def remove_document(self, kind: str, key: str, *, rings: bool = False) -> bool:
        return await self._write(lambda connection: documents.remove_document(connection, kind, key), rings=lambda gone: gone and rings)

    # --- predictions ---

    async def add_prediction(self, prediction: Prediction) -> None:
        parts = await self._payloads(inputs=prediction.inputs, outputs=prediction.outputs, logs=prediction.logs)
        files = _files(parts)

        def settle(result: object) -> None:
            if result is None:
                self._remove(files)

        try:
            await self._writer.run(predictions.add, (prediction, parts), after=settle if files else None)
        except IntegrityError as error:
            raise ServingError(Kind.CONFLICT, f"prediction '{prediction.id}' exists already", what="prediction") from error

    async def prediction(self, prediction_id: str, *, inputs: bool = True) -> Prediction | None:
        work = predictions.find if inputs else predictions.find_results
        found = await self._reader.run(work, prediction_id)
        loaded = await self._loaded(found) if found is not None else None
        if loaded is not None and loaded.lost:
            # Removed or replaced between the look and the reading? Then nothing is broken.
            found = await self._reader.run(work, prediction_id)
            loaded = await self._loaded(found) if found is not None else None
        return loaded.prediction if loaded is not None else None

    async def change_prediction(self, change: Change) -> bool:
        if self._too_large(change.outputs) and change.progress is Progress.SUCCEEDED:
            words = f"the outputs of prediction '{change.id}' have more than the {self._database.most_bytes} bytes that the server's database takes"
            change = replace(change, progress=Progress.FAILED, outputs=None, error=words, error_kind=Kind.TOO_LARGE.value)
        parts = await self._payloads(outputs=change.outputs, logs=change.logs)
        files = _files(parts)

        def settle(written: predictions.Written | None) -> None:
            if written is None or not written.applied:
                self._remove(files)
            if written is not None:
                self._remove(written.unused)

        return (await self._writer.run(predictions.change, (change, parts), after=settle)).applied

    async def claim_predictions(self, owner: str, models: Sequence[str], *, lease_until: float, limit: int) -> list[Prediction]:
        wanted = predictions.Claim(owner, tuple(models), lease_until, limit)
        found = await self._write_some(lambda connection: predictions.claim(connection, wanted))
        return [prediction for one in found if (prediction := await self._runnable(one)) is not None]

    async def _runnable(self, found: Found) -> Prediction | None:
        """None, and then it has failed, when its inputs cannot be read: nobody else could run it, and it must not stay claimed for ever."""
        try:
            loaded = await self._loaded(found)
            if "inputs" not in loaded.lost:
                return loaded.prediction
            reason = "their file is gone from beside the server's database"
        except ServingError as error:
            reason = error.message
        was = found.prediction
        words = f"the inputs of prediction '{was.id}' are lost: {reason}"
        failed = Change(was.id, Progress.FAILED, owner=was.owner, error=words, error_kind=Kind.INTERNAL.value, finished=time.time())
        await self.change_prediction(failed)
        return None

    async def pending_models(self) -> list[str]:
        return await self._read(predictions.pending_models)

    async def unfinished(self) -> dict[str, tuple[int, int]]:
        return await self._read(predictions.unfinished)

    async def orphans(self, *, now: float, dead: Sequence[str] = ()) -> list[Prediction]:
        return await self._read(lambda connection: predictions.orphans(connection, now, dead))

    async def owners(self) -> list[str]:
        return await self._read(predictions.owners)

    async def renew_leases(self, owner: str, ids: Sequence[str], lease_until: float) -> None:
        await self._write_some(lambda connection: predictions.renew(connection, owner, ids, lease_until))

    async def cancelled_of(self, owner: str, ids: Sequence[str]) -> list[str]:
        kept = await self._read(lambda connection: predictions.kept(connection, owner, ids))
        return [prediction_id for prediction_id in ids if prediction_id not in kept]

    async def undelivered(self, limit: int) -> list[Prediction]:
        found = await self._read(lambda connection: predictions.undelivered(connection, limit))
        return [(await self._loaded(one)).prediction for one in found]

    async def remove_predictions(self, *, finished_before: float, limit: int) -> list[str]:
        ids, files = await self._write_some(lambda connection: predictions.remove(connection, finished_before, limit))
        if files:
            await asyncio.to_thread(self._remove, files)
        return ids

    # --- inside ---

    async def _write(self, work: Callable[[Connection], R], *, rings: Callable[[R], bool] = lambda _: False) -> R:
        """A change of the registry: no other one comes between its looks and its writes.

        Everybody's bell rings, once it is committed, where `rings` says so of its result.
        """

        def alone(connection: Connection) -> R:
            self._database.alone(connection)
            result = work(connection)
            if rings(result):
                self._database.ring(connection)
            return result

        return await self._write_some(alone)

    async def _write_some(self, work: Callable[[Connection], R]) -> R:
        """A change that itself sees to it that no other one disturbs it."""
        return await self._writer.run(lambda connection, _: [work(connection)], None)

    async def _read(self, work: Callable[[Connection], R]) -> R:
        return await self._reader.run(lambda connection, _: [work(connection)], None)

    async def _payloads(self, *, inputs: bytes = b"", outputs: bytes | None = None, logs: str | None = None) -> list[Payload]:
        """What is to be stored: large contents are files when this returns. Empty inputs need no row, nor do logs that are unknown."""
        if self._too_large(inputs):
            words = f"the inputs have {len(inputs)} bytes, and the server's database takes {self._database.most_bytes}"
            raise ServingError(Kind.TOO_LARGE, words, what="body")
        contents = {"inputs": inputs or None, "outputs": outputs, "logs": logs.encode("utf-8", "replace") if logs else None}
        given = [(part, content) for part, content in contents.items() if content is not None]
        if self._database.blobs is None or all(len(content) < LEAST_BYTES for _, content in given):
            return [Payload(part, content, None, len(content)) for part, content in given]
        return await asyncio.to_thread(self._filed, self._database.blobs, given)

    def _too_large(self, content: bytes | None) -> bool:
        return content is not None and self._database.most_bytes is not None and len(content) > self._database.most_bytes

    def _filed(self, blobs: Blobs, given: Iterable[tuple[str, bytes]]) -> list[Payload]:
        made: list[Payload] = []
        try:
            for part, content in given:
                large = len(content) >= LEAST_BYTES
                name = blobs.write(content) if large else None
                made.append(Payload(part, None if large else content, name, len(content)))
        except OSError as error:
            blobs.remove(_files(made))
            raise self._database.unavailable(error) from error
        return made

    def _remove(self, files: Collection[str]) -> None:
        if self._database.blobs is not None:
            self._database.blobs.remove(files)

    async def _loaded(self, found: Found) -> "_Loaded":
        if not _files(found.parts.values()):
            return self._assembled(found)
        return await asyncio.to_thread(self._assembled, found)

    def _assembled(self, found: Found) -> "_Loaded":
        contents: dict[str, bytes] = {}
        lost = set()
        for part, payload in found.parts.items():
            try:
                content = self._content(payload)
            except OSError as error:
                raise self._database.unavailable(error) from error
            if content is None:
                lost.add(part)
            else:
                contents[part] = content
        logs = contents.get("logs", b"").decode("utf-8")
        prediction = replace(found.prediction, inputs=contents.get("inputs", b""), outputs=contents.get("outputs"), logs=logs)
        if "outputs" in lost:
            words = f"the outputs of prediction '{prediction.id}' are lost: their file is gone from beside the server's database"
            prediction = replace(prediction, progress=Progress.FAILED, error=words, error_kind=Kind.INTERNAL.value)
        return _Loaded(prediction, lost)

    def _content(self, payload: Payload) -> bytes | None:
        if payload.file is None:
            return payload.data
        return self._database.blobs.read(payload.file, payload.size) if self._database.blobs is not None else None

    def _collect(self, blobs: Blobs, transactions: Transactions) -> None:
        """In a thread of its own, once: files that a crash left without a row."""

        def unknown(names: Collection[str]) -> Collection[str]:
            with transactions() as connection:
                return predictions.unknown_files(connection, names)

        try:
            blobs.collect(unknown, self._stopped.is_set)
        except (ServingError, OSError):
            pass  # reported by whoever needs the database; the next start collects
        finally:
            transactions.disconnect()


@dataclass(frozen=True, slots=True)
class _Loaded:
    prediction: Prediction
    lost: Collection[str]
    """Parts whose file is gone."""


def _files(payloads: Iterable[Payload]) -> list[str]:
    return [payload.file for payload in payloads if payload.file is not None]
