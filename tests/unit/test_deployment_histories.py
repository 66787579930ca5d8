"""Random histories of serves and stops from many tasks through several workers, loads that fail, and workers that are replaced.

Every call ends, with no other error than that of a load; nothing is opened twice in one worker at a time; and what every worker serves in the
end is what the store says.
"""

import asyncio
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragoman.core.errors import Kind, ServingError
from dragoman.core.lifecycle import Policy, PolicyKind
from dragoman.store import Store
from tests.servables import run
from tests.stores import CASES, Case
from tests.workers import FakeWorker, register, until

VERSIONS = ("1", "2", "3")


@dataclass(frozen=True)
class Act:
    """What one task does: `what` through a worker, after so many turns of the loop."""

    what: str
    worker: int
    version: str
    turns: int


acts = st.builds(
    Act,
    st.sampled_from(["serve", "serve", "stop", "latest", "all", "undeploy", "follow", "replace"]),
    st.integers(0, 2),
    st.sampled_from(VERSIONS),
    st.integers(0, 40),
)


class Cluster:
    """Three places for workers over one store; each task of a history acts through the worker that is in its place then."""

    def __init__(self, store: Store, place: Path, fails: frozenset[str]) -> None:
        self.store = store
        self.place = place
        self.fails = fails
        self.workers: list[FakeWorker] = []
        self.ended: list[FakeWorker] = []

    async def new(self) -> FakeWorker:
        worker = FakeWorker(self.store, self.place, drain_timeout_s=5.0)
        worker.opener.fails = {version: ServingError(Kind.INVALID_INPUT, "it does not load") for version in self.fails}
        await worker.start()
        return worker

    async def act(self, act: Act) -> None:
        for _ in range(act.turns):
            await asyncio.sleep(0)
        worker = self.workers[act.worker]
        try:
            match act.what:
                case "serve":
                    await worker.deployments.serve("iris", act.version)
                case "stop":
                    await worker.deployments.stop("iris", act.version)
                case "latest" | "all":
                    await worker.deployments.deploy("iris", Policy(PolicyKind(act.what)))
                case "undeploy":
                    await worker.deployments.undeploy("iris")
                case "follow":
                    await worker.deployments.follow("iris")
                case "replace":
                    if worker not in self.ended:
                        self.ended.append(worker)
                        await worker.close()
                        self.workers[act.worker] = await self.new()
        except ServingError as error:
            if not any(words in error.message for words in ("it does not load", "shutting down", "has left")):
                raise

    async def close(self) -> None:
        for worker in self.workers:
            await worker.close()

    def settled(self, wanted: set[str]) -> bool:
        """Whether every worker has just what is wanted and loads, and has closed everything else."""
        good = {v for v in wanted if v not in self.fails}
        return all(set(w.serves()) == good and len(w.opener.open_now()) == len(good) and not w.opener.running for w in self.workers)


async def play(case: Case, folder: Path, history: Sequence[Act], fails: frozenset[str]) -> None:
    (folder / "run").mkdir()
    async with AsyncExitStack() as stack:
        store = await case.open(folder)
        stack.push_async_callback(store.close)
        await register(store, *VERSIONS)
        cluster = Cluster(store, folder, fails)
        stack.push_async_callback(cluster.close)
        for _ in range(3):
            cluster.workers.append(await cluster.new())
        await asyncio.gather(*(cluster.act(act) for act in history))
        for worker in cluster.workers:  # what follows the catalog by itself has ended, too
            await until(lambda worker=worker: not worker.deployments.following)  # type: ignore[misc]
        wish = next(iter(await store.wishes()), None)
        wanted = set(wish.document.get("versions", {})) if wish is not None else set()
        replaced = any(act.what == "replace" for act in history)  # with whoever would have withdrawn a wish
        assert replaced or not wanted & fails, "what failed stayed wished for"
        await until(lambda: cluster.settled(wanted))
        # The last wish of each version counts.
        await asyncio.gather(*(cluster.workers[i].deployments.serve("iris", v) for i, v in enumerate(VERSIONS) if v not in fails))
        assert cluster.settled(set(VERSIONS))
        await asyncio.gather(*(cluster.workers[i].deployments.stop("iris", v) for i, v in enumerate(VERSIONS)))
        await until(lambda: cluster.settled(set()))
        await cluster.close()
        for worker in (*cluster.workers, *cluster.ended):
            assert worker.opener.doubles == 0
            assert [s.closed for s in worker.opener.opened] == [1] * len(worker.opener.opened)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_random_histories_end_as_the_store_says(case: Case) -> None:
    """In memory many, over the real store some."""

    @settings(max_examples=40 if case.name == "memory" else 4, deadline=None)
    @given(st.lists(acts, min_size=1, max_size=12), st.frozensets(st.sampled_from(VERSIONS), max_size=1))
    def whole(history: list[Act], fails: frozenset[str]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            run(lambda: play(case, Path(folder), history, fails))

    whole()
