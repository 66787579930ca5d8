"""Runs the predictions that this worker owns, and writes down how they come out. Called by the service (accept, cancel) and the keeper.

A prediction's ending is decided once, in memory; it is stored before callers see it, unless the store is down: then they see it at once and
storing is tried again until it works. A write that is refused means that somebody else decides now: the run is lost, the store is asked.
"""

import asyncio
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from dragoman.core.errors import Kind, ServingError
from dragoman.core.predictions import Prediction, Progress
from dragoman.core.tensors import Value
from dragoman.hosting.frames import FrameError, pack_rows
from dragoman.serving.fanout import signature_of
from dragoman.serving.gateway import Entry
from dragoman.serving.owners import Owner
from dragoman.serving.predictions.gates import Gate, capacity
from dragoman.serving.predictions.limits import Parts
from dragoman.serving.predictions.runs import Ending, Run
from dragoman.serving.predictions.views import TIMED_OUT, View, error_text
from dragoman.serving.predictions.weights import OFF_LOOP_BYTES, weigh
from dragoman.store import ACTIVE, Change

log = logging.getLogger("dragoman")

FAR_S = 10 * 365 * 86400.0
"""The deadline of what may wait as long as it takes: a finite number, because the gateway gives its own to requests without one."""
_TRY_AGAIN = frozenset({Kind.NOT_READY, Kind.UNAVAILABLE, Kind.OVERLOADED})
_START_S = 0.02
"""A start is stored when the run is still going then: most models are faster, and their predictions cost one write less. A server that is
killed within this time of a start runs the prediction again, as if it had not started."""
_MODEL_PAUSE_S = 0.25
_STORE_PAUSES_S = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
_MOST_RECENT = 1024
_RECENT_BYTES = 64 << 20


