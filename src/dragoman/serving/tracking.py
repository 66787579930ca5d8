"""MLflow's experiments, runs and logged models, as far as logging a model needs them: kept in the store as documents. Called by the MLflow dialect.

All workers see the same, and nothing is in memory. Inference never comes here. Times are milliseconds since the epoch, as clients give them.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar
from uuid import uuid4

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.serving.artifact_folder import SCHEME
from dragoman.serving.late_store import LateStore
from dragoman.serving.settings import quoted

DEFAULT = "0"
"""The id of the experiment that is always there."""
PENDING = "LOGGED_MODEL_PENDING"
RUNNING = "RUNNING"

_EXPERIMENTS, _RUN, _LOGGED = "mlflow experiments", "mlflow run", "mlflow logged model"
_MOST_EXPERIMENTS = 10_000
_LARGEST = 8 << 20
"""Characters of one document."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """A named group of runs. `location` is the URI below which its runs' artifacts lie."""

    id: str
    name: str
    location: str
    created: int = 0
    updated: int = 0
    deleted: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Metric:
    """The last value of a metric."""

    value: float
    timestamp: int
    step: int


@dataclass(frozen=True, slots=True)
class Run:
    """One run of somebody's training code. `ended` is 0 while it goes on."""

    id: str
    experiment: str
    location: str
    name: str
    user: str = ""
    status: str = RUNNING
    started: int = 0
    ended: int = 0
    deleted: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    datasets: list[Mapping[str, Any]] = field(default_factory=list)
    """What it read, as its client described it."""
    took: list[str] = field(default_factory=list)
    """Ids of logged models that it read."""
    made: Mapping[str, int] = field(default_factory=dict)
    """Id of a logged model that it wrote -> step."""

    def measured(self, metrics: Mapping[str, Sequence[Metric]]) -> "Run":
        """With these values; of each metric the one with the highest step stays, of several the latest."""
        last = dict(self.metrics)
        for key, values in metrics.items():
            known = [last[key]] if key in last else []
            last[key] = max([*known, *values], key=lambda metric: (metric.step, metric.timestamp))
        return replace(self, metrics=last)

    def given(self, params: Mapping[str, str]) -> "Run":
        """With these parameters. Raises INVALID_INPUT for one that has another value already."""
        for key, value in params.items():
            if self.params.get(key, value) != value:
                raise invalid(f"the parameter {quoted(key)} of run '{self.id}' is {quoted(self.params[key])}, and parameters do not change")
        return replace(self, params={**self.params, **params})


@dataclass(frozen=True, slots=True)
class LoggedModel:
    """A model that somebody's code wrote, registered or not. `location` is the URI of its files."""

    id: str
    experiment: str
    location: str
    name: str
    kind: str = ""
    run: str = ""
    status: str = PENDING
    created: int = 0
    updated: int = 0
    deleted: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)


T = TypeVar("T", Run, LoggedModel)


