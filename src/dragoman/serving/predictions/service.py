"""Predictions of any model: accepted with an id and run in the background, followed, waited for, cancelled; or run while the caller waits.

Dialects call it with rows that are checked. A prediction that was answered with an id is stored: it survives the end of this process.
"""

import asyncio
import contextlib
import itertools
import logging
import re
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from time import monotonic

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.predictions import Prediction, Progress
from dragoman.core.tensors import Value
from dragoman.hosting.frames import FrameError, unpack_rows
from dragoman.serving.fanout import signature_of
from dragoman.serving.gateway import Entry
from dragoman.serving.owners import wake
from dragoman.serving.predictions.deliveries import Deliveries
from dragoman.serving.predictions.keeper import Keeper
from dragoman.serving.predictions.limits import Parts
from dragoman.serving.predictions.runs import Ending, Run
from dragoman.serving.predictions.views import CANCELED, Event, View, error_text, fresh, view_of
from dragoman.serving.predictions.weights import OFF_LOOP_BYTES, weigh
from dragoman.serving.predictions.work import Work, pack
from dragoman.serving.webhooks import check_url
from dragoman.store import ACTIVE, Change

log = logging.getLogger("dragoman")

_ID = re.compile(r"[0-9a-f]{32}\Z")
_BEAT_S = 1.0
_LISTEN_S = 0.1
"""How often it is looked, between two beats, whether another worker has cancelled something here."""
_POLL_S = (0.05, 0.1, 0.2, 0.35, 0.5, 1.0)
"""How often a prediction that another worker runs is looked at for somebody who waits for it: less and less often."""
_GATHER_S = 0.02
"""Changes that come closer together are told as one."""
_ALL_MODELS = 4
_RAISED = frozenset({Kind.OVERLOADED, Kind.NOT_READY, Kind.UNAVAILABLE, Kind.UNSUPPORTED, Kind.CANCELLED})
"""What says nothing about the inputs: of a prediction that has not started it is raised by `run` instead of being a failure."""
DIALECT = "predictions"
"""For the counters, when the caller names none."""


