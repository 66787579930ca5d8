"""The control plane: what should be served. Wishes are kept in the store, one document per model; every change is a new generation.

Dialects and the command line wish and deploy; the reconciler of each worker watches and reports; `settled` is the barrier over all workers.
Targets of the command line are fixed here and never stored. Nothing here loads a model.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from dragoman.core.errors import Kind, ServingError
from dragoman.core.lifecycle import Desired, Wanted
from dragoman.core.model import EMPTY, ModelSpec
from dragoman.serving.changes import Changes
from dragoman.serving.late_store import LateStore
from dragoman.serving.members import Members
from dragoman.serving.wishes import (
    FIXED,
    Document,
    brought,
    earlier_stages,
    failed_of,
    labels_of,
    model_of,
    standing_of,
    tried_again,
    wanted_of,
    withdrawn,
)
from dragoman.serving.words import check_name
from dragoman.store import Report, Rewrite, Wish

log = logging.getLogger("dragoman.models")

_NOTHING = Desired(0, EMPTY, EMPTY)
_ENDING = "the server is shutting down"
_LOOK_S = 0.5
"""How often whoever waits for other workers looks whether one of them has died, which no bell tells."""

Failures: TypeAlias = Mapping[str, str]
"""Version -> reason."""
Stages: TypeAlias = Mapping[tuple[str, str], str]
"""(model, version) -> stage."""


@dataclass(frozen=True, slots=True)
class _Applied:
    """How far this worker is with one model: what it has applied, by its own count and by that of the store."""

    count: int
    generation: int
    failures: Failures


class Registry:
    """One per worker. `run` is the run of this server, shared by its workers: wishes of it hold as long as the server lives.

    A worker that is all of its server keeps those in memory, so that a server which only has targets needs no store.
    """

    def __init__(self, store: LateStore, members: Members | None = None, *, run: str = "run") -> None:
        self._store = store
        self.members = members or Members()
        self.run = run
        self.changes = Changes()
        """Told whenever a wish or a report of any worker may have changed."""
        self.news = asyncio.Event()
        """Set when a wish says by which configuration a model is to be looked for, and nobody has looked yet: see `unread`."""
        self._fixed: dict[str, tuple[Mapping[str, Wanted], Mapping[str, str]]] = {}
        self._read: dict[str, Mapping[str, Any]] = {}
        """The configuration by which what is fixed was found, where a wish has brought it."""
        self._unread: dict[str, Wish] = {}
        """Wishes that count only when somebody has looked: until then nothing that they say is applied, or reported as applied."""
        self._wishes: dict[tuple[str, str], Wish] = {}
        self._fallen: dict[tuple[str, str, str], tuple[int, str]] = {}
        """(model, run, version) -> the newest generation in which it stands as failed, and the reason."""
        self._desired: dict[str, Desired] = {}
        self._applied: dict[str, _Applied] = {}
        self._reports: dict[str, Report] = {}
        self._watchers: list[Callable[[str], None]] = []
        self._count = 0
        self._ended = False

    # --- what users and dialects ask ---

    def desired(self, name: str) -> Desired | None:
        """What should be served of a model, as far as this worker knows; None for one that nobody ever asked for."""
        return self._desired.get(name)

    def names(self) -> list[str]:
        """Every model of which something was ever asked for."""
        return sorted(self._desired)

    def document(self, name: str, run: str = "") -> Document:
        """The wish that stands for a model, as far as this worker knows."""
        wish = self._wishes.get((name, run))
        return EMPTY if wish is None else wish.document

    def generation(self, name: str) -> int:
        """The newest wish for a model, of those in the store, that this worker has taken in."""
        stored = ("",) if self.members.whole else ("", self.run)
        return max((w.generation for run in stored if (w := self._wishes.get((name, run)))), default=0)

    async def applied(self, name: str) -> bool:
        """Whether every live worker has applied the wish that stands, or a later one, as `settled` means it; does not wait."""
        desired, mine = self._desired.get(name), self._applied.get(name)
        if desired is not None and (mine is None or mine.count < desired.generation):
            return False
        if self.members.alone or (generation := self.generation(name)) == 0:
            return True
        store = await self._store.get()
        others = await self.members.others(store, uncounted=False)
        return others <= {r.worker for r in await store.reports(name) if r.generation >= generation}

    def fixed(self, name: str) -> Collection[str]:
        """The versions of a target of the command line."""
        fixed = self._fixed.get(name)
        return () if fixed is None else fixed[0].keys()

    def failures(self, name: str) -> Failures:
        """What of the model could not be loaded in this worker."""
        applied = self._applied.get(name)
        return EMPTY if applied is None else applied.failures

    def fix(
        self,
        name: str,
        versions: Mapping[str, ModelSpec],
        labels: Mapping[str, str] = EMPTY,
        faults: Mapping[str, ServingError] = EMPTY,
        model: Mapping[str, Any] | None = None,
    ) -> None:
        """Serve a target of the command line, in this worker and as long as it lives. `settled` waits for it.

        `faults` are versions that should be served and cannot even be read: they fail to load, for that reason. `model` is what a wish said of
        where to look (see `models`).
        """
        check_name(name)
        wanted = {v: Wanted(spec.revision, spec) for v, spec in versions.items()}
        wanted |= {v: Wanted(f"unreadable: {error.message}", fault=error) for v, error in faults.items()}
        self._fixed[name] = (wanted, dict(labels))
        wish = self._unread.get(name)
        if wish is not None and model is not None and model_of(wish.document) == model:
            del self._unread[name]
            self._read[name] = model
            self._wishes[name, self.run] = wish
        self._compose(name)

    def models(self) -> dict[str, Mapping[str, Any]]:
        """What wishes of this run say of where models are to be looked for, by name."""
        own = {name: wish for (name, run), wish in self._wishes.items() if run == self.run} | self._unread
        return {name: model for name, wish in own.items() if (model := model_of(wish.document)) is not None}

    def unread(self) -> Collection[str]:
        """The models of which a wish waits until they are fixed by what it says."""
        return self._unread.keys()

    async def wish(self, name: str, rewrite: Rewrite, *, stages: Stages = EMPTY, run: str = "") -> Wish:
        """Change what should be served of a model, for ever or for one run of the server; returns the wish that stands then.

        `rewrite` makes the document from the wish that stands; None leaves it. Raises UNAVAILABLE when the store cannot be used.
        """
        check_name(name)
        self._refuse_when_ended()
        if run and self.members.whole:
            wish = self._wish_here(name, rewrite, run)
        else:
            wish = await (await self._store.get()).wish(name, rewrite, run=run, stages=stages)
        self.absorb([wish])
        return wish

    async def deploy(
        self,
        name: str,
        rewrite: Rewrite,
        *,
        stages: Stages = EMPTY,
        required: Collection[str] = (),
        run: str = "",
        wished: asyncio.Event | None = None,
    ) -> Wish:
        """Wish, and wait until it is so in every worker. `wished` is set when only the second is left.

        Raises UNAVAILABLE (what="load") with the reason when a version that this wish brought failed to load, or one that is `required`. What it
        brought is then withdrawn, so that the versions before go on and no restart tries it again; their stages become what they were. What
        a later wish has taken away meanwhile is no error.
        """
        before: Wish | None = None

        def noted(standing: Wish | None) -> Document | None:
            nonlocal before
            before = standing
            return rewrite(standing)

        worked, tried = self._works(name), self._tried(name)
        wish = await self.wish(name, noted, stages=stages, run=run)
        if wished is not None:
            wished.set()
        failures = await self.settled(name, wish.generation, run)
        old = self._before(name, run) if before is None else before.document
        new = brought(old, wish.document)
        if any(version in failures for version in tried.intersection(required) - new):  # it had failed: asked for again, it is tried again
            again = await self.wish(name, tried_again, run=run)
            failures = await self.settled(name, again.generation, run)
        mine: Failures = {version: reason for version, reason in failures.items() if version in new}
        if mine and not (run and not worked):  # what never worked is nothing to go back to, and is forgotten with the server
            mine = await self._withdraw(name, wish, old, mine, run)
        desired = self._desired.get(name, _NOTHING)
        asked = {v: reason for v, reason in failures.items() if v in required and v not in new and v in desired.versions}
        # Who asked for the same beside this call may have withdrawn it already, and others may have asked again: it has failed for this call.
        fallen = {v: self._fallen.get((name, run, v), (0, "")) for v in required}
        gone = {v: reason for v, (generation, reason) in fallen.items() if generation > wish.generation}
        for version, reason in {**mine, **asked, **gone}.items():
            raise ServingError(Kind.UNAVAILABLE, f"model '{name}' version {version} failed to load: {reason}", what="load")
        return wish

    async def settled(self, name: str, generation: int = 0, run: str = "") -> Failures:
        """Wait until every live worker has applied a wish of that generation or a later one; returns what failed to load in any of them.

        A wish of a run is waited for in the workers of this server only. Without a generation it is waited for here only.
        Applied: what is wanted is ready or has failed, and nothing unwanted is found any more. What drains may still be draining.
        """
        alone = self.members.alone or (bool(run) and self.members.whole)
        await self._until(lambda: name not in self._unread and (alone or self.generation(name) >= generation))
        desired = self._desired.get(name)
        if desired is None:
            return EMPTY
        await self._until(lambda: (applied := self._applied.get(name)) is not None and applied.count >= desired.generation)
        return self.failures(name) if alone or not generation else await self._everywhere(name, generation, here=bool(run))

    # --- what the reconciler asks ---

    def watch(self, watcher: Callable[[str], None]) -> None:
        """Call `watcher` with the name of every model whose wish changes; it must not block."""
        self._watchers.append(watcher)

    def report(self, name: str, failures: Failures) -> None:
        """What is desired now is applied, as far as it can be."""
        applied = _Applied(self._desired[name].generation, self.generation(name), dict(failures))
        if self._applied.get(name) == applied:
            return
        self._applied[name] = applied
        if not self.members.alone and applied.generation:
            self._reports[name] = Report(self.members.name, name, applied.generation, applied.failures)
        self.changes.tell()

    def end(self) -> None:
        """The server ends: whoever waits hears it, and so does whoever wishes from now on."""
        self._ended = True
        self.changes.tell()

    # --- what watch.py asks ---

    def absorb(self, wishes: Iterable[Wish]) -> None:
        """Take in wishes that were read from the store, in any order; older ones than those known change nothing."""
        names: dict[str, None] = {}
        for wish in wishes:
            known = (self._unread.get(wish.model) if wish.run else None) or self._wishes.get((wish.model, wish.run))
            if wish.generation and wish.run in ("", self.run) and (known is None or known.generation < wish.generation):
                if not self._looked(wish):
                    self._unread[wish.model] = wish
                    self.news.set()
                    continue
                self._wishes[wish.model, wish.run] = wish
                self._fallen |= {(wish.model, wish.run, v): (wish.generation, reason) for v, reason in failed_of(wish.document).items()}
                names[wish.model] = None
        for name in names:
            self._compose(name)

    def unreported(self) -> list[Report]:
        """What is to be written to the store, once; `keep` gives it back when that failed."""
        reports, self._reports = list(self._reports.values()), {}
        return reports

    def report_all(self) -> None:
        """Report everything anew: the store has lost sight of this worker."""
        applied = self._applied.items()
        self.keep(Report(self.members.name, name, one.generation, one.failures) for name, one in applied if one.generation)

    def keep(self, reports: Iterable[Report]) -> None:
        self._reports = {report.model: report for report in reports} | self._reports

    # --- inside ---

    def _looked(self, wish: Wish) -> bool:
        """Whether nobody needs to look at the disk before this wish can count."""
        if not wish.run:
            return True
        model = model_of(wish.document)
        if model is not None and self._read.get(wish.model) != model:
            return False
        if model is None:
            self._read.pop(wish.model, None)
        self._unread.pop(wish.model, None)
        return True

    def _compose(self, name: str) -> None:
        """What the command line, the run and the store say of one model, as one record. Where versions clash the command line wins."""
        versions: dict[str, Wanted] = {}
        labels: dict[str, str] = {}
        failed: dict[str, str] = {}
        for document in (self.document(name), self.document(name, self.run)):
            versions |= wanted_of(document)
            labels |= labels_of(document)
            failed |= failed_of(document)
        own = self._wishes.get((name, self.run))
        targets, their_labels = self._fixed.get(name, ({}, {}))
        if own is None or own.document.get("fixed"):
            versions |= targets
            labels |= their_labels
        failed = {version: reason for version, reason in failed.items() if version not in versions}
        self._count += 1
        self._desired[name] = Desired(self._count, versions, labels, failed, targets.keys() - versions.keys())
        if not self._ended:
            for watcher in self._watchers:
                watcher(name)
        self.changes.tell()

    def _wish_here(self, name: str, rewrite: Rewrite, run: str) -> Wish:
        standing = self._unread.get(name) or self._wishes.get((name, run))
        document = rewrite(standing)
        if document is not None and (standing is None or document != standing.document):
            return Wish(name, 1 if standing is None else standing.generation + 1, dict(document), run)
        return standing or Wish(name, 0, {}, run)

    async def _until(self, condition: Callable[[], bool]) -> None:
        self._refuse_when_ended()
        while not condition():
            await self.changes.after(self.changes.count)
            self._refuse_when_ended()

    def _before(self, name: str, run: str) -> Document:
        """What stands for a model before anybody has wished."""
        return FIXED if run and name in self._fixed else EMPTY

    def _works(self, name: str) -> bool:
        desired = self._desired.get(name)
        return desired is not None and any(version not in self.failures(name) for version in desired.versions)

    def _tried(self, name: str) -> set[str]:
        """The versions of a model whose load is over in this worker, however it ended. What still loads ends for whoever asks for it meanwhile."""
        desired, applied = self._desired.get(name, _NOTHING), self._applied.get(name)
        over = applied is not None and applied.count >= desired.generation
        return {*self.failures(name), *(desired.versions if over else ())}

    async def _withdraw(self, name: str, wish: Wish, old: Document, failures: Failures, run: str) -> Failures:
        """Take what failed out of the wish, where it still is; returns what of it was still wished for."""
        still: set[str] = set()

        def taken_out(standing: Wish | None) -> Document | None:
            nonlocal still
            still = standing_of(standing, failures.keys(), wish.document)
            if standing is None or not still:
                return None
            return withdrawn(standing, wish, old, {version: failures[version] for version in still})

        try:
            stages = {(name, version): stage for version, stage in earlier_stages(wish.document).items() if version in failures}
            after = await self.wish(name, taken_out, run=run, stages=stages)
            await self.settled(name, after.generation, run)
        except ServingError as error:  # the reason why it does not load matters more
            log.warning("the wish for model '%s' that failed could not be withdrawn: %s", name, error.message)
            return failures
        return {version: reason for version, reason in failures.items() if version in still}

    async def _everywhere(self, name: str, generation: int, *, here: bool) -> Failures:
        store = await self._store.get()
        patience = time.monotonic() + self.members.lease_s
        while True:
            self._refuse_when_ended()
            count = self.changes.count
            others = await self.members.others(store, uncounted=time.monotonic() < patience, here=here)
            reports = {r.worker: r for r in await store.reports(name) if r.generation >= generation}
            if others <= reports.keys():
                failures: dict[str, str] = dict(self.failures(name))
                for worker in others:
                    failures |= reports[worker].failures
                return failures
            await self.changes.after(count, _LOOK_S)

    def _refuse_when_ended(self) -> None:
        if self._ended:
            raise ServingError(Kind.UNAVAILABLE, _ENDING)
