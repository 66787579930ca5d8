"""Random histories of two workers over one store: whatever happens, no prediction is lost, no ending changes, nothing that ran runs again."""

import asyncio
import tempfile
from collections.abc import Awaitable
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from dragoman.core.predictions import Prediction, Progress, after_lease, may_move
from dragoman.serving.predictions import View
from dragoman.store import Change
from tests.fakes_store import FakeStore
from tests.servables import run
from tests.unit.predictions.rig import BROKEN, DOWN, Bench, Clock, no_sleep

P = Progress
STEPS = ("submit", "start", "finish", "fail", "cancel", "beat", "time", "crash", "stop", "down", "up", "look")
Step = tuple[str, int, int]


class Watched(FakeStore):
    """A store that checks every write against the table of moves."""

    async def change_prediction(self, change: Change) -> bool:
        before = self._predictions.get(change.id)
        applied = await super().change_prediction(change)
        if applied and before is not None and change.progress is not None:
            assert may_move(before.progress, change.progress), (before.progress, change.progress)
        return applied


class World:
    """Two workers, what was asked of them, and what callers have seen."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Watched()
        self.clock = Clock()
        self.workers = [self.worker(), self.worker()]
        self.accepted: list[str] = []
        self.ended: dict[str, View] = {}
        self.ran: dict[int, object] = {}
        """Number of a row that is stored as running -> the worker that runs it."""

    def worker(self) -> Bench:
        return Bench(self.folder, self.store, clock=self.clock, sleep=no_sleep)

    async def step(self, what: str, which: int, index: int) -> None:
        it = self.workers[which]
        waiting = sorted(it.servable.waiting)
        number = waiting[index % len(waiting)] if waiting else None
        key = self.accepted[index % len(self.accepted)] if self.accepted else None
        if what == "submit":
            await self.tried(self.submit(it))
        elif what == "start" and number is not None:
            await it.service.beat()  # one that has slept for longer than its lease looks after it first
            row = it.servable.asked[number].inputs.items[0]["n"]  # type: ignore[index] # rows
            if not it.servable.waiting[number].done():
                assert self.ran.get(row, it) is it, "what had started elsewhere runs again"
            it.servable.start(number, "x")
            await it.service.beat()
            if any(p.progress is P.RUNNING for p in self.store._predictions.values() if p.id == self.accepted[row]):
                self.ran.setdefault(row, it)
        elif what in ("finish", "fail") and number is not None:
            it.servable.finish(number, BROKEN if what == "fail" else {"y": number})
        elif what == "cancel" and key is not None:
            await self.tried(self.cancel(it, key))
        elif what == "beat":
            await it.service.beat()
        elif what == "time":
            self.clock.now += 7 * (1 + index)
            for worker in self.workers:
                worker.monotonic.now += 7 * (1 + index)
        elif what == "crash" or what == "stop":
            down, self.store.failure = self.store.failure, DOWN if what == "crash" else self.store.failure
            await it.service.close()
            self.store.failure = down
            self.workers[which] = self.worker()
        elif what == "down":
            self.store.failure = DOWN
        elif what == "up":
            self.store.failure = None
        elif what == "look" and key is not None:
            await self.tried(self.look(it, key))
        for _ in range(3):
            await asyncio.sleep(0)

    async def submit(self, it: Bench) -> None:
        self.accepted.append(await it.submit({"n": len(self.accepted)}))

    async def cancel(self, it: Bench, key: str) -> None:
        up = self.store.failure is None
        view = await it.service.cancel(key)
        if up:
            assert view.progress.terminal
            self.see(view)

    async def look(self, it: Bench, key: str) -> None:
        up = self.store.failure is None
        view = await it.service.get(key)
        if up and view.progress.terminal and (await self.store.prediction(key)).progress.terminal:  # type: ignore[union-attr] # it is there
            self.see(view)

    def see(self, view: View) -> None:
        """An ending that was seen while the store worked is the only one."""
        before = self.ended.setdefault(view.id, view)
        assert (before.progress, before.outputs, before.error) == (view.progress, view.outputs, view.error)

    async def tried(self, work: Awaitable[None]) -> None:
        """Anything may fail while the store is down, and nothing else."""
        (failed,) = await asyncio.gather(work, return_exceptions=True)
        if isinstance(failed, BaseException) and self.store.failure is None:
            raise failed

    async def heal(self) -> None:
        """The store works, the workers live, the model answers: everything ends."""
        self.store.failure = None
        for _ in range(200):
            for worker in self.workers:
                worker.monotonic.now += 11
                self.clock.now += 1
                await worker.service.beat()
                for number in sorted(worker.servable.waiting):
                    worker.servable.finish(number, {"y": number})
            for _ in range(3):
                await asyncio.sleep(0)
            if all(p.progress.terminal for p in self.store._predictions.values()):
                break
        for key in self.accepted:
            views = [await worker.service.get(key) for worker in self.workers]
            assert all(view.progress.terminal for view in views), views
            for view in views:
                self.see(view)

    async def close(self) -> None:
        self.store.failure = None
        for worker in self.workers:
            await worker.service.close()


@settings(max_examples=150)
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 1), st.integers(0, 9)), max_size=40))
def test_no_history_loses_or_changes_a_prediction(steps: list[Step]) -> None:
    """After all of it every accepted prediction has ended, everybody agrees how, and an ending once seen is the one that stays."""

    async def scenario() -> None:
        with tempfile.TemporaryDirectory() as folder:
            world = World(Path(folder))
            try:
                for _ in range(2):
                    await world.step("submit", 0, 0)
                for step in steps:
                    await world.step(*step)
                await world.heal()
            finally:
                await world.close()

    run(scenario)


def _record(progress: Progress, attempt: int) -> Prediction:
    return Prediction("0" * 32, "m", "1", "predict", progress, b"", 0.0, attempt=attempt)


@given(st.sampled_from(list(Progress)), st.sampled_from(list(Progress)))
def test_an_ending_is_final(before: Progress, after: Progress) -> None:
    """Nothing leaves a terminal state; everything else can end in each of the ways that callers can cause."""
    if before.terminal:
        assert not may_move(before, after)
    elif after in (P.FAILED, P.CANCELLED):
        assert may_move(before, after)


@given(st.sampled_from([P.CLAIMED, P.RUNNING]), st.integers(1, 9), st.booleans(), st.integers(1, 5))
def test_what_becomes_of_orphans(progress: Progress, attempt: int, repeatable: bool, most: int) -> None:
    """What had not started always waits again; what ran only where it may be repeated, and not for ever. Either is a legal move."""
    after = after_lease(_record(progress, attempt), repeatable=repeatable, most_attempts=most)
    assert may_move(progress, after)
    assert (after is P.PENDING) == (progress is P.CLAIMED or (repeatable and attempt < most))