class Tracking:
    """`clock` gives seconds, `new_id` 32 hexadecimal digits.

    What is asked for and is not there, or is deleted where that makes a difference, raises NOT_FOUND (what="experiment", "run" or "logged model");
    documents that grow beyond measure raise TOO_LARGE; whatever a `change` raises is raised, and nothing is changed.
    """

    def __init__(
        self, store: LateStore, *, clock: Callable[[], float] = time.time, new_id: Callable[[], str] = lambda: uuid4().hex
    ) -> None:
        self._store = store
        self._clock = clock
        self._new_id = new_id

    def now(self) -> int:
        return int(self._clock() * 1000)

    # --- experiments: few, so all of them are one document, in which names are unique ---

    async def experiments(self) -> list[Experiment]:
        """All of them, deleted ones too."""
        store = await self._store.existing()
        return list(_experiments(None if store is None else await store.document(_EXPERIMENTS, "")).values())

    async def experiment(self, experiment_id: str) -> Experiment:
        return _find({each.id: each for each in await self.experiments()}, experiment_id)

    async def experiment_named(self, name: str) -> Experiment:
        found = next((each for each in await self.experiments() if each.name == name), None)
        if found is None:
            raise ServingError(Kind.NOT_FOUND, f"there is no experiment named {quoted(name)}", what="experiment")
        return found

    async def create_experiment(self, name: str, location: str = "", tags: Mapping[str, str] | None = None) -> Experiment:
        """Raises CONFLICT (what="experiment") when the name is taken, by a deleted one too."""
        now = self.now()
        made: list[Experiment] = []

        def add(known: dict[str, Experiment]) -> None:
            _refuse_taken(known, name)
            if len(known) >= _MOST_EXPERIMENTS:
                raise invalid(f"there are {_MOST_EXPERIMENTS} experiments, and there can be no more")
            number = str(max(int(each) for each in known) + 1)
            known[number] = Experiment(number, name, location or f"{SCHEME}:/{number}", now, now, tags=tags or {})
            made.append(known[number])

        await self._edit_experiments(add)
        return made[-1]

    async def change_experiment(self, experiment_id: str, change: Callable[[Experiment], Experiment]) -> None:
        def edit(known: dict[str, Experiment]) -> None:
            old = _find(known, experiment_id)
            new = change(old)
            if new.name != old.name:
                _refuse_taken(known, new.name)
            known[experiment_id] = replace(new, updated=self.now())

        await self._edit_experiments(edit)

    async def _edit_experiments(self, edit: Callable[[dict[str, Experiment]], None]) -> None:
        def rewritten(body: Mapping[str, Any] | None) -> Mapping[str, Any]:
            known = _experiments(body)
            edit(known)
            return _bounded("the list of experiments", {key: asdict(each) for key, each in known.items()})

        await (await self._store.get()).edit_document(_EXPERIMENTS, "", rewritten)

    # --- runs ---

    async def create_run(self, experiment_id: str, *, name: str, user: str, started: int, tags: Mapping[str, str]) -> Run:
        experiment = await self._active(experiment_id)
        run_id = self._new_id()
        run = Run(
            run_id,
            experiment.id,
            f"{experiment.location}/{run_id}/artifacts",
            name or tags.get("mlflow.runName") or f"run-{run_id[:8]}",
            user,
            started=started or self.now(),
            tags=tags,
        )
        return await self._add(_RUN, run)

    async def run(self, run_id: str) -> Run:
        return _run(await self._body(_RUN, run_id))

    async def runs(self, experiments: Sequence[str]) -> list[Run]:
        """Those of these experiments, oldest first, deleted ones too."""
        store = await self._store.existing()
        return [] if store is None else [_run(body) for body in await store.documents(_RUN, list(experiments))]

    async def change_run(self, run_id: str, change: Callable[[Run], Run], *, deleted: bool = False) -> Run:
        """Raises INVALID_INPUT for a deleted one, unless `deleted` says that it may be."""

        def active(run: Run) -> Run:
            if run.deleted and not deleted:
                raise invalid(f"run '{run.id}' is deleted, and does not change before it is restored")
            return change(run)

        return await self._change(_RUN, run_id, _run, active)

    # --- logged models ---

    async def create_logged(
        self, experiment_id: str, *, name: str, kind: str, run: str, params: Mapping[str, str], tags: Mapping[str, str]
    ) -> LoggedModel:
        experiment = await self._active(experiment_id)
        model_id = f"m-{self._new_id()}"
        now = self.now()
        model = LoggedModel(
            model_id,
            experiment.id,
            f"{experiment.location}/models/{model_id}/artifacts",
            name or model_id,
            kind,
            run,
            created=now,
            updated=now,
            tags=tags,
            params=params,
        )
        return await self._add(_LOGGED, model)

    async def logged(self, model_id: str, *, deleted: bool = False) -> LoggedModel:
        """`deleted`: whether a deleted one will do."""
        found = LoggedModel(**await self._body(_LOGGED, model_id))
        if found.deleted and not deleted:
            raise _missing(_LOGGED, model_id)
        return found

    async def all_logged(self, experiments: Sequence[str]) -> list[LoggedModel]:
        """Those of these experiments, oldest first, without deleted ones."""
        store = await self._store.existing()
        found = [] if store is None else [LoggedModel(**body) for body in await store.documents(_LOGGED, list(experiments))]
        return [each for each in found if not each.deleted]

    async def change_logged(self, model_id: str, change: Callable[[LoggedModel], LoggedModel]) -> LoggedModel:
        def active(model: LoggedModel) -> LoggedModel:
            if model.deleted:
                raise _missing(_LOGGED, model_id)
            return replace(change(model), updated=self.now())

        return await self._change(_LOGGED, model_id, lambda body: LoggedModel(**body), active)

    async def location(self, model_id: str) -> str:
        """The URI of the files of a logged model: what `models:/m-...` means to the catalog."""
        return (await self.logged(model_id)).location

    # --- documents ---

    async def _active(self, experiment_id: str) -> Experiment:
        found = await self.experiment(experiment_id)
        if found.deleted:
            raise invalid(f"experiment '{found.id}' is deleted, and takes nothing new before it is restored")
        return found

    async def _add(self, kind: str, thing: T) -> T:
        body = _bounded(f"'{thing.id}'", asdict(thing))
        await (await self._store.get()).edit_document(kind, thing.id, lambda _: body, group=thing.experiment)
        return thing

    async def _body(self, kind: str, key: str) -> Mapping[str, Any]:
        store = await self._store.existing()
        found = None if store is None else await store.document(kind, key)
        if found is None:
            raise _missing(kind, key)
        return found

    async def _change(self, kind: str, key: str, read: Callable[[Mapping[str, Any]], T], change: Callable[[T], T]) -> T:
        store = await self._store.existing()
        if store is None:
            raise _missing(kind, key)

        def rewritten(body: Mapping[str, Any] | None) -> Mapping[str, Any]:
            if body is None:
                raise _missing(kind, key)
            return _bounded(f"'{key}'", asdict(change(read(body))))

        return read(await store.edit_document(kind, key, rewritten))


def _experiments(body: Mapping[str, Any] | None) -> dict[str, Experiment]:
    known = {key: Experiment(**each) for key, each in (body or {}).items()}
    return {DEFAULT: Experiment(DEFAULT, "Default", f"{SCHEME}:/{DEFAULT}"), **known}


def _find(known: Mapping[str, Experiment], experiment_id: str) -> Experiment:
    if experiment_id not in known:
        raise ServingError(Kind.NOT_FOUND, f"there is no experiment with the id {quoted(experiment_id)}", what="experiment")
    return known[experiment_id]


def _refuse_taken(known: Mapping[str, Experiment], name: str) -> None:
    for each in known.values():
        if each.name == name:
            hint = ", which is deleted: restore it, or take another name" if each.deleted else ""
            raise ServingError(Kind.CONFLICT, f"there is an experiment named {quoted(name)} already{hint}", what="experiment")


def _run(body: Mapping[str, Any]) -> Run:
    return Run(**{**body, "metrics": {key: Metric(**metric) for key, metric in body["metrics"].items()}})


def _missing(kind: str, key: str) -> ServingError:
    what = kind.removeprefix("mlflow ")
    return ServingError(Kind.NOT_FOUND, f"there is no {what} with the id {quoted(key)}", what=what)


def _bounded(what: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
    if len(json.dumps(body)) > _LARGEST:
        raise ServingError(Kind.TOO_LARGE, f"{what} would hold more than {_LARGEST} characters of tags, parameters, metrics and inputs")
    return body