class Predictions:
    """Make it on the event loop. `start` begins to look after what is stored, `close` ends everything that runs."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._work = Work(parts)
        self._keeper = Keeper(parts, self._work)
        self._deliveries = Deliveries(parts, self._work)
        self._work.notify = self._deliveries.ended
        self._work.on_room = self._refill
        self._room = asyncio.Event()
        self._beating: asyncio.Task[None] | None = None

    def write_webhooks(self, body: Callable[[View], bytes]) -> None:
        """Have webhooks carry this JSON: the dialect that offers them says how it writes a prediction."""
        self._deliveries.body = body

    # --- ask ---

    async def submit(
        self,
        entry: Entry,
        rows: Sequence[Value],
        *,
        operation: str = "predict",
        webhook: str = "",
        caller: str = "",
        dialect: str = DIALECT,
    ) -> str:
        """Accept a prediction and return its id: it is stored by then, and will run or be reported failed, whatever becomes of this process.

        Raises OVERLOADED when too many wait, UNAVAILABLE when it cannot be stored, and whatever `Gateway.admit` raises.
        """
        parts, work = self._parts, self._work
        self._admit(entry, rows, operation)
        if webhook:
            check_url(webhook)
        self._refuse_when_full(entry.name)
        size = weigh(list(rows))
        run = Run(
            Prediction(parts.new_id(), entry.name, entry.version, operation, Progress.CLAIMED, b"", parts.clock(), webhook=webhook, caller=caller),
            list(rows),
            size,
            clock=parts.clock,
            monotonic=parts.monotonic,
        )  # fmt: skip
        run.dialect = dialect
        later = len(work.runs) >= parts.limits.held or work.held_bytes + size > max(parts.limits.held_bytes, size)
        if later:
            self._keeper.pending.add(run.id, entry.name)
        else:
            work.hold(run)
        try:
            record = await self._record(run, later=later)
            insert = work.spawn(self._insert(record))
            try:
                await asyncio.shield(insert)
            except asyncio.CancelledError:
                work.spawn(self._withdraw(insert, record))
                raise
        except BaseException:
            work.drop(run)
            self._keeper.pending.discard(run.id)
            raise
        if not later:
            run.record = replace(record, inputs=b"")
            run.stored = True
            work.begin(run)
        return run.id

    async def run(
        self, entry: Entry, rows: Sequence[Value], *, operation: str = "predict", caller: str = "", dialect: str = DIALECT
    ) -> View:
        """Run a prediction while the caller waits; nothing is stored. Cancelling the await cancels it.

        A failure of the model or of an input is in the view, as it is for one that was submitted, and so is every failure of what had started;
        before that, what says that the server cannot now (OVERLOADED, NOT_READY, UNAVAILABLE) is raised, and so is what `Gateway.admit` raises.
        """
        parts = self._parts
        self._admit(entry, rows, operation)
        record = Prediction(parts.new_id(), entry.name, entry.version, operation, Progress.CLAIMED, b"", parts.clock(), caller=caller)
        run = Run(record, list(rows), 0, clock=parts.clock, monotonic=parts.monotonic)
        run.dialect = dialect
        try:
            outputs = await self._work.infer(run, monotonic() + parts.limits.run_timeout_s, patient=False)
            run.end(Ending(Progress.SUCCEEDED, parts.clock(), outputs))
        except ServingError as error:
            if error.kind in _RAISED and run.started is None:
                raise
            run.end(Ending(Progress.FAILED, parts.clock(), error=error_text(error), error_kind=error.kind.value))
        run.show()
        return run.view()

    # --- follow ---

    async def get(self, prediction_id: str) -> View:
        """How it stands now. Raises NOT_FOUND for an unknown id and for one that ended longer ago than results are kept."""
        if not self._parts.alone:
            await self._keeper.listen()
        run = self._known(prediction_id)
        return run.view() if run is not None else (await self._stored(prediction_id))[0]

    async def inputs(self, prediction_id: str) -> list[Value]:
        """The rows that were submitted; URLs in them are as they came. Raises NOT_FOUND."""
        run = self._known(prediction_id)
        if run is not None and run.rows:
            return run.rows
        await self.get(prediction_id)
        record = await (await self._parts.store.get()).prediction(prediction_id)
        if record is None:
            raise unknown(prediction_id)
        return await asyncio.to_thread(unpack_rows, record.inputs)

    async def wait(self, prediction_id: str, timeout_s: float) -> View:
        """How it stands when it has ended, or when the time is over."""
        end = monotonic() + timeout_s
        for looks in itertools.count():
            run = self._known(prediction_id)
            version = run.version if run is not None else 0
            view = await self.get(prediction_id)
            left_s = end - monotonic()
            if view.progress.terminal or left_s <= 0 or self._work.closing:
                return view
            await self._change(run, version, left_s, looks)
        raise AssertionError("the count never ends")

    async def events(self, prediction_id: str, *, idle_s: float = 15.0) -> AsyncGenerator[Event, None]:
        """What happens to it until it has ended: first how it stands and what it has printed so far, then every change.

        A reader that is slow misses pieces of a long log, and never holds anything up. Every `idle_s` without news there is an idle event.
        Ends early when the server stops. Raises NOT_FOUND.
        """
        progress: Progress | None = None
        logs = ""
        told = monotonic()
        for looks in itertools.count():
            run = self._known(prediction_id)
            version = run.version if run is not None else 0
            view = await self.get(prediction_id)
            piece = fresh(logs, view.logs)
            logs = view.logs
            if view.progress is not progress and not view.progress.terminal:
                progress = view.progress
                yield Event("status", view)
                told = monotonic()
            if piece:
                yield Event("log", view, piece)
                told = monotonic()
            if view.progress.terminal:
                yield Event("status", view)
                return
            if self._work.closing:
                return
            if monotonic() - told >= idle_s:
                yield Event("idle", view)
                told = monotonic()
            await self._change(run, version, max(0.0, told + idle_s - monotonic()), looks)

    async def cancel(self, prediction_id: str) -> View:
        """Cancel it, whatever stage it is in, and return how it stands: one that has ended stays as it is. Raises NOT_FOUND, UNAVAILABLE."""
        run = self._work.runs.get(prediction_id)
        if run is not None:
            ending = Ending(Progress.CANCELLED, self._parts.clock(), error=CANCELED, error_kind=Kind.CANCELLED.value)
            if self._work.end(run, ending):
                run.stop()
            while not run.settled:
                await run.changed(run.version, 5.0)
            if not run.lost:  # else another worker has it by now, and is told through the store
                return run.view()
        view, _ = await self._stored(prediction_id)
        if view.progress.terminal:
            return view
        store = await self._parts.store.get()
        change = Change(
            prediction_id,
            Progress.CANCELLED,
            ACTIVE | {Progress.PENDING},
            error=CANCELED,
            error_kind=Kind.CANCELLED.value,
            finished=self._parts.clock(),
        )
        cancelled = await store.change_prediction(change)
        self._keeper.pending.discard(prediction_id)
        view, record = await self._stored(prediction_id)
        if cancelled:
            self._parts.ended(record.model, Progress.CANCELLED)
            wake(self._parts.owners, record.owner)
            if record.webhook:
                self._deliveries.ended(view, record.webhook)
        return view

    # --- life ---

    async def start(self) -> None:
        """Look after what is stored from now on; an earlier server may have left something."""
        self._beating = asyncio.get_running_loop().create_task(self._beat_on())

    async def beat(self) -> None:
        """One round of what is done every second."""
        await self._keeper.beat()
        await self._deliveries.beat()
        await self._parts.tidy()

    async def close(self, drain_s: float = 0.0) -> None:
        """Accept nothing more. What runs has this long to end; everything else stays in the store for the next start."""
        self._work.closing = True
        for run in self._work.runs.values():
            run.tell()  # those who wait for it are sent home
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
        await self._deliveries.close()
        await self._work.close(drain_s)

    def waiting(self) -> Counter[str]:
        """Model -> how many predictions this worker has accepted that have not started; what the limits are about."""
        return self._work.waiting + self._keeper.pending.of

    async def unfinished(self) -> dict[str, tuple[int, int]]:
        """Model -> how many submitted predictions wait and how many run, in all workers. Raises UNAVAILABLE."""
        store = await self._parts.store.existing()
        return {} if store is None else await store.unfinished()

    # --- below the surface ---

    def _admit(self, entry: Entry, rows: Sequence[Value], operation: str) -> None:
        self._parts.gateway.admit(entry, rows, operation)
        self._parts.admit(rows, entry.signatures[signature_of(entry.signatures, operation)])

    async def _record(self, run: Run, *, later: bool) -> Prediction:
        """What is stored of a prediction when it is accepted: claimed by this worker, or left for whoever has room first."""
        try:
            inputs = await pack(run.rows)
        except FrameError as error:
            raise invalid(f"the inputs for model '{run.record.model}' cannot be stored: {error}") from None
        owner = (await self._work.owner()).name
        if later:
            return replace(run.record, progress=Progress.PENDING, inputs=inputs)
        lease = self._parts.clock() + self._parts.limits.lease_s
        return replace(run.record, owner=owner, attempt=1, lease_until=lease, inputs=inputs)

    async def _insert(self, record: Prediction) -> None:
        """Store it; if the server stops meanwhile, for the next one to run."""
        store = await self._parts.store.get()
        await store.add_prediction(record)
        if self._work.closing and record.progress is Progress.CLAIMED:
            await store.change_prediction(Change(record.id, Progress.PENDING, frozenset({Progress.CLAIMED}), record.owner, record.attempt))

    async def _withdraw(self, insert: asyncio.Task[None], record: Prediction) -> None:
        """Cancel what was stored although whoever asked had gone: nobody knows its id."""
        try:
            await insert
            store = await self._parts.store.get()
            change = Change(record.id, Progress.CANCELLED, error=CANCELED, error_kind=Kind.CANCELLED.value, finished=self._parts.clock())
            if await store.change_prediction(change):
                self._parts.ended(record.model, Progress.CANCELLED)
        except ServingError as error:
            log.warning("a prediction whose client had gone may run all the same: %s", error.message)

    def _refuse_when_full(self, model: str) -> None:
        if self._work.closing:
            raise ServingError(Kind.UNAVAILABLE, "the server is stopping; it accepts no more predictions", retry_after_s=5.0)
        most = self._parts.limits.waiting
        waiting = self.waiting()
        here, everywhere = waiting[model], waiting.total()
        if here >= most or everywhere >= _ALL_MODELS * most:
            whose = f"{here} predictions wait for model '{model}', at most {most} may"
            text = whose if here >= most else f"{everywhere} predictions wait, at most {_ALL_MODELS * most} may"
            raise ServingError(Kind.OVERLOADED, text, what="prediction", retry_after_s=1.0)

    def _known(self, prediction_id: str) -> Run | None:
        """The run behind an id, if this process knows more than the store."""
        run = self._work.runs.get(prediction_id)
        if run is not None:
            return run if run.stored and not run.lost else None
        run = self._work.recent.get(prediction_id)
        if run is not None and run.ending is not None and self._work.expired(run.ending.finished):
            return None
        return run

    async def _stored(self, prediction_id: str) -> tuple[View, Prediction]:
        """A stored prediction as callers see it, and as it is."""
        if not _ID.match(prediction_id):
            raise unknown(prediction_id)
        store = await self._parts.store.existing()
        record = None if store is None else await store.prediction(prediction_id, inputs=False)
        if record is None or self._work.expired(record.finished):
            raise unknown(prediction_id)
        if record.outputs is None or len(record.outputs) < OFF_LOOP_BYTES:
            return view_of(record, unpack_rows), record
        return await asyncio.to_thread(view_of, record, unpack_rows), record

    async def _change(self, run: Run | None, version: int, timeout_s: float, looks: int) -> None:
        """Wait until there may be news."""
        if run is None or run.lost:
            await asyncio.sleep(min(timeout_s, _POLL_S[min(looks, len(_POLL_S) - 1)]))
        else:
            await run.changed(version, timeout_s)
            if not run.settled:
                await asyncio.sleep(min(timeout_s, _GATHER_S))

    async def _beat_on(self) -> None:
        """Beat every second, and claim in between whenever there is room for what waits in the store."""
        while True:
            try:
                await self._round()
            except Exception:  # leases, retention and webhooks depend on the next one
                log.exception("looking after predictions failed; it is tried again")
                await asyncio.sleep(_BEAT_S)

    async def _round(self) -> None:
        await self.beat()
        next_beat = monotonic() + _BEAT_S
        while (left_s := next_beat - monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, _LISTEN_S)):
                    await self._room.wait()
            await self._keeper.listen()
            if self._room.is_set():
                self._room.clear()
                await self._keeper.refill()

    def _refill(self) -> None:
        if self._keeper.more:
            self._room.set()


def unknown(prediction_id: str) -> ServingError:
    return ServingError(Kind.NOT_FOUND, f"there is no prediction '{prediction_id[:64]}'", what="prediction")


__all__ = ["DIALECT", "Predictions"]