class Work:
    """`runs` are those that this worker owns and that have not ended, or whose ending is not stored yet; `recent` some that ended."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.runs: dict[str, Run] = {}
        self.recent: OrderedDict[str, Run] = OrderedDict()
        self.held_bytes = 0
        self.waiting: Counter[str] = Counter()
        """Model -> how many of `runs` have not started."""
        self._recent_bytes = 0
        self._gates: dict[str, Gate] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._owner: Owner | None = None
        self.notify: Callable[[View, str], None] = lambda view, url: None
        """Told of each of this worker's predictions that has ended and has a webhook: (how it came out, the URL)."""
        self.on_room: Callable[[], None] = lambda: None
        """Told when fewer than half as many runs are held as may be."""
        self.closing = False

    # --- ownership ---

    async def owner(self) -> Owner:
        """This worker as an owner; made when it owns something for the first time. Raises UNAVAILABLE."""
        if self._owner is None:
            try:
                self._owner = Owner(self._parts.owners)
            except OSError as error:
                log.exception("predictions cannot be accepted: the folder of their owners cannot be written")
                raise ServingError(Kind.UNAVAILABLE, "this server cannot keep predictions: its data directory is not writable") from error
        return self._owner

    def heard(self) -> bool:
        """Whether another worker has something to tell this one."""
        return self._owner is not None and self._owner.heard()

    def hold(self, run: Run) -> None:
        """Count a run in, before its first write."""
        self.runs[run.id] = run
        self.held_bytes += run.size
        self.waiting[run.record.model] += 1

    def drop(self, run: Run) -> None:
        """Forget a run."""
        if self.runs.pop(run.id, None) is not None:
            self.held_bytes -= run.size
            if run.started is None:
                self.waiting[run.record.model] -= 1
            if len(self.runs) * 2 < self._parts.limits.held:
                self.on_room()

    def begin(self, run: Run) -> None:
        """Start working on a run that is held; while the server stops nothing starts any more."""
        if self.closing:
            run.lose()
            self.drop(run)
            return
        run.on_start = self._started
        run.task = self.spawn(self._drive(run))

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task that close() waits for or cancels."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _started(self, run: Run) -> None:
        if run.id in self.runs:
            self.waiting[run.record.model] -= 1
        self.spawn(self._save_start(run))

    async def _save_start(self, run: Run) -> None:
        await self._parts.sleep(_START_S)
        await self.save_progress(run)

    # --- one run ---

    async def infer(self, run: Run, deadline: float, *, patient: bool) -> list[Value]:
        """The outputs of a run's rows, once the model is there."""
        entry = await self._entry(run, patient=patient)
        name = signature_of(entry.signatures, run.record.operation)
        rows = await self._parts.resolve(run.rows, entry.signatures[name])
        since = self._parts.monotonic()
        while True:
            entry = await self._entry(run, patient=patient)
            self._parts.gateway.let_in(entry.name)
            try:
                return await self._parts.gateway.infer_rows(
                    entry,
                    rows,
                    operation=run.record.operation,
                    deadline=deadline,
                    dialect=run.dialect,
                    caller=run.record.caller,
                    watch=run.watch,
                    done=run.row_done,
                    patient=patient,
                )
            except ServingError as error:
                # Before anything of it ran it may wait for the model again: it was unloaded, or its process died.
                again = patient and error.kind in _TRY_AGAIN and run.started is None
                if not again or self._parts.monotonic() - since > self._parts.limits.model_wait_s:
                    raise
            await self._parts.sleep(_MODEL_PAUSE_S)

    async def _entry(self, run: Run, *, patient: bool) -> Entry:
        """The model of a run. Nothing is awaited when it is there; with `patient` it is waited for, as long as it is loading."""
        since = self._parts.monotonic()
        while True:
            try:
                return self._parts.gateway.find(run.record.model, run.record.version)
            except ServingError as error:
                if not patient:
                    raise
                if error.kind is not Kind.NOT_READY and self._parts.monotonic() - since > self._parts.limits.model_wait_s:
                    raise
            await self._parts.sleep(_MODEL_PAUSE_S)

    async def _drive(self, run: Run) -> None:
        """From the queue to its ending; cancelled, it leaves the run as it is."""
        try:
            async with self._gate(run.record).enter(len(run.rows)):
                outputs = await self.infer(run, time.monotonic() + FAR_S, patient=True)
            ending = Ending(Progress.SUCCEEDED, self._parts.clock(), outputs, await pack(outputs))
        except ServingError as error:
            ending = self._failed(error)
        except FrameError as error:
            ending = self._failed(ServingError(Kind.MODEL_FAILED, f"model '{run.record.model}' answered what cannot be stored: {error}"))
        except Exception:
            log.exception("prediction %s failed inside the server", run.id)
            ending = self._failed(ServingError(Kind.INTERNAL, "the server failed; its log says why"))
        self.end(run, ending)

    def _failed(self, error: ServingError) -> Ending:
        return Ending(Progress.FAILED, self._parts.clock(), error=error_text(error), error_kind=error.kind.value)

    def expire(self, run: Run) -> None:
        """Break off a run that takes too long."""
        if self.end(run, Ending(Progress.FAILED, self._parts.clock(), error=TIMED_OUT, error_kind=Kind.TIMEOUT.value)):
            run.stop()

    def _gate(self, record: Prediction) -> Gate:
        gate = self._gates.get(record.model)
        if gate is None:
            try:
                most = capacity(self._parts.gateway.find(record.model, record.version).spec)
            except ServingError:  # not ready: nothing of it can run, so nobody is held up by a narrow gate
                return Gate(1)
            gate = self._gates[record.model] = Gate(most)
        return gate

    # --- what is written ---

    def end(self, run: Run, ending: Ending) -> bool:
        """Decide a run's ending and store it, in the background. False when it was decided before."""
        if not run.end(ending):
            return False
        self.spawn(self._settle(run, ending))
        return True

    async def _settle(self, run: Run, ending: Ending) -> None:
        async with run.writing:
            change = Change(
                run.id,
                progress=ending.progress,
                expect=ACTIVE,
                owner=run.record.owner,
                attempt=run.record.attempt,
                outputs=ending.packed,
                error=ending.error,
                error_kind=ending.error_kind,
                logs=run.logs.text,
                started=run.started,
                finished=ending.finished,
            )
            failures = 0
            while True:
                try:
                    store = await self._parts.store.get()
                    applied = await store.change_prediction(change)
                    if not applied and failures:  # the store may have failed when the ending was there already
                        applied = _is_done(await store.prediction(run.id, inputs=False), change)
                    break
                except Exception as error:
                    if failures == 0:  # whatever it is, the ending must not be lost, nor anybody left waiting for it
                        log.warning("the end of prediction %s cannot be stored yet: %s", run.id, error, exc_info=unexpected(error))
                    run.show()
                    await self._parts.sleep(_STORE_PAUSES_S[min(failures, len(_STORE_PAUSES_S) - 1)])
                    failures += 1
        self.drop(run)
        if not applied:
            log.warning("prediction %s was decided elsewhere; what came of it here is dropped", run.id)
            run.lose()
            return
        self._parts.ended(run.record.model, ending.progress)
        run.show()
        self._remember(run)
        if run.record.webhook:
            self.notify(run.view(), run.record.webhook)

    async def save_progress(self, run: Run) -> None:
        """Store that a run has started, and what it has printed. With the store down it stays unsaved, until the next time."""
        if run.ending is not None:  # that is being stored, for as long as it takes, and nobody else may wait for it
            return
        async with run.writing:
            if run.ending is not None or run.lost or run.started is None or (run.started_saved and run.logs_saved):
                return
            text = None if run.logs_saved else run.logs.text
            run.logs_saved = True
            running = Change(
                run.id,
                expect=frozenset({Progress.RUNNING}),
                owner=run.record.owner,
                attempt=run.record.attempt,
                started=run.started,
                logs=text,
            )
            starting = replace(running, progress=Progress.RUNNING, expect=frozenset({Progress.CLAIMED}))
            try:
                store = await self._parts.store.get()
                # One that is RUNNING already has been started by this worker, which was not told that this was stored.
                applied = (not run.started_saved and await store.change_prediction(starting)) or await store.change_prediction(running)
            except ServingError:
                run.logs_saved = text is None
                return
            run.started_saved = True
        if not applied:
            self.lose(run)

    def lose(self, run: Run) -> None:
        """Somebody else has taken or cancelled it: break it off and forget it."""
        if run.ending is None and not run.lost:
            run.lose()
            run.stop()
            self.drop(run)

    def _remember(self, run: Run) -> None:
        """Keep what ended for those who will ask soon."""
        assert run.ending is not None
        run.size = weight = len(run.ending.packed or b"") + len(run.ending.error) + len(run.logs.text)
        run.ending = replace(run.ending, packed=None)
        if weight > _RECENT_BYTES // 8:
            return
        self.recent[run.id] = run
        self._recent_bytes += weight
        while len(self.recent) > _MOST_RECENT or self._recent_bytes > _RECENT_BYTES:
            self._recent_bytes -= self.recent.popitem(last=False)[1].size

    def forget(self, run: Run) -> None:
        """Keep it no longer among the recent ones."""
        if self.recent.pop(run.id, None) is not None:
            self._recent_bytes -= run.size

    def expired(self, finished: float | None) -> bool:
        """Whether what ended then is no longer shown."""
        return finished is not None and finished + self._parts.limits.expiration_s <= self._parts.clock()

    # --- the end ---

    async def close(self, timeout_s: float) -> None:
        """Give what runs that much time; what waits goes back to the store at once, for the next start or another worker."""
        self.closing = True
        waiting = [run for run in self.runs.values() if run.started is None and run.ending is None]
        for run in waiting:
            run.stop()
        await asyncio.gather(*(self._release(run) for run in waiting))
        until = time.monotonic() + timeout_s
        while self._tasks and (left_s := until - time.monotonic()) > 0:  # one may start another
            await asyncio.wait(set(self._tasks), timeout=left_s)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for run in list(self.runs.values()):
            await self.save_progress(run)
            self.drop(run)
            run.lose()
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.close()

    async def _release(self, run: Run) -> None:
        async with run.writing:
            run.lose()
            self.drop(run)
            change = Change(run.id, Progress.PENDING, frozenset({Progress.CLAIMED}), run.record.owner, run.record.attempt)
            try:
                await (await self._parts.store.get()).change_prediction(change)
            except ServingError as error:  # whoever starts next finds that its owner is gone
                log.warning("prediction %s could not be given back: %s", run.id, error.message)


def _is_done(found: Prediction | None, change: Change) -> bool:
    """Whether this very ending is stored."""
    return found is not None and (found.progress, found.owner, found.attempt, found.finished) == (
        change.progress,
        change.owner,
        change.attempt,
        change.finished,
    )


def unexpected(error: Exception) -> bool:
    """Whether an error of the store is a bug rather than a database that is down."""
    return not isinstance(error, ServingError)


async def pack(rows: list[Value]) -> bytes:
    """Rows as they are stored; large ones are packed off the loop. Raises FrameError."""
    return pack_rows(rows) if weigh(rows) < OFF_LOOP_BYTES else await asyncio.to_thread(pack_rows, rows)


__all__ = ["FAR_S", "Run", "Work", "pack"]
