"""The store seam: what the server keeps across restarts, as records and one protocol. `sql.py` implements it over SQLAlchemy.

Everything here is awaited and never blocks the loop. A write is durable when its await returns (a killed process loses nothing that was
answered). Inference never needs a store: with the store down serving goes on. Failures of the database are ServingError UNAVAILABLE.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from dragoman.core.model import EMPTY
from dragoman.core.predictions import Prediction, Progress, may_move

ACTIVE = frozenset({Progress.CLAIMED, Progress.RUNNING})
"""States in which a prediction has an owner who runs it."""


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A name in the registry, with or without versions. Times are seconds since the epoch."""

    name: str
    created: float
    updated: float = 0.0
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Key -> value, "" for a tag that is only a word (Submarine's)."""
    number: int = 0
    """Given by the store, in the order of creation (Submarine's modelId)."""


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """One version of a model in the registry: what was built or registered. Its files never change; what people say about it does.

    `spec` is the ModelSpec as JSON, relative to `folder`; `manifest` lists files with sizes and hashes; `digest` is the hash of all of
    that, the same wherever the same model is built. `folder` is relative to the data directory, or absolute for a version that was
    registered where it lies; "" for one that is only a URI.
    """

    model: str
    version: str
    digest: str
    created: float
    """Seconds since the epoch."""
    kind: str = ""
    """tungsten, python, onnx, ..."""
    spec: Mapping[str, Any] = field(default_factory=dict)
    manifest: Mapping[str, Any] = field(default_factory=dict)
    folder: str = ""
    source: str = ""
    """Where it came from, as whoever registered it wrote it: a folder, a URI."""
    updated: float = 0.0
    description: str = ""
    stage: str = ""
    """Production, Staging, Developing, Archived, None ... as given; "" when it was never given one."""
    tags: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    """What one face of the registry keeps and shows again, and nothing else reads: user_id, experiment_id, dataset, run_id, id ..."""
    number: int = 0
    """Given by the store, in the order of creation (Submarine's modelVersionId)."""


class ModelStore(Protocol):
    """Models, their versions, their aliases (Tungsten's tags, MLflow's aliases) and what people say about them."""

    async def add_model(self, model: RegisteredModel) -> RegisteredModel:
        """Insert a model without versions, which stays until it is removed; returns it with its number. Raises CONFLICT."""
        ...

    async def model(self, name: str) -> RegisteredModel | None: ...
    async def models(self) -> list[RegisteredModel]:
        """All of them, by name; those that came with a version, too."""
        ...

    async def change_model(
        self, name: str, *, updated: float, new_name: str | None = None, description: str | None = None
    ) -> RegisteredModel:
        """Change what is not None; versions, aliases and tags follow a new name. Raises NOT_FOUND, CONFLICT for a name that is taken."""
        ...

    async def remove_model(self, name: str) -> bool:
        """With all its versions, aliases and tags. False when there was none. The files are the caller's."""
        ...

    async def tag_model(self, name: str, key: str, value: str | None, *, updated: float) -> None:
        """Set a tag, or remove it with None (no error when there is none). Raises NOT_FOUND for an unknown model."""
        ...

    async def add_version(
        self,
        version: StoredVersion,
        *,
        aliases: Iterable[str] = (),
        replace: bool = False,
        reuse: Callable[[StoredVersion], bool] | None = None,
    ) -> StoredVersion:
        """Insert a version (and its model, when that is new) and point these aliases at it, in one transaction; returns it as stored.

        A version "" gets the number after the highest one. Without `updated` it is as of its creation. Raises CONFLICT when the version
        exists and `replace` is false. Where `reuse` is true of a version of this model with the same digest, that (the newest) is taken as it
        is instead; it is called as `Rewrite`s are.
        """
        ...

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
        """Change what is not None; `facts` are merged. Other versions in the stage `stage` go to the stage `archive`, if one is given.

        Raises NOT_FOUND (what="version").
        """
        ...

    async def tag_version(self, model: str, version: str, key: str, value: str | None, *, updated: float) -> None:
        """As tag_model."""
        ...

    async def version(self, model: str, version: str) -> StoredVersion | None: ...
    async def versions(self, model: str = "") -> list[StoredVersion]:
        """All versions of one model or of all, newest first; of those created in one moment, the one added last."""
        ...

    async def remove_version(self, model: str, version: str) -> bool:
        """Remove a version with its tags and the aliases that point at it. False when there was none.

        A model that came with a version goes with its last one; one that was made by add_model stays.

        The files of the version are the caller's.
        """
        ...

    async def aliases(self, model: str = "") -> dict[tuple[str, str], str]:
        """(model, alias) -> version."""
        ...

    async def set_alias(self, model: str, alias: str, version: str) -> None:
        """Create or move. Raises NOT_FOUND when the version does not exist."""
        ...

    async def remove_alias(self, model: str, alias: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class Change:
    """What one compare-and-set write does to a prediction. None leaves a field as it is.

    A change to PENDING also takes the prediction from its owner: owner, lease and start are cleared, the attempts stay counted.
    Raises ValueError for an end without its time: such a prediction would never be removed.
    """

    id: str
    progress: Progress | None = None
    expect: frozenset[Progress] = frozenset()
    """The states in which it is allowed; empty: any that is not terminal. Moves that `may_move` forbids are refused whatever it says."""
    owner: str | None = None
    """Expected owner; None: whoever."""
    attempt: int | None = None
    """Expected attempt; None: whichever."""
    outputs: bytes | None = None
    error: str | None = None
    error_kind: str | None = None
    logs: str | None = None
    started: float | None = None
    finished: float | None = None
    delivered: bool | None = None

    def __post_init__(self) -> None:
        if self.progress is not None and self.progress.terminal and self.finished is None:
            raise ValueError(f"a change to {self.progress.value} must say when it finished")

    @property
    def allowed(self) -> frozenset[Progress]:
        """The states from which this change is made."""
        expected = self.expect or ACTIVE | {Progress.PENDING}
        return expected if self.progress is None else frozenset(p for p in expected if may_move(p, self.progress))


class PredictionStore(Protocol):
    """Asynchronous predictions."""

    async def add_prediction(self, prediction: Prediction) -> None:
        """Insert; durable on return. Concurrent calls share transactions. Raises CONFLICT for an id that is taken.

        An await that is cancelled may have written or not.
        """
        ...

    async def prediction(self, prediction_id: str, *, inputs: bool = True) -> Prediction | None:
        """Whoever only polls asks without the inputs (they are then empty): they may be large.

        Outputs whose file was destroyed make it FAILED with that reason.
        """
        ...

    async def change_prediction(self, change: Change) -> bool:
        """Apply one compare-and-set; False when the prediction is gone or not as expected. Concurrent calls share transactions."""
        ...

    async def claim_predictions(self, owner: str, models: Sequence[str], *, lease_until: float, limit: int) -> list[Prediction]:
        """Claim, oldest first: those PENDING of these models, their owner set, attempt one more, in one transaction; returned as CLAIMED."""
        ...

    async def pending_models(self) -> list[str]:
        """The models that PENDING predictions wait for."""
        ...

    async def unfinished(self) -> dict[str, tuple[int, int]]:
        """Model -> how many of its predictions wait (PENDING or CLAIMED) and how many are RUNNING; only models that have any."""
        ...

    async def orphans(self, *, now: float, dead: Sequence[str] = ()) -> list[Prediction]:
        """Those CLAIMED or RUNNING whose lease is over or whose owner is among the dead, oldest first.

        They come without their payloads (inputs and logs are empty, outputs None): there may be many.
        """
        ...

    async def owners(self) -> list[str]:
        """Who owns CLAIMED or RUNNING predictions now: at start, to find those of processes that are gone."""
        ...

    async def renew_leases(self, owner: str, ids: Sequence[str], lease_until: float) -> None:
        """Of those of these that this owner has CLAIMED or RUNNING.

        It names them: what it does not know of, as the answer to its write was lost, is left to its lease.
        """
        ...

    async def cancelled_of(self, owner: str, ids: Sequence[str]) -> list[str]:
        """Which of these are no longer this owner's to run: cancelled, removed, or taken from it after its lease. In the order given.

        One that the owner itself has ended (SUCCEEDED, FAILED) is not among them.
        """
        ...

    async def undelivered(self, limit: int) -> list[Prediction]:
        """Terminal ones with a webhook that has not been delivered, the longest ended first."""
        ...

    async def remove_predictions(self, *, finished_before: float, limit: int) -> list[str]:
        """Remove terminal ones that ended before, the longest ended first; returns their ids.

        Those whose webhook is not delivered go, too: retention is the longest that anything is kept.
        """
        ...


@dataclass(frozen=True, slots=True)
class Wish:
    """What should be served of one model, all of it: leaving a version out means unload it (written and read by serving/registry.py)."""

    model: str
    generation: int
    """Of the whole registry: every change of any wish has a higher one than all before."""
    document: Mapping[str, Any] = field(default_factory=dict)
    """JSON. Empty: nothing of it should be served; such a wish stays as a row, so that watchers see it."""
    run: str = ""
    """The run of a server that it holds for, "" for wishes that outlive every server."""


@dataclass(frozen=True, slots=True)
class Report:
    """How far one worker came with the wish of one model."""

    worker: str
    model: str
    generation: int
    """The wish that it has applied, as far as that is possible."""
    failures: Mapping[str, str] = field(default_factory=dict)
    """Version -> reason, of those that did not load."""


Rewrite: TypeAlias = Callable[[Wish | None], Mapping[str, Any] | None]
"""From the wish that stands to the document of the next one; None leaves everything as it is. Pure: it may be called twice, in another thread."""


class DeploymentStore(Protocol):
    """Wishes, and who has applied them. Everything here is small; statements are the same for every database."""

    async def wish(self, model: str, rewrite: Rewrite, *, run: str = "", stages: Mapping[tuple[str, str], str] = EMPTY) -> Wish:
        """Change a wish in one transaction that no other wish can come between; returns the one that stands then.

        Where its document or one of `stages` changes, it has the next generation, the versions in `stages` have these stages, and everybody's
        bell rings. The keys of `stages` are (registered model, version): wishes go by served names. Where none stands and none is made, the
        answer has generation 0. What `rewrite` raises is raised here, as is NOT_FOUND for a version in `stages`, and nothing is changed.
        """
        ...

    async def wishes(self, *, since: int = 0) -> list[Wish]:
        """Those of a higher generation, of all runs, in the order of generations."""
        ...

    async def forget_run(self, run: str) -> None:
        """Remove the wishes of a server run that has ended. Raises ValueError for "": those outlive every server."""
        ...

    async def join(self, worker: str, lease_until: float) -> bool:
        """Count this worker among those whom barriers wait for, or go on counting it until then (seconds since the epoch).

        False when it was not among them: it is new, or somebody took it for dead, and then its reports are gone and it writes them again.
        """
        ...

    async def leave(self, workers: Sequence[str]) -> None:
        """Remove workers and their reports: they have ended, or somebody knows that they are dead. Everybody's bell rings."""
        ...

    async def workers(self, *, now: float) -> list[str]:
        """Those whose lease is not over."""
        ...

    async def report(self, reports: Sequence[Report]) -> None:
        """Write (in place of older ones of the same worker and model); everybody's bell rings. Those of workers that are not counted are dropped."""
        ...

    async def reports(self, model: str) -> list[Report]:
        """By worker; also those of workers whose lease is over."""
        ...


Edit: TypeAlias = Callable[[Mapping[str, Any] | None], Mapping[str, Any]]
"""From the document that stands, None where there is none, to the next one. Pure: it may be called twice, in another thread."""


class DocumentStore(Protocol):
    """Small JSON objects of one part of the server, which nothing else reads: MLflow's runs, jobs and their projects."""

    async def document(self, kind: str, key: str) -> Mapping[str, Any] | None: ...

    async def documents(self, kind: str, groups: Sequence[str] | None = None) -> list[Mapping[str, Any]]:
        """Those of these groups, None for all, in the order of their creation."""
        ...

    async def edit_document(self, kind: str, key: str, edit: Edit, *, group: str = "", rings: bool = False) -> Mapping[str, Any]:
        """Create or change one, in a transaction that no other edit can come between; returns what stands then.

        `group` is that of a new one. What `edit` raises is raised here, and nothing is changed. With `rings` everybody's bell rings then.
        """
        ...

    async def remove_document(self, kind: str, key: str, *, rings: bool = False) -> bool:
        """False when there was none. With `rings` everybody's bell rings, where there was one."""
        ...


class Bell(Protocol):
    """Tells one process that others have changed wishes or reports. It may ring for nothing, and is only a hint: whoever waits looks anyway."""

    async def rung(self, timeout_s: float) -> None:
        """Return when it has rung since the last return, or after the time-out. One waiter at a time. A change is never missed."""
        ...

    async def close(self) -> None: ...


class Store(ModelStore, PredictionStore, DeploymentStore, DocumentStore, Protocol):
    """All of it, in one database."""

    async def bell(self) -> Bell:
        """A bell of one's own, close it in the end. SQLite: rung by processes of this machine; PostgreSQL: by everybody (LISTEN, NOTIFY)."""
        ...

    async def close(self) -> None: ...
