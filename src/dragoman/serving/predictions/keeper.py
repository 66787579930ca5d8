"""Looks after predictions from second to second: leases, what waits in the store, what dead owners left, cancels from elsewhere, retention.

`beat` does what is due; the service calls it every second, tests call it when they like. The store may fail at any point: the rest of the
beat is left for the next one.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Collection

from dragoman.core.errors import Kind, ServingError
from dragoman.core.predictions import Prediction, Progress, after_lease
from dragoman.core.tensors import Value
from dragoman.hosting.frames import FrameError, unpack_rows
from dragoman.serving.predictions.limits import Parts
from dragoman.serving.predictions.runs import Ending, Run
from dragoman.serving.predictions.views import error_text
from dragoman.serving.predictions.work import Work
from dragoman.store import Change, Store

log = logging.getLogger("dragoman")

STOPPED = "the server stopped while it ran"
_BROKEN = "the stored inputs of this prediction cannot be read by this version of the server"
_ORPHANS_S = 10.0
_SWEEP_S = 10.0
_SWEEP_LIMIT = 500
_CLAIM_LIMIT = 256


class Pending:
    """Predictions that this worker accepted and left waiting in the store. `of` counts them by model."""

    def __init__(self) -> None:
        self._models: dict[str, str] = {}
        self.of: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._models)

    def add(self, prediction_id: str, model: str) -> None:
        self._models[prediction_id] = model
        self.of[model] += 1

    def discard(self, prediction_id: str) -> None:
        model = self._models.pop(prediction_id, None)
        if model is not None:
            self.of[model] -= 1
            self.of += Counter()  # drops what has come to nothing

    def keep_models(self, models: Collection[str]) -> None:
        """Nothing waits for other models than these: others have taken it."""
        if any(count and model not in models for model, count in self.of.items()):
            self._models = {key: model for key, model in self._models.items() if model in models}
            self.of = Counter(self._models.values())


class Keeper:
    """Looks after predictions in the store: `pending` ones, those of owners that are gone, those that are over."""

    def __init__(self, parts: Parts, work: Work) -> None:
        self._parts = parts
        self._work = work
        self.pending = Pending()
        self._left = False
        """Whether the last claim found as much as it had room for."""
        self._looking: asyncio.Task[None] | None = None
        self._began = parts.monotonic()
        self._due: dict[str, float] = {}
        self._gone: dict[str, float] = {}
        """Model -> since when it is known to be gone while predictions wait for it."""
        self._down = False

    async def beat(self) -> None:
        """One round. Raises nothing."""
        for run in list(self._work.runs.values()):
            if run.overdue(self._parts.limits.run_timeout_s):
                self._work.expire(run)
        try:
            store = self._parts.store.opened or await self._parts.store.existing()
            if store is None:
                return
            await self._renew(store)
            await self._save()
            await self._stop_cancelled(store)
            await self._take_over(store)
            waited_for = await store.pending_models()
            await self._claim(store, waited_for)
            await self._give_up(store, waited_for)
            await self._sweep(store)
        except ServingError as error:
            if not self._down:
                log.warning("the store of predictions cannot be used: %s", error.message)
            self._down = True
        except Exception:
            log.exception("looking after predictions failed; it is tried again")
        else:
            if self._down:
                log.info("the store of predictions can be used again")
            self._down = False

    # --- what this worker runs ---

    async def _renew(self, store: Store) -> None:
        lease_s = self._parts.limits.lease_s
        if self._work.runs and self._is_due("lease", lease_s / 3):
            await store.renew_leases((await self._work.owner()).name, list(self._work.runs), self._parts.clock() + lease_s)

    async def _save(self) -> None:
        for run in list(self._work.runs.values()):
            if run.started is not None and not (run.started_saved and run.logs_saved):
                await self._work.save_progress(run)

    async def _stop_cancelled(self, store: Store) -> None:
        ids = [run.id for run in self._work.runs.values() if run.ending is None and run.stored]
        if ids:
            for prediction_id in await store.cancelled_of((await self._work.owner()).name, ids):
                run = self._work.runs.get(prediction_id)
                if run is not None:
                    self._work.lose(run)

    async def listen(self) -> None:
        """When another worker says that it has cancelled something here, see what, and break it off. Almost free when nobody has."""
        if self._work.heard():
            self._looking = self._work.spawn(self._look())
        if self._looking is not None:
            await asyncio.shield(self._looking)  # begun for somebody else, too: nobody here may see less than the other worker has told

    async def _look(self) -> None:
        try:
            await self._stop_cancelled(await self._parts.store.get())
        except ServingError as error:  # the beat tries again
            log.warning("what other workers have cancelled cannot be read now: %s", error.message)
        finally:
            if self._looking is asyncio.current_task():
                self._looking = None

    # --- what others left ---

    async def _take_over(self, store: Store) -> None:
        """Decide about predictions whose owner is gone: they wait again, or have failed."""
        if not self._is_due("orphans", _ORPHANS_S):
            return
        dead = (await self._work.owner()).dead(await store.owners())
        for orphan in await store.orphans(now=self._parts.clock(), dead=dead):
            if orphan.id in self._work.runs:
                continue  # its lease ran out while the store was down, and it is still here; it was renewed just before
            repeatable = self._repeatable(orphan)
            if repeatable is None:
                self._due["orphans"] = 0.0  # soon again
                continue
            progress = after_lease(orphan, repeatable=repeatable, most_attempts=self._parts.limits.attempts)
            failed = progress is Progress.FAILED
            change = Change(
                orphan.id,
                progress=progress,
                expect=frozenset({orphan.progress}),
                owner=orphan.owner,
                attempt=orphan.attempt,
                error=STOPPED if failed else None,
                error_kind=Kind.UNAVAILABLE.value if failed else None,
                finished=self._parts.clock() if failed else None,
            )
            if await store.change_prediction(change):
                if failed:
                    self._parts.ended(orphan.model, progress)
                log.warning("prediction %s lost its server: %s", orphan.id, "it has failed" if failed else "it will run again")

    def _repeatable(self, orphan: Prediction) -> bool | None:
        """Whether its model may run it again; None when that is not known yet because the model is still to be loaded."""
        try:
            return self._parts.gateway.find(orphan.model, orphan.version).spec.repeatable
        except ServingError as error:
            if error.kind is Kind.NOT_READY or self._parts.monotonic() - self._began < self._parts.limits.model_wait_s:
                return None
            return False

    @property
    def more(self) -> bool:
        """Whether something may wait in the store that this worker could run."""
        return self._left or len(self.pending) > 0

    async def refill(self) -> None:
        """Claim again between two beats: there is room. Raises nothing."""
        store = self._parts.store.opened
        if store is None:
            return
        try:
            await self._claim(store, await store.pending_models())
        except ServingError:
            self._left = False  # the beat tells what is wrong with the store, and claims when it can be used again

    async def _claim(self, store: Store, waited_for: list[str]) -> None:
        """Take what waits for models that are ready, as much as there is room for."""
        limits, work = self._parts.limits, self._work
        self.pending.keep_models(waited_for)
        ready = {entry.name for entry in self._parts.gateway.entries()}
        models = [model for model in waited_for if model in ready]
        self._left = bool(models)
        while self._left and not work.closing and work.held_bytes < limits.held_bytes:
            room = min(_CLAIM_LIMIT, limits.held - len(work.runs))
            if room <= 0:
                return
            owner = await work.owner()
            claimed = await store.claim_predictions(owner.name, models, lease_until=self._parts.clock() + limits.lease_s, limit=room)
            for record in claimed:
                self.pending.discard(record.id)
                self._begin(record)
            self._left = len(claimed) == room
            if not self._left:  # what is not here was taken by others
                self.pending.keep_models([name for name in waited_for if name not in models])

    def _begin(self, record: Prediction) -> None:
        try:
            self._work.begin(self._held(record, unpack_rows(record.inputs)))
        except FrameError:
            ending = Ending(Progress.FAILED, self._parts.clock(), error=_BROKEN, error_kind=Kind.INTERNAL.value)
            self._work.end(self._held(record, []), ending)

    def _held(self, record: Prediction, rows: list[Value]) -> Run:
        run = Run(record, rows, len(record.inputs), clock=self._parts.clock, monotonic=self._parts.monotonic)
        run.stored = True
        self._work.hold(run)
        return run

    async def _give_up(self, store: Store, waited_for: list[str]) -> None:
        """Fail what waits for a model that is gone, once it has been gone for long enough."""
        now = self._parts.monotonic()
        gone: dict[str, float] = {}
        for model in waited_for:
            try:
                self._parts.gateway.find(model)
            except ServingError as error:
                if error.kind is Kind.NOT_READY:
                    continue
                gone[model] = self._gone.get(model, now)
                if now - gone[model] >= self._parts.limits.model_wait_s:
                    await self._fail_all(store, model, error)
        self._gone = gone

    async def _fail_all(self, store: Store, model: str, reason: ServingError) -> None:
        owner, now = await self._work.owner(), self._parts.clock()
        until = now + self._parts.limits.lease_s
        for record in await store.claim_predictions(owner.name, [model], lease_until=until, limit=_CLAIM_LIMIT):
            self.pending.discard(record.id)
            run = self._held(record, [])
            self._work.end(run, Ending(Progress.FAILED, now, error=error_text(reason), error_kind=reason.kind.value))

    async def _sweep(self, store: Store) -> None:
        for run in [r for r in self._work.recent.values() if r.ending is not None and self._work.expired(r.ending.finished)]:
            self._work.forget(run)
        if self._is_due("sweep", _SWEEP_S):
            before = self._parts.clock() - self._parts.limits.expiration_s
            while len(await store.remove_predictions(finished_before=before, limit=_SWEEP_LIMIT)) == _SWEEP_LIMIT:
                pass

    def _is_due(self, what: str, every_s: float) -> bool:
        now = self._parts.monotonic()
        if now < self._due.get(what, 0.0):
            return False
        self._due[what] = now + every_s
        return True
